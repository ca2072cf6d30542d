"""What goes missing while an agent runs (modules, Docker, events, the disk), and what goes on."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from agent.config import SourceChoice
from agent.daemon.auxiliary import Auxiliary
from agent.errors import ModulesError
from tests.unit.agent_parts import FullDisk
from tests.unit.agent_scene import Host, alpine, run, status, stop_after


def test_a_rebuild_holds_neither_the_ticks_nor_the_signs_of_life_nor_a_stop(host: Host) -> None:
    def gone() -> None:
        host.modules, host.build_s = False, 600

    host.time.at(30, gone)
    stop_after(host, 330)
    assert run(host) == 0
    assert host.time.passed_s == 330
    assert host.builds[-1].cancelled
    sources = [row[0] for row in host.rows("SELECT source FROM metrics ORDER BY id")]
    assert sources == ["modules"] * 2 + ["psutil"] * 15
    pauses = [
        later - earlier
        for earlier, later in zip(host.watchdog.alive_s, host.watchdog.alive_s[1:], strict=False)
    ]
    assert max(pauses) < 90


def test_modules_that_were_rebuilt_in_the_background_are_the_source_again(host: Host) -> None:
    def gone() -> None:
        host.modules, host.build_s = False, 60

    host.time.at(30, gone)
    stop_after(host, 130)
    run(host)
    sources = [row[0] for row in host.rows("SELECT source FROM metrics ORDER BY id")]
    assert sources == ["modules"] * 2 + ["psutil"] * 3 + ["modules"] * 2
    assert len(host.builds) == 2


def test_modules_that_cannot_be_had_are_a_problem_in_status_and_psutil_the_source(
    host: Host,
) -> None:
    host.loadable = False
    seen: list[dict[str, Any]] = []
    host.time.at(10, lambda: seen.append(status(host)))
    stop_after(host, 11)
    assert run(host) == 0
    assert seen[0]["source"] == "psutil"
    assert any("The headers are missing" in one for one in seen[0]["problems"])


def test_modules_that_were_asked_for_and_cannot_be_had_are_an_error_and_leave_nothing(
    host: Host,
) -> None:
    host.loadable = False
    with pytest.raises(ModulesError):
        run(host, source=SourceChoice.MODULES)
    assert host.ticks == 0
    assert host.did == ["modules unloaded"]


def test_late_removals_are_stored_though_the_tick_that_heard_of_them_fails(host: Host) -> None:
    host.docker.run(*(alpine(number) for number in range(5)))
    host.docker.slow = True

    def modules_go() -> None:
        host.docker.finish()
        host.modules, host.loadable = False, False

    host.time.at(10, modules_go)
    before: list[Any] = []
    host.time.at(25, lambda: before.append(host.rows("SELECT outcome FROM deletions")))
    stop_after(host, 50)
    run(host, source=SourceChoice.MODULES)
    assert host.ticks == 1
    assert before == [[("removed",), ("removed",)]]
    assert host.rows("SELECT count(*) FROM deletions") == [(2,)]
    assert host.rows("SELECT sum(deleted_count) FROM metrics") == [(2,)]


def test_none_goes_in_place_of_one_that_is_going(host: Host) -> None:
    """Two of five are too many; while they go, others come to hold more than they do."""
    host.docker.run(*(alpine(number) for number in range(5)))
    host.docker.slow = True
    host.time.at(10, lambda: setattr(host, "first_hold_most", True))
    host.time.at(50, host.docker.finish)
    stop_after(host, 90)
    run(host)
    assert sorted(one.name for one in host.docker.containers.values()) == [
        f"so1_contenedor_{number}" for number in range(3)
    ]
    assert host.rows("SELECT count(*) FROM deletions") == [(2,)]


def test_docker_away_stores_the_host_alone_and_costs_no_container_in_the_first_tick_back(
    host: Host,
) -> None:
    host.docker.run(*(alpine(number) for number in range(5)))
    host.docker.away = True
    problems: list[str] = []
    host.time.at(10, lambda: problems.extend(status(host)["problems"]))
    host.time.at(30, lambda: setattr(host.docker, "away", False))
    stop_after(host, 70)
    run(host)
    assert any("Docker does not answer" in one for one in problems)
    counts = host.rows("SELECT container_count, deleted_count FROM metrics ORDER BY id")
    assert counts == [(None, 0), (None, 0), (5, 0), (3, 2)]


def test_a_burst_of_starts_beyond_the_limit_is_one_pass_at_once(host: Host) -> None:
    def burst() -> None:
        for number in range(11):
            host.docker.run(alpine(number))
            host.send("start")

    host.time.at(25, burst)
    seen: list[int] = []
    host.time.at(26, lambda: seen.append(len(host.docker.removed)))
    stop_after(host, 30)
    run(host)
    assert seen == [8]
    assert sum("removed at once" in line for line in host.said) == 1
    assert host.rows("SELECT count(*) FROM deletions") == [(8,)]


def test_a_pass_between_two_ticks_leaves_what_the_next_tick_is_held_against(host: Host) -> None:
    """BPF's mark and the interval of the host's CPU begin at the last stored tick."""

    def burst() -> None:
        host.docker.run(*(alpine(number) for number in range(11)))
        host.send("start")

    began_ns = host.time.now_ns
    host.time.at(25, burst)
    stop_after(host, 50)
    run(host)
    assert len(host.docker.removed) == 8
    assert [(one - began_ns) / 10**9 for one in host.marks_ns] == [0, 20, 40]
    # The scene's CPUs are busy for one hundredth of the time: also across the pass.
    assert host.rows("SELECT cpu_usage FROM metrics") == [(0.0,), (1.0,), (1.0,)]


def test_what_a_source_leaves_out_is_in_status(host: Host) -> None:
    host.modules = True
    host.docker.left_out, host.odd = 2, 3
    seen: list[list[str]] = []
    host.time.at(5, lambda: seen.append(status(host)["problems"]))
    stop_after(host, 10)
    run(host)
    ((docker, modules),) = seen
    assert docker.startswith("docker: 2 entries")
    assert modules.startswith("modules: 3 entries")


def test_a_start_that_comes_in_the_pause_behind_a_pass_is_not_forgotten(host: Host) -> None:
    def start_eleven(first: int) -> None:
        host.docker.run(*(alpine(first + number) for number in range(11)))
        host.send("start")

    host.time.at(25, lambda: start_eleven(0))
    host.time.at(25.2, lambda: start_eleven(100))
    seen: list[int] = []
    host.time.at(26, lambda: seen.append(len(host.docker.containers)))
    stop_after(host, 30)
    run(host)
    assert seen == [3]


def test_events_that_are_not_followed_are_a_problem_in_status_while_docker_answers(
    host: Host,
) -> None:
    def lose(why: str) -> None:
        assert host.events is not None
        host.events.problem = why

    seen: list[list[str]] = []
    host.time.at(10, lambda: lose("Too many open files"))
    host.time.at(19, lambda: seen.append(status(host)["problems"]))
    host.time.at(21, lambda: lose(""))
    host.time.at(39, lambda: seen.append(status(host)["problems"]))
    stop_after(host, 40)
    run(host)
    assert [("Too many open files" in " ".join(one)) for one in seen] == [True, False]


def test_a_full_disk_stops_no_tick_and_loses_no_removal(host: Host) -> None:
    host.disk = FullDisk()
    host.disk.full = True
    host.docker.run(*(alpine(number) for number in range(5)))
    problems: list[str] = []
    host.time.at(10, lambda: problems.extend(status(host)["problems"]))
    host.time.at(30, lambda: setattr(host.disk, "full", False))
    stop_after(host, 50)
    assert run(host) == 0
    assert any("The disk is full" in one for one in problems)
    assert host.disk.unstored_ticks == 2
    assert [row.deleted_count for row in host.disk.rows] == [2]
    assert [one.decision.container_name for one in host.disk.deletions] == host.docker.removed
    assert host.disk.closed


def test_a_status_file_that_cannot_be_written_stops_no_tick(host: Host) -> None:
    (host.directory / "run").mkdir(parents=True)
    (host.directory / "run/.status.json.new").mkdir()
    stop_after(host, 50)
    assert run(host) == 1  # what is there cannot be removed at the end either
    assert host.ticks == 3


def test_a_removal_whose_row_the_full_disk_refuses_to_the_end_is_logged_and_the_agent_ends_well(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    host.disk = FullDisk()
    host.disk.full = True
    host.docker.slow = True
    host.docker.run(*(alpine(number) for number in range(5)))
    stop_after(host, 10)
    assert run(host) == 0
    assert len(host.docker.removed) == 2
    assert "outcome=unstored what=deletions The disk is full." in caplog.text


@pytest.mark.parametrize("kind", ["start", "unread"])
def test_starts_up_to_the_limit_remove_nothing(host: Host, kind: str) -> None:
    """Ten run where ten may: the pass that looks at once finds nothing to do."""

    def fill() -> None:
        host.docker.run(*(alpine(number) for number in range(10)))
        host.send(kind)

    host.time.at(25, fill)
    stop_after(host, 39)
    run(host)
    assert host.docker.removed == []


def test_an_event_that_cannot_be_read_may_have_been_a_start(host: Host) -> None:
    def burst() -> None:
        host.docker.run(*(alpine(number) for number in range(11)))
        host.send("unread")

    host.time.at(25, burst)
    stop_after(host, 30)
    run(host)
    assert len(host.docker.removed) == 8


@pytest.mark.parametrize("kind", ["die", "destroy", "rename", "oom"])
def test_an_event_that_adds_no_container_starts_no_pass(host: Host, kind: str) -> None:
    def burst() -> None:
        host.docker.run(*(alpine(number) for number in range(11)))
        host.send(kind)

    host.time.at(25, burst)
    stop_after(host, 39)
    run(host)
    assert host.docker.removed == []


def test_after_events_were_missed_neither_a_pass_nor_the_next_tick_removes_anything(
    host: Host,
) -> None:
    """What is there was not seen to come: it is counted first, and held to the limit afterwards."""

    def back() -> None:
        host.docker.run(*(alpine(number) for number in range(11)))
        host.send("resync")
        host.send("start")

    host.time.at(25, back)
    removed: list[int] = []
    for moment in (30, 50, 70):
        host.time.at(moment, lambda: removed.append(len(host.docker.removed)))
    stop_after(host, 71)
    run(host)
    assert removed == [0, 0, 8]


def test_an_engine_that_goes_between_the_list_and_the_pass_costs_no_container(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = host.docker.list

    def once() -> Any:
        answer = listed()
        host.docker.away = True
        return answer

    def burst() -> None:
        host.docker.run(*(alpine(number) for number in range(11)))
        monkeypatch.setattr(host.docker, "list", once)
        host.send("start")

    host.time.at(25, burst)
    stop_after(host, 30)
    run(host)
    assert host.docker.away
    assert host.docker.removed == []


def test_a_host_short_of_descriptors_costs_neither_the_agent_nor_a_row(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever reads or starts something fails for a while, in a tick and between two."""
    host.docker.run(*(alpine(number) for number in range(5)))
    host.docker.slow = True
    short = OSError(errno.EMFILE, "Too many open files")

    def unreadable() -> Any:
        raise short

    def begin() -> None:
        monkeypatch.setattr("agent.daemon.removals.available_kb", unreadable)
        monkeypatch.setattr(Auxiliary, "look", lambda _: unreadable())
        host.docker.finish()

    host.time.at(10, begin)
    host.time.at(50, monkeypatch.undo)
    stop_after(host, 90)
    assert run(host) == 0
    assert host.ticks == 5
    stored = host.rows("SELECT outcome, available_after_mb > 0 FROM deletions")
    assert stored == [("removed", 1), ("removed", 1)]
    assert "containers removed" in host.did
