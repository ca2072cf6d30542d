"""What the engine's events tell of containers' lives, kept while it tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.sources.engine.lives import EngineLives

A, B = "a" * 64, "b" * 64


@pytest.fixture
def lives(tmp_path: Path) -> EngineLives:
    return EngineLives(tmp_path)


def test_ooms_are_counted_by_container_and_nothing_else_is(lives: EngineLives) -> None:
    for kind, container in (("oom", A), ("start", A), ("oom", A), ("oom", B), ("die", B)):
        lives.note(kind, container)
    assert lives.ooms() == {A: 2, B: 1}


def test_a_container_that_is_gone_is_forgotten(lives: EngineLives) -> None:
    lives.note("oom", A)
    lives.note("destroy", A)
    lives.note("destroy", B)
    assert lives.ooms() == {}


def test_no_crowd_of_containers_fills_the_memory(lives: EngineLives) -> None:
    for number in range(10_000):
        lives.note("oom", str(number))
    assert len(lives.ooms()) <= 4096
    assert lives.ooms()["9999"] == 1


@pytest.mark.parametrize("form", ["docker/{}", "system.slice/docker-{}.scope"])
def test_the_cgroup_of_each_life_is_the_containers(
    tmp_path: Path, lives: EngineLives, form: str
) -> None:
    """Also of a container that no tick has seen, beside one that it has."""
    lives.learn({A: "/" + form.format(A)})
    expected = {}
    for number, container in enumerate((A, A, B)):
        directory = tmp_path / form.format(container)
        directory.mkdir(parents=True)
        lives.note("start", container)
        expected[directory.stat().st_ino] = container
        directory.rename(tmp_path / f"ended-{number}")
    assert lives.cgroup_ids() == expected
    lives.note("start", B)  # over before it was looked at
    assert lives.cgroup_ids() == expected


def test_a_path_without_the_id_tells_of_no_other_container(
    tmp_path: Path, lives: EngineLives
) -> None:
    (tmp_path / "somewhere").mkdir()
    lives.learn({A: "/somewhere", B: ""})
    lives.note("start", A)
    assert lives.cgroup_ids() == {}
