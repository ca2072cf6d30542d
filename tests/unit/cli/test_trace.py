"""The lines of `agent bpf trace`: names, filters, order and columns."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.views import trace
from agent.cli.views.trace import Filter, Kind, Names, Reorder, TraceEvent, exit_detail, line

WEB = "c0ffee" + "0" * 58
SCOPE = f"docker-{WEB}.scope"


def event(**changed: object) -> TraceEvent:
    values: dict[str, object] = {"time_ns": 10**9, "event": Kind.EXEC, "pid": 7, "comm": "sh"}
    return TraceEvent(**(values | changed))  # type: ignore[arg-type]


def test_a_container_goes_by_its_directorys_id_until_docker_has_told_its_name() -> None:
    names = Names()
    names.learn_cgroup(5, 1, SCOPE)
    assert names.of(5) == (WEB, "c0ffee000000")
    assert names.asked == {WEB}
    names.learn_names({WEB: "web"})
    assert names.of(5) == (WEB, "web")


def test_a_cgroup_inside_a_containers_is_the_containers() -> None:
    names = Names()
    names.learn_cgroup(5, 1, SCOPE)
    names.learn_cgroup(6, 5, "init.scope")
    names.learn_cgroup(7, 6, "deep")
    assert names.of(7)[0] == WEB


def test_a_cgroup_of_the_host_is_no_containers() -> None:
    names = Names()
    names.learn_cgroup(5, 1, "cron.service")
    assert names.of(5) == ("", "")
    assert names.of(99) == ("", "")
    assert names.is_named(5)


def test_a_renamed_container_goes_by_its_new_name_and_a_removed_one_keeps_its_last() -> None:
    names = Names()
    names.learn_cgroup(5, 1, SCOPE)
    names.learn_names({WEB: "web"})
    names.learn_names({WEB: "api"})
    names.learn_names({})
    assert names.of(5)[1] == "api"


def test_a_hosts_unit_with_an_id_in_its_name_is_no_container() -> None:
    names = Names()
    names.learn_cgroup(5, 1, f"ci-job-{WEB}.service")
    assert names.of(5) == ("", "")


def test_a_container_that_docker_does_not_know_is_not_waited_for() -> None:
    names = Names()
    names.learn_cgroup(5, 1, SCOPE)
    assert not names.is_named(5)
    names.learn_names({}, asked={WEB})
    assert names.is_named(5)


@pytest.mark.parametrize(
    ("code", "oom", "text", "status", "number"),
    [
        (0, False, "status 0 after 1.5ms", 0, None),
        (3 << 8, False, "status 3 after 1.5ms", 3, None),
        (9, False, "SIGKILL after 1.5ms", None, 9),
        (9, True, "SIGKILL, OOM kill after 1.5ms", None, 9),
        (11 | 0x80, False, "SIGSEGV, core dumped after 1.5ms", None, 11),
        (70, False, "signal 70 after 1.5ms", None, 70),
    ],
)
def test_an_exit_tells_how_and_after_how_long(
    code: int, oom: bool, text: str, status: int | None, number: int | None
) -> None:
    assert exit_detail(code, oom=oom, lived_ns=1_500_000) == (text, status, number)


@pytest.mark.parametrize(
    ("lived_ns", "text"), [(900_000, "900us"), (2_340_000_000, "2.3s"), (-1, "status 0")]
)
def test_a_life_is_told_in_its_own_unit(lived_ns: int, text: str) -> None:
    assert exit_detail(0, oom=False, lived_ns=lived_ns)[0].endswith(text)


def test_a_line_has_fixed_columns_and_its_free_text_last() -> None:
    text = line(event(ppid=1, container="web", detail="/bin/sh -c x"))
    for word in ("EVENT", "PID", "CONTAINER", "DETAIL"):
        assert word in trace.HEADER
    assert text.index("exec") == trace.HEADER.index("EVENT")
    assert text.index("web") == trace.HEADER.index("CONTAINER")
    assert text.index("/bin/sh") == trace.HEADER.index("DETAIL") < 80


def test_names_that_are_too_long_do_not_move_the_columns() -> None:
    text = line(event(comm="abcdefghijklmnop", container="x" * 40, detail="/bin/sh"))
    assert text.index("/bin/sh") == trace.HEADER.index("DETAIL")


def test_names_that_are_too_long_can_still_be_told_apart() -> None:
    column = slice(trace.HEADER.index("CONTAINER"), trace.HEADER.index("DETAIL"))
    generated = [f"so1_contenedor_{number}" for number in (4294967295, 4294967294)]
    replicas = [f"shop-production-of-the-north_web.{number}.x" for number in (1, 2)]
    services = [f"{name}-production-of-the-north-replica.1" for name in ("shop", "mail")]
    for names in (generated, replicas, services):
        shown = [line(event(container=name, detail="x"))[column].strip() for name in names]
        assert len(set(shown)) == 2, shown
    assert line(event(container=generated[0], detail="x"))[column].strip() == generated[0]


def test_a_detail_that_is_only_the_beginning_says_so() -> None:
    assert line(event(detail="/usr/bi", cut=True)).endswith("/usr/bi…")
    assert line(event(detail="/usr/bin")).endswith("/usr/bin")


def test_what_a_workload_chose_cannot_steer_the_terminal() -> None:
    text = line(event(comm="\x1b[2J", detail="/tmp/\r\n\x1b]0;x\x07"))
    assert text.isprintable()


def test_colour_changes_no_character_that_is_read() -> None:
    plain = line(event(event=Kind.OOM))
    coloured = line(event(event=Kind.OOM), colour=True)
    assert "\x1b[" in coloured
    assert "\x1b" not in plain


def test_json_leaves_out_what_says_nothing_and_keeps_a_status_of_0() -> None:
    text = msgspec.json.encode(event(event=Kind.EXIT, exit_code=0))
    assert msgspec.json.decode(text) == {
        "time_ns": 10**9,
        "event": "exit",
        "pid": 7,
        "comm": "sh",
        "exit_code": 0,
    }


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_of_event_has_a_line(kind: Kind) -> None:
    words = ("fork", "exec", "exit", "attach", "mkdir", "rmdir", "oom", "lost", "end")
    assert str(kind) in words
    assert str(kind) in line(event(event=kind))


def test_filters_pass_what_they_name() -> None:
    mine = event(container="web", container_id=WEB)
    assert Filter().passes(event())
    assert Filter(containers=frozenset({"web"})).passes(mine)
    assert Filter(containers=frozenset({"c0ffee"})).passes(mine)
    assert not Filter(containers=frozenset({"c0ff"})).passes(mine)  # too short to be an id
    assert not Filter(containers=frozenset({"web"})).passes(event())
    assert Filter(comms=frozenset({"sh"})).passes(mine)
    assert not Filter(comms=frozenset({"ls"})).passes(mine)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), max_size=60))
def test_events_that_come_up_to_the_slack_out_of_order_leave_in_order_and_whole(
    steps: list[tuple[int, int]],
) -> None:
    reorder: Reorder[TraceEvent] = Reorder(slack_ns=10)
    now, sent, shown = 0, [], []
    for ahead, late in steps:
        now += ahead
        one = event(time_ns=max(0, now - late))
        sent.append(one.time_ns)
        shown += [got.time_ns for got in reorder.put([one], now)]
    shown += [got.time_ns for got in reorder.rest()]
    assert sorted(sent) == sorted(shown)
    assert shown == sorted(shown)
