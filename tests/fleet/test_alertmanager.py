"""A whole agent before Debian's Alertmanager: what it holds is what lasts, whoever was killed.

The alert is that somebody disarmed the policy, which needs no engine.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import threading
from contextlib import closing, contextmanager
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from tests.agent_process import AgentProcess, run_agent
from tests.fleet.alertmanager import Alertmanager
from tests.fleet.programs import free_port, wait_until
from tests.kill_cases import SHIM, Step, both, sql

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as the agent does")

WHY = "for a test"


class Hook:
    """A webhook's other end: what it got, by id."""

    def __init__(self, port: int) -> None:
        self.got: list[dict[str, Any]] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.got.append(json.loads(body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def transitions(self) -> list[tuple[str, str]]:
        """Id and state, each once, in the order in which they came first."""
        found: dict[tuple[str, str], None] = {}
        for one in self.got:
            found.setdefault((one["id"], one["state"]))
        return list(found)


@contextmanager
def hooked(port: int) -> Iterator[Hook]:
    hook = Hook(port)
    try:
        yield hook
    finally:
        hook.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Alertmanager]:
    with Alertmanager(tmp_path / "alertmanager") as one:
        yield one


class Notified:
    """An agent's settings and its commands."""

    def __init__(self, directory: Path, manager: str, hook_port: int) -> None:
        self.config = directory / "agent.toml"
        self.database = directory / "data/metrics.db"
        key = directory / "key"
        key.write_text("k" * 32)
        key.chmod(0o600)
        self.config.write_text(
            f'interval_s = 1\nsource = "psutil"\ndocker_host = "unix://{directory}/none.sock"\n'
            "[grafana]\nenabled = false\n[cron]\nenabled = false\n[bpf]\nenabled = false\n"
            f'[paths]\nrun = "{directory}/run"\nlog = "{directory}/log"\n'
            f'database = "{self.database}"\n'
            f'[notify.webhook]\nurl = "http://127.0.0.1:{hook_port}/x"\nkey_file = "{key}"\n'
            "timeout_s = 60\n"
            f'[notify.alertmanager]\nurls = ["{manager}"]\ntimeout_s = 1\n'
        )

    def agent(self, env: Mapping[str, str] | None = None) -> AgentProcess:
        return AgentProcess(("--config", str(self.config)), env or {})

    def policy(self, *words: str) -> None:
        done = run_agent("policy", *words, "--config", str(self.config))
        assert done.returncode == 0, done.stderr

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
            return connection.execute(query).fetchall()

    def ticks(self) -> int:
        return int(self.rows("SELECT count(*) FROM metrics")[0][0])


@pytest.fixture
def place(tmp_path: Path, manager: Alertmanager) -> Iterator[tuple[Notified, Hook]]:
    port = free_port()
    with hooked(port) as hook:
        yield Notified(tmp_path, manager.url, port), hook


def test_an_alert_appears_with_its_labels_is_held_as_one_and_is_resolved(
    place: tuple[Notified, Hook], manager: Alertmanager
) -> None:
    host, hook = place
    with host.agent() as agent:
        agent.wait_for_tick(1)
        assert manager.alerts() == []
        host.policy("disarm", WHY)
        alert = manager.one("the alert")
        assert alert["labels"] == {"alertname": "so1-disarmed", "instance": os.uname().nodename}
        assert alert["annotations"]["summary"] == f"The policy is disarmed: by hand: {WHY}."
        agent.signal(signal.SIGKILL)
    # Another run reminds at once, and it is the same alert by everything that says so.
    with host.agent() as agent:
        before = alert["updatedAt"]
        wait_until(lambda: manager.alerts()[0]["updatedAt"] != before, "a reminder")
        again = manager.one("the same")
        for name in ("fingerprint", "startsAt", "labels", "annotations"):
            assert again[name] == alert[name], name
        host.policy("arm")
        wait_until(lambda: manager.alerts() == [], "its end")
    wait_until(lambda: len(hook.transitions) == 2, "both at the webhook")
    assert [state for _, state in hook.transitions] == ["firing", "resolved"]


def test_an_alertmanager_that_was_down_and_lost_everything_hears_all_of_it(
    place: tuple[Notified, Hook], manager: Alertmanager
) -> None:
    host, _ = place
    manager.kill()
    with host.agent() as agent:
        agent.wait_for_tick(1)
        host.policy("disarm", WHY)
        status = wait_until(lambda: waiting(host), "it waits")
        assert "Connection refused" in status
        begun = host.ticks()
        wait_until(lambda: host.ticks() >= begun + 3, "ticks go on")
        manager.start()
        first = manager.one("the alert, late", 120)
        # Alerts live in its memory alone.
        manager.kill()
        manager.start()
        assert manager.alerts() == []
        assert manager.one("the alert again", 120)["startsAt"] == first["startsAt"]
        host.policy("arm")
        wait_until(lambda: manager.alerts() == [], "its end")


def waiting(host: Notified) -> str:
    said = run_agent("status", "--config", str(host.config)).stdout
    return said if "notify: alertmanager: 1 waiting, the oldest for" in said else ""


STEPS = [
    sql("message stored", "INSERT INTO outbox "),
    sql("message committed", "COMMIT", since="sql INSERT INTO outbox "),
    *both("receiver reached", "create_connection 127.0.0.1", often="before after"),
    sql("delivery stored", "DELETE FROM outbox$", since="create_connection"),
    sql("delivery committed", "COMMIT", since="create_connection"),
]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_killed_at_each_step_nothing_is_lost_and_repeats_have_the_same_id(
    place: tuple[Notified, Hook], manager: Alertmanager, step: Step
) -> None:
    host, hook = place
    with host.agent() as agent:
        agent.wait_for_tick(1)
    host.policy("disarm", WHY)
    env = {"PYTHONPATH": str(SHIM), "SO1_TEST_STEP": json.dumps(asdict(step))}
    with host.agent(env) as agent:
        agent.process.wait(120)
        assert agent.process.returncode == -signal.SIGKILL, agent.output
    with host.agent() as agent:
        manager.one("the alert")
        wait_until(lambda: hook.transitions, "the webhook's")
        host.policy("arm")
        wait_until(lambda: manager.alerts() == [], "its end")
        wait_until(lambda: len(hook.transitions) > 1, "the webhook's end")
        agent.signal(signal.SIGTERM)
        agent.process.wait(60)
    ids = [one for one, _ in hook.transitions]
    assert [state for _, state in hook.transitions] == ["firing", "resolved"], hook.got
    assert len(set(ids)) == 2
    assert host.rows("SELECT * FROM outbox") == host.rows("SELECT * FROM alerts") == []


class Deaf:
    """Takes every connection and answers nothing, or a byte a second, or without end."""

    def __init__(self, port: int, answer: bytes, pause_s: float) -> None:
        import socket

        self._server = socket.create_server(("127.0.0.1", port))
        self._over = threading.Event()
        self._answer, self._pause_s = answer, pause_s
        self.connections = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                one, _ = self._server.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._one, args=(one,), daemon=True).start()

    def _one(self, one: Any) -> None:
        with one:
            try:
                while not self._over.wait(self._pause_s):
                    one.sendall(self._answer)
            except OSError:
                pass

    def close(self) -> None:
        self._over.set()
        self._server.close()


@pytest.mark.parametrize(
    ("answer", "pause_s", "patient"),
    [
        (b"", 0.2, True),
        (b"H", 1.0, True),
        (b"x" * 65536, 0.0, False),
        (b"HTTP/1.1 500 No\r\n\r\n", 0.1, False),
    ],
    ids=["never answers", "drips", "endless", "500 for ever"],
)
def test_a_hostile_receiver_delays_no_tick_and_no_other_receiver(
    manager: Alertmanager, tmp_path: Path, answer: bytes, pause_s: float, patient: bool
) -> None:
    port = free_port()
    host = Notified(tmp_path, manager.url, port)
    deaf = Deaf(port, answer, pause_s)
    try:
        with host.agent() as agent:
            agent.wait_for_tick(1)
            host.policy("disarm", WHY)
            manager.one("the other receiver has it")
            wait_until(lambda: deaf.connections, "an attempt")
            begun = host.ticks()
            wait_until(lambda: host.ticks() >= begun + 5, "ticks")
            if patient:
                # The first attempt is still under way: none of these ticks waited for it.
                assert deaf.connections == 1
            agent.signal(signal.SIGTERM)
            agent.process.wait(60)
            # Without an engine a stop cannot say that no container is left; else it is a clean one.
            assert "not everything could be undone: containers: " in agent.output
            assert "Traceback" not in agent.output
    finally:
        deaf.close()
    assert [one for (one,) in host.rows("SELECT receiver FROM outbox WHERE NOT delivered")] == [
        "webhook"
    ]


def test_what_is_tried_by_hand_is_said_for_each_receiver(
    place: tuple[Notified, Hook], manager: Alertmanager
) -> None:
    host, hook = place
    done = run_agent("notify", "test", "--config", str(host.config))
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["webhook", "alertmanager"]
    assert hook.got[0]["event"] == "test"
    assert manager.one("the test")["labels"]["alertname"] == "so1-test"
    manager.kill()
    done = run_agent("notify", "test", "--json", "--config", str(host.config))
    assert done.returncode == 1
    webhook, other = json.loads(done.stdout)["receivers"]
    assert webhook["problem"] == ""
    assert "Connection refused" in other["problem"]
