"""What one tick hands to the next of OOM kills: nothing twice, nothing lost, names that outlive."""

from __future__ import annotations

from dataclasses import replace

from agent.daemon.autopsies import Autopsies
from agent.model.bpf import ProcessExit
from agent.model.container import CgroupView, ContainerKey, Hierarchy
from agent.model.oom import LoggedKill, OomMark, OomWitness
from agent.model.process import ProcessKey
from agent.model.tick import Carried, Part, Tick
from tests.unit import builders
from tests.unit.analysis.test_autopsy import DB, MB, WEB, a_line, a_mark
from tests.unit.cli.test_who import a_look
from tests.unit.store.builders import FakeClock

BOX = ContainerKey("docker", WEB.id)


class Host:
    """Its witnesses say what a test puts here, once."""

    def __init__(self) -> None:
        self.marks: list[OomMark] | None = []
        self.lines: list[LoggedKill] = []
        self.exits: list[ProcessExit] = []
        self.started: dict[ContainerKey, tuple[str, str]] = {}
        self.autopsies = Autopsies(
            marks=self._marks,
            ended=self._exits,
            kernel_log=self,
            started=lambda: self.started,
            clock=FakeClock(1000 * 10**9, 100 * 10**9),
        )

    def _marks(self) -> list[OomMark] | None:
        if self.marks is None:
            return None
        found, self.marks = self.marks, []
        return found

    def _exits(self) -> list[ProcessExit]:
        found, self.exits = self.exits, []
        return found

    def read(self) -> tuple[LoggedKill, ...]:
        found, self.lines = tuple(self.lines), []
        return found

    def tick(self, look: Tick | None = None, *, stored: bool = True) -> list[tuple[int, str]]:
        found = self.autopsies.of(look or a_look(), Carried())
        if stored:
            self.autopsies.stored()
        return [(one.pid, ",".join(one.witnesses)) for one in found.kills]


def test_a_mark_and_its_line_are_one_kill() -> None:
    host = Host()
    host.marks, host.lines = [a_mark(91)], [a_line(91)]

    assert host.tick() == [(91, "bpf,kernel-log")]
    assert host.tick() == []


def test_a_line_that_came_behind_the_marks_waits_for_its_mark() -> None:
    host = Host()
    host.lines = [a_line(91)]
    assert host.tick() == []
    host.marks = [a_mark(91)]

    assert host.tick() == [(91, "bpf,kernel-log")]
    assert host.tick() == []


def test_a_line_whose_mark_never_comes_is_a_kill_by_the_log_alone() -> None:
    host = Host()
    host.lines = [a_line(91)]

    assert host.tick() == []
    assert host.tick() == [(91, "kernel-log")]
    assert host.tick() == []


def test_without_probes_the_log_is_believed_at_once() -> None:
    host = Host()
    host.marks, host.lines = None, [a_line(91)]

    assert host.tick(a_look(bpf=False)) == [(91, "kernel-log")]


def test_a_line_that_repeats_a_kill_of_a_moment_ago_is_none() -> None:
    host = Host()
    host.marks, host.lines = [a_mark(91)], [a_line(91)]
    host.tick()
    host.lines = [a_line(91)]

    assert host.tick() == []
    assert host.tick() == []


def test_what_could_not_be_stored_comes_again_and_is_counted_once() -> None:
    host = Host()
    host.marks = [a_mark(91)]
    first = host.autopsies.of(a_look(), Carried())
    host.marks = [a_mark(92)]
    second = host.autopsies.of(a_look(), Carried())

    assert [one.pid for one in second.kills] == [91, 92]
    assert (first.causes, second.causes) == (("limit",), ("limit",))
    host.autopsies.stored()
    assert host.tick() == []


def test_a_container_that_came_and_went_has_the_name_of_its_start() -> None:
    host = Host()
    host.started[BOX] = ("brief", "alpine:3")
    host.marks = [a_mark(91)]

    (found,) = host.autopsies.of(a_look(docker=False), Carried()).kills

    assert (found.container_id, found.container_name, found.image) == (WEB.id, "brief", "alpine:3")


def test_a_name_is_remembered_when_its_container_is_gone() -> None:
    host = Host()
    host.tick()
    gone = replace(a_look().sample, containers=Part((), 0))
    host.marks = [replace(a_mark(91), cgroup_id=0, levels=())]
    look = replace(a_look(), sample=gone)
    mine = a_look().containers[0]
    host.marks = [
        replace(a_mark(91), cgroup_id=0, levels=(a_mark().levels[0]._replace(name=mine.id),))
    ]

    (found,) = host.autopsies.of(look, Carried()).kills

    assert found.container_name == "web"


def test_the_containers_counter_is_held_against_the_tick_before() -> None:
    host = Host()

    def look(kills: int) -> Tick:
        tick = a_look()
        mine = tick.containers[0].key
        cgroup = replace(
            builders.cgroup(), container=mine, ids=frozenset({55}), life_id=55, oom_kills=kills
        )
        view = CgroupView(Hierarchy.DEFAULT, {mine: cgroup})
        return replace(tick, sample=replace(tick.sample, cgroups=Part(view, 0)))

    host.tick(look(4))
    for number, expected in ((4, "bpf"), (5, f"bpf,{OomWitness.COUNTER}")):
        host.marks = [a_mark(80 + number, cgroup_id=55)]
        assert host.tick(look(number)) == [(80 + number, expected)]


def test_ends_are_remembered_with_the_containers_name() -> None:
    host = Host()
    host.exits = [
        ProcessExit(
            ProcessKey(8, 50), ProcessKey(4, 1), "worker", "shim", 55, 90 * 10**9, 9, 7, 7, MB,
            oom=False, short_lived=False,
        )
    ]  # fmt: skip

    (one,) = host.autopsies.of(a_look(), Carried()).ended

    assert (one.pid, one.container_name, one.status) == (8, "web", 137)
    assert one.wall_ns == 990 * 10**9
    assert DB.id != one.container_id
