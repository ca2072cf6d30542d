"""Cgroups that nobody had the time to look up: their names, and whose they are by them.

The same cases run natively and in the guests. Containers are made up of plain cgroups, so that what
lives for a moment does so on request; `lives_cases` has an engine's.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from agent.analysis.cpu_accounting import owners
from agent.clock import SystemClock
from agent.model.bpf import BpfView
from agent.model.container import CgroupView, ContainerKey
from agent.sources.bpf import witness as bpf
from agent.sources.bpf.startup import Startup
from agent.sources.cgroup import reader
from tests.bpf_cases import settled
from tests.bpf_history_support import order, ready
from tests.bpf_support import cgroup_of, identifying_root
from tests.containers import wait_until

A, B = ContainerKey("docker", "a1" * 32), ContainerKey("docker", "b2" * 32)
FORMS = ("{}", "docker-{}.scope", "libpod-{}.scope", "cri-containerd-{}.scope")


@contextmanager
def directory(path: Path) -> Iterator[int]:
    """A cgroup, by its id, that is gone afterwards."""
    path.mkdir()
    try:
        yield path.stat().st_ino
    finally:
        wait_until(lambda: _is_removed(path), "the cgroup is empty")


def _is_removed(path: Path) -> bool:
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def run_in(cgroup: Path, script: str) -> None:
    """A shell that enters the cgroup and forks what it runs there; `$1` is the cgroup."""
    words = ["sh", "-ec", f'echo $$ > "$1/cgroup.procs"; {script}; exit 0', "sh", str(cgroup)]
    subprocess.run(words, check=True)


def little_room() -> AbstractContextManager[bpf.Witness]:
    """A witness that has room for some hundred names between two readings."""
    startup = Startup(order("-UNAME_PAGES", "-DNAME_PAGES=8"))
    return ready(bpf.Witness(startup, bpf.BpfState("starting"), SystemClock()))


def storm_of_names(witness: bpf.Witness, number: int) -> tuple[int, int]:
    """Cgroups made and removed in a moment: how many are known by name, how many are lost."""
    before, made = witness.witness(), set()
    for one in range(number):
        path = identifying_root() / f"{one:064x}"
        path.mkdir()
        made.add(path.stat().st_ino)
        path.rmdir()
    witness.witness()
    view = witness.witness()
    known, lost = len(made & view.names.keys()), view.lost - before.lost
    print(f"\n{number} cgroups: {known} known, {lost} lost")
    return known, lost


def owner_of(view: BpfView) -> dict[int, ContainerKey]:
    """Of A and B, which are listed and have no directory now."""
    return owners(view, CgroupView(reader.detect().hierarchy, {}), listed=[A, B])


@pytest.mark.usefixtures("witness")
class BpfNameCases:
    """Each case asks the probes of one module, one after the other."""

    def test_a_cgroup_that_is_gone_has_its_name_and_who_made_it(self, witness: bpf.Witness) -> None:
        made = {}
        for form in FORMS:
            name = form.format(A.id)
            with directory(identifying_root() / name) as identity:
                made[identity] = name
        view = witness.witness()
        mine = cgroup_of(os.getpid()).stat().st_ino
        assert {key: view.names[key] for key in made} == {
            key: (name, mine, os.getuid()) for key, name in made.items()
        }
        assert made.keys() <= view.gone
        assert {owner_of(view)[key] for key in made} == {A}

    def test_what_ran_in_a_life_of_a_moment_and_below_it_is_its_container_s(
        self, witness: bpf.Witness
    ) -> None:
        before = witness.witness()
        top = identifying_root() / f"docker-{A.id}.scope"
        with directory(top) as outer, directory(top / "inside") as inner:
            run_in(top, "/bin/true; /bin/true")
            run_in(top / "inside", "/bin/true")
        view = settled(witness)
        owner = owner_of(view)
        assert (owner[outer], owner[inner]) == (A, A)
        # The shell enters; what it runs is born there.
        counted = [(view.totals[one].forks, view.totals[one].exits) for one in (outer, inner)]
        assert counted == [(2, 3), (1, 2)]
        assert view.lost == before.lost

    def test_a_container_that_calls_its_own_cgroup_as_another_one_keeps_all_of_it(
        self, witness: bpf.Witness
    ) -> None:
        top = identifying_root() / f"docker-{A.id}.scope"
        other = f"docker-{B.id}.scope"
        script = f'mkdir "$1/{other}"; (echo 0 > "$1/{other}/cgroup.procs"; exec /bin/true)'
        with directory(top) as outer:
            run_in(top, script)
            inner = (top / other).stat().st_ino
            wait_until(lambda: _is_removed(top / other), "the cgroup is empty")
        view = settled(witness)
        assert view.names[inner] == (other, outer, os.getuid())
        assert view.totals[inner].moved_in == 1
        assert (owner_of(view)[outer], owner_of(view)[inner]) == (A, A)

    def test_one_that_is_started_inside_another_one_is_itself(self, witness: bpf.Witness) -> None:
        top = identifying_root() / f"docker-{A.id}.scope"
        with directory(top) as outer, directory(top / f"docker-{B.id}.scope") as inner:
            pass
        owner = owner_of(witness.witness())
        assert (owner[outer], owner[inner]) == (A, B)

    def test_a_cgroup_that_is_renamed_stays_whose_it_was_made_for(
        self, witness: bpf.Witness
    ) -> None:
        top = identifying_root() / f"docker-{A.id}.scope"
        other = top.with_name(f"docker-{B.id}.scope")
        with directory(top) as identity:
            try:
                top.rename(other)
            except OSError:  # cgroup v2 knows no such thing
                other = top
            assert other.stat().st_ino == identity
            other.rmdir()
        view = witness.witness()
        assert view.names[identity].name == top.name
        assert owner_of(view)[identity] == A

    def test_a_name_that_is_too_short_is_not_kept_and_one_too_long_is_counted(
        self, witness: bpf.Witness
    ) -> None:
        before, made = witness.witness(), {}
        for length in (63, 64, 255, 256, 2000):
            with directory(identifying_root() / ("f" * length)) as identity:
                made[length] = identity
        view = witness.witness()
        kept = {length for length, identity in made.items() if identity in view.names}
        assert kept == {64, 255}
        assert len(view.names[made[255]].name) == 255
        assert view.long_names - before.long_names == 2
        assert view.lost == before.lost

    def test_of_hundreds_in_a_moment_each_is_known_or_lost(self) -> None:
        """By probes with little room, so that whoever else on this host has some loses nothing.

        Whoever else makes a cgroup of a long name meanwhile can be lost too, and only adds to it.
        """
        with little_room() as witness:
            for _ in range(5):
                known, lost = storm_of_names(witness, 150)
                assert known > 0
                assert lost > 0
                assert known + lost >= 150
                if known + lost == 150:
                    break
            else:
                pytest.fail(f"{known} known and {lost} lost of 150 in the last of five storms")
            with directory(identifying_root() / A.id) as identity:
                pass
            assert witness.witness().names[identity].name == A.id
