"""A removal against an engine that refuses, hangs or talks nonsense: told, bounded, never wrong.

The engine is a few lines of HTTP on a Unix socket that answer as a test says; the real one is met
in the docker layer.
"""

from __future__ import annotations

import itertools
import json
import socketserver
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

import pytest

from agent.actions import removal
from agent.actions.remover import MAX_PARALLEL, Remover, remove_installation
from agent.errors import EngineUnavailableError
from agent.model.container import Tier
from agent.model.removal import Decision, Outcome, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ID = "ab" * 32
CREATED = "2026-11-24T15:35:10.000000001Z"
CREATED_NS = 1_795_534_510_000_000_001
OURS = "0123456789abcdef" * 2
Answer = tuple[int, Any]


def about(state: str = "running", **changes: object) -> dict[str, object]:
    return {
        "Id": ID,
        "Created": CREATED,
        "Name": "/so1_contenedor_1",
        "Image": "sha256:" + "0" * 64,
        "State": {"Status": state, "Running": state == "running", "Pid": 7},
        "Config": {"Image": "alpine", "Labels": None},
        **changes,
    }


@dataclass
class FakeEngine:
    """`answers[kind]` gives (status, body) for the n-th request of its kind; text is sent raw."""

    answers: dict[str, Callable[[int], Answer]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    host: str = ""

    def kinds(self) -> Counter[str]:
        return Counter(self.asked)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[FakeEngine]:
    fake = FakeEngine(host=f"unix://{tmp_path}/s")
    fake.answers = {
        "look": lambda n: (200, about()),
        "stop": lambda n: (204, None),
        "restart": lambda n: (204, None),
        "pause": lambda n: (204, None),
        "delete": lambda n: (204, None),
        "list": lambda n: (200, []),
        "image": lambda n: (200, {"Config": {"Labels": None}}),
    }
    guard = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            path = self.path.split("?")[0]
            if path.endswith("/version"):
                self._send(200, {"ApiVersion": "1.41"})
                return
            ends = {"/stop": "stop", "/containers/json": "list"}
            ends |= {"/restart": "restart", "/pause": "pause"}
            kind = next((word for end, word in ends.items() if path.endswith(end)), "look")
            kind = "delete" if self.command == "DELETE" else kind
            kind = "image" if "/images/" in path else kind
            with guard:
                number = fake.kinds()[kind]
                fake.asked.append(kind)
            self._send(*fake.answers[kind](number))

        do_GET = do_POST = do_DELETE = _serve  # noqa: N815

        def _send(self, status: int, body: Any) -> None:
            raw = body if isinstance(body, str) else json.dumps(body)
            data = b"" if body is None else raw.encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_: object) -> None:
            """A client that gave up is what some tests are about."""

    with Server(str(tmp_path / "s"), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield fake
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "CALL_TIMEOUT_S", 0.3)
    monkeypatch.setattr(removal, "GONE_TIMEOUT_S", 0.5)
    monkeypatch.setattr(removal, "POLL_TIMEOUT_S", 0.3)


def decision(container_id: str = ID, reason: Reason = Reason.EXCESS_LOW, rank: int = 1) -> Decision:
    return Decision(
        "d",
        container_id,
        "so1_contenedor_1",
        "alpine",
        CREATED_NS,
        Tier.LOW,
        rank,
        reason,
        1.0,
        0.0,
    )


def attempt(engine: FakeEngine, reason: Reason = Reason.EXCESS_LOW) -> removal.Ending:
    return removal.attempt(engine.host, decision(reason=reason), grace_s=0)


def test_the_ordinary_case_looks_stops_and_deletes(engine: FakeEngine) -> None:
    assert attempt(engine).outcome is Outcome.REMOVED
    assert engine.asked == ["look", "stop", "delete"]


@pytest.mark.parametrize(
    "body",
    [
        "not json",
        "[]",
        "{}",
        "null",
        "[" * 100_000,
        json.dumps(about(Id=7)),
        json.dumps(about(Created="yesterday")),
        json.dumps(about(Created=None)),
        json.dumps(about(State=[])),
        json.dumps(about(Config={"Labels": {"a": []}})),
        json.dumps(about(Config={"Labels": ["so1.protect"]})),
    ],
)
def test_an_answer_that_is_no_container_removes_nothing(engine: FakeEngine, body: str) -> None:
    engine.answers["look"] = lambda n: (200, body)
    ending = attempt(engine)
    assert ending.outcome is Outcome.FAILED
    assert ending.error
    assert engine.asked == ["look"]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param((404, {"message": "No such container"}), id="absent"),
        pytest.param((200, about(Id="cd" * 32)), id="another id"),
        pytest.param((200, about(Created="2026-11-24T15:35:10Z")), id="another creation time"),
    ],
)
def test_what_is_not_the_one_decided_on_is_gone_and_untouched(
    engine: FakeEngine, answer: Answer
) -> None:
    engine.answers["look"] = lambda n: answer
    assert attempt(engine).outcome is Outcome.GONE
    assert engine.asked == ["look"]


def test_a_refusal_is_failed_with_dockers_words_short_and_printable(engine: FakeEngine) -> None:
    engine.answers["delete"] = lambda n: (500, {"message": "\x1b[31mdriver failed " + "x" * 5000})
    ending = attempt(engine)
    assert ending.outcome is Outcome.FAILED
    assert ending.error.startswith("\\x1b[31mdriver failed")
    assert len(ending.error) < 400


def test_a_stop_that_fails_is_no_reason_not_to_delete(engine: FakeEngine) -> None:
    engine.answers["stop"] = lambda n: (500, {"message": "cannot stop"})
    assert attempt(engine).outcome is Outcome.REMOVED


def test_one_that_vanishes_before_its_deletion_is_gone(engine: FakeEngine) -> None:
    engine.answers["delete"] = lambda n: (404, {"message": "No such container"})
    assert attempt(engine).outcome is Outcome.GONE


def test_a_removal_by_somebody_else_is_waited_for(engine: FakeEngine) -> None:
    engine.answers["delete"] = lambda n: (409, {"message": "removal is already in progress"})
    engine.answers["look"] = lambda n: (200, about()) if n < 3 else (404, {"message": "gone"})
    assert attempt(engine).outcome is Outcome.GONE


def test_a_removal_by_somebody_else_that_never_ends_is_failed(engine: FakeEngine) -> None:
    engine.answers["look"] = lambda n: (200, about("removing"))
    ending = attempt(engine)
    assert (ending.outcome, ending.error) == (Outcome.FAILED, "is being removed")
    assert "delete" not in engine.asked


def test_a_deletion_without_an_answer_counts_once_the_container_is_absent(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    def hang(_: int) -> Answer:
        release.wait(30)
        return (204, None)

    engine.answers["delete"] = hang
    engine.answers["look"] = lambda n: (200, about()) if n < 2 else (404, {"message": "gone"})
    with monkeypatch.context() as patient:
        # Only the deletion has no answer: a busy machine's late one to a look is not what is meant.
        patient.setattr(removal, "CALL_TIMEOUT_S", 2.0)
        patient.setattr(removal, "POLL_TIMEOUT_S", 10.0)
        patient.setattr(removal, "GONE_TIMEOUT_S", 30.0)
        assert attempt(engine).outcome is Outcome.REMOVED
    engine.answers["look"] = lambda n: (200, about())
    ending = attempt(engine)
    assert ending.outcome is Outcome.FAILED
    assert "does not answer in time" in ending.error
    release.set()


def test_one_that_was_started_again_while_it_was_deleted_as_exited_is_left(
    engine: FakeEngine,
) -> None:
    engine.answers["look"] = lambda n: (200, about("exited"))
    engine.answers["delete"] = lambda n: (409, {"message": "You cannot remove a running container"})
    ending = attempt(engine, Reason.EXITED)
    assert (ending.outcome, ending.error) == (Outcome.GONE, "it runs again")
    assert "stop" not in engine.asked


class FrozenClock:
    def __init__(self) -> None:
        self.now_ns = 0

    def wall_ns(self) -> int:
        return self.now_ns

    def boot_ns(self) -> int:
        return self.now_ns


def test_at_most_so_many_removals_run_at_once_and_none_is_lost(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = threading.Semaphore(0)
    release = threading.Event()

    def hold(_: int) -> Answer:
        inside.release()
        release.wait(30)
        return (404, {"message": "gone"})

    engine.answers["look"] = hold
    many = [decision(f"{n:064x}", rank=n) for n in range(3 * MAX_PARALLEL)]
    remover = Remover(engine.host, FrozenClock(), grace_s=0)
    monkeypatch.setattr(removal, "CALL_TIMEOUT_S", 60.0)
    assert remover.remove(many, deadline_ns=0) == ()
    for _ in range(MAX_PARALLEL):
        assert inside.acquire(timeout=30)
    assert not inside.acquire(timeout=0.2)
    release.set()
    ended = [*remover.remove([], deadline_ns=0)]
    deadline = time.monotonic() + 30
    while len(ended) < len(many) and time.monotonic() < deadline:
        ended += remover.collect()
    assert sorted(one.decision.rank for one in ended) == list(range(3 * MAX_PARALLEL))


def test_what_was_never_begun_is_told_when_the_agent_stops(engine: FakeEngine) -> None:
    release = threading.Event()

    def hold(_: int) -> Answer:
        release.wait(30)
        return (404, {"message": "gone"})

    engine.answers["look"] = hold
    remover = Remover(engine.host, FrozenClock(), grace_s=0)
    many = [decision(f"{n:064x}", rank=n) for n in range(MAX_PARALLEL + 2)]
    remover.remove(many, deadline_ns=0)
    told = remover.close(0)
    release.set()
    assert {one.outcome for one in told} == {Outcome.FAILED}
    assert len(told) == len(many)
    assert remover.remove(many, deadline_ns=0) == ()
    assert len(remover.not_attempted) == len(many)


def test_an_error_inside_the_agent_is_a_failure_and_loses_no_decision(
    engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(one: Decision, _: object) -> bool:
        if one.rank == 1:
            raise LookupError("a bug")
        return True

    clock = FrozenClock()
    remover = Remover(engine.host, clock, 0, still_allowed=broken)
    for _ in range(2 * MAX_PARALLEL):
        clock.now_ns += 3600 * 10**9
        (told,) = remover.remove([decision()], clock.now_ns + 60 * 10**9)
        assert told.outcome is Outcome.FAILED
        assert "inside the agent" in told.error
    assert "a bug" in caplog.text
    assert engine.kinds()["delete"] == 0
    clock.now_ns += 3600 * 10**9
    (told,) = remover.remove([decision(rank=2)], clock.now_ns + 60 * 10**9)
    assert told.outcome is Outcome.REMOVED


@pytest.mark.parametrize("listing", ["nonsense", "{}", "null", '"x"'])
def test_a_list_that_is_none_stops_the_clean_up_with_a_sentence(
    engine: FakeEngine, listing: str
) -> None:
    engine.answers["list"] = lambda n: (200, listing)
    with pytest.raises(EngineUnavailableError, match="does not answer"):
        remove_installation(engine.host, OURS, progress=print)
    assert engine.kinds()["delete"] == 0


@pytest.mark.parametrize("entry", ['{"Id": 7}', "null", '{"id": "x"}', '"x"'])
def test_an_entry_without_an_id_keeps_no_other_from_the_clean_up_and_is_failed(
    engine: FakeEngine, entry: str
) -> None:
    labelled = {"Image": "alpine", "Labels": {"so1.installation": OURS}}
    listing = f'[{entry}, {{"Id": "{ID}"}}]'
    engine.answers["list"] = lambda n: (200, listing)
    engine.answers["look"] = lambda n: (200, about(Config=labelled))
    told = remove_installation(engine.host, OURS, progress=print)
    assert [(one.decision.container_name, one.outcome) for one in told] == [
        ("so1_contenedor_1", Outcome.REMOVED),
        ("entry 1", Outcome.FAILED),
    ]


@pytest.mark.parametrize(
    "broken",
    [
        (500, {"message": "layer does not exist"}),
        (200, about(Id="cd" * 32, Created="yesterday")),
        (200, "no JSON"),
    ],
    ids=["a failure", "no time", "no JSON"],
)
def test_one_that_docker_cannot_describe_keeps_no_other_from_the_clean_up(
    engine: FakeEngine, broken: Answer
) -> None:
    labelled = {"Image": "alpine", "Labels": {"so1.installation": OURS}}
    looks = itertools.count()
    engine.answers["list"] = lambda n: (200, [{"Id": "cd" * 32}, {"Id": ID}])
    # Two looks a round, and one before the removal in between.
    engine.answers["look"] = lambda n: (
        broken if next(looks) in (0, 3) else (200, about(Config=labelled))
    )
    told = remove_installation(engine.host, OURS, progress=print)
    assert [(one.decision.container_id, one.outcome) for one in told] == [
        (ID, Outcome.REMOVED),
        ("cd" * 32, Outcome.FAILED),
    ]
    assert "does not describe" in told[1].error


def test_the_clean_up_leaves_the_container_that_it_runs_in(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled = {"Image": "alpine", "Labels": {"so1.installation": OURS}}
    engine.answers["list"] = lambda n: (200, [{"Id": ID}])
    engine.answers["look"] = lambda n: (200, about(Config=labelled))
    monkeypatch.setattr("agent.engine_api.own_container.own_ids", lambda: frozenset({ID}))
    said: list[str] = []
    assert remove_installation(engine.host, OURS, progress=said.append) == ()
    assert "the agent runs in it" in said[0]
    assert engine.kinds()["delete"] == 0


def test_one_that_is_never_what_was_decided_on_is_looked_at_ever_more_seldom(
    engine: FakeEngine,
) -> None:
    """The first time it may go at once as it is now; again and again it is a fault of ours."""
    clock = FrozenClock()
    remover = Remover(engine.host, clock, 0, lambda _decision, _now: False)
    outcomes = []
    for _ in range(40):
        outcomes += [one.outcome for one in remover.remove([decision()], clock.now_ns + 60 * 10**9)]
        clock.now_ns += 20 * 10**9
    assert set(outcomes) == {Outcome.GONE}
    assert 2 <= len(outcomes) <= 8


def test_the_clean_up_looks_again_for_one_that_docker_was_still_making(
    engine: FakeEngine,
) -> None:
    ids = [f"{n:064x}" for n in range(3)]
    labelled = {"Image": "alpine", "Labels": {"so1.installation": OURS}}
    looks = itertools.count()
    order = [ids[0], ids[0], ids[1], ids[1]]
    engine.answers["list"] = lambda n: (200, [{"Id": ids[n]}] if n < 2 else [])
    engine.answers["look"] = lambda n: (200, about(Id=order[next(looks)], Config=labelled))
    told = remove_installation(engine.host, OURS, progress=print)
    assert [one.decision.container_id for one in told] == ids[:2]
    assert {one.outcome for one in told} == {Outcome.REMOVED}
    assert {one.decision.reason for one in told} == {Reason.STOP}


def test_what_is_announced_is_what_is_attempted(engine: FakeEngine) -> None:
    """A decision's id is logged where a row will have it; one that waits out its pause has none."""
    engine.answers["look"] = lambda _: (500, {"message": "no"})
    clock = FrozenClock()
    remover = Remover(engine.host, clock, grace_s=0)
    announced: list[str] = []
    ended: list[str] = []
    for number in range(3):
        clock.now_ns += 10**9
        one = replace(decision(), id=f"decision {number}")
        done = remover.remove(
            [one], clock.now_ns + 60 * 10**9, lambda said: announced.append(said.id)
        )
        ended += [removal.decision.id for removal in done]
    assert announced == ended == ["decision 0"]


def test_a_host_without_threads_to_give_fails_the_removals_and_they_are_made_later(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    clock = FrozenClock()
    remover = Remover(engine.host, clock, grace_s=0)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        (told,) = remover.remove([decision()], clock.now_ns + 60 * 10**9)
    assert told.outcome is Outcome.FAILED
    assert "can't start new thread" in told.error
    (told,) = remover.remove([decision()], clock.now_ns + 60 * 10**9)
    assert told.outcome is Outcome.REMOVED
