"""The doctor's rows of engines beside Docker's, and what it says of cgroup v1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.config import Config, decode_config
from agent.doctor import State, can_run, host, judge
from agent.doctor.facts import EngineFacts
from agent.doctor.probe_engines import engine_facts
from tests.unit.doctor.doctor_host import GOOD, facts
from tests.unit.sources.engine.fake_engine import FakeEngine

PODMAN = EngineFacts("pods", "podman", False, "4.3.1", "1.41", "cgroupfs", "", "")
AWAY = EngineFacts("pods", "podman", False, "", "", "", "podman does not answer.", "Start it.")


def row(root: bool = True, *engines: EngineFacts) -> Any:
    return host.engines(facts(root=root, engines=engines))[-1]


def test_each_has_a_row_after_dockers_with_its_name_and_reach() -> None:
    names = [one.name for one in judge(facts(engines=(PODMAN,)), Config())]
    assert names[names.index("Docker") + 1] == "engine pods"
    found = row(True, PODMAN)
    assert (found.state, found.remedy) == (State.OK, "")
    assert found.finding == "podman 4.3.1, API 1.41, cgroup driver cgroupfs, observed only"


def test_a_runtime_by_cri_is_named_by_its_own_name() -> None:
    found = row(True, EngineFacts("k8s", "cri", False, "containerd 1.6.20", "v1", "", "", ""))
    assert (found.state, found.finding) == (
        State.OK,
        "containerd 1.6.20, CRI v1, observed only",
    )


@pytest.mark.allow_subprocess
def test_a_helper_that_cannot_be_started_says_what_makes_its_environment(tmp_path: Path) -> None:
    text = (
        f'[[engine]]\nname = "k8s"\nkind = "cri"\nsocket = "unix://{tmp_path}/c.sock"\n'
        f'environment = "{tmp_path}/nowhere"\n'
    )
    (about,) = engine_facts(decode_config(text, "x"))
    assert (about.name, about.kind, about.governed, about.version) == ("k8s", "cri", False, "")
    assert f"{tmp_path}/nowhere/bin/python cannot be run" in about.problem
    assert about.hint.endswith("cri_environment.sh")


def test_one_that_is_away_costs_itself_alone() -> None:
    checks = judge(facts(engines=(AWAY,)), Config())
    (found,) = [one for one in checks if one.name == "engine pods"]
    assert (found.state, found.finding, found.remedy) == (
        State.DEGRADED,
        "podman does not answer.",
        "Start it.",
    )
    assert can_run(checks)


def test_a_socket_that_is_forbidden_to_a_user_is_unknown() -> None:
    forbidden = EngineFacts("pods", "podman", False, "", "", "", "x: Permission denied.", "sudo")
    assert row(False, forbidden).state is State.UNKNOWN


def test_a_host_of_podman_alone_misses_no_docker() -> None:
    config = decode_config('docker_host = ""\n[[engine]]\nname = "p"\nsocket = "unix:///p"\n', "x")
    without = facts(docker__version="", docker__problem="no", docker__images=None)
    checks = {one.name: one for one in judge(without, config)}
    for name in ("Docker", "images", "compose"):
        found = checks[name]
        assert (found.state, found.finding) == (State.OK, "not wanted (docker_host is empty)")


@pytest.mark.parametrize("mode", ["v1", "hybrid"])
def test_the_end_of_cgroup_v1_is_said_where_it_is_used(mode: str) -> None:
    found = host.cgroups(facts(cgroups__mode=mode))
    assert found.state is State.OK
    assert "systemd has dropped it in 258" in found.finding
    assert "May 2029" in found.finding
    assert "2029" not in host.cgroups(GOOD).finding


def test_the_probe_asks_each_and_one_that_is_not_there_is_its_own_sentence(tmp_path: Path) -> None:
    fake = FakeEngine(tmp_path)
    fake.answers["/info"] = {"CgroupDriver": "systemd"}
    try:
        config = decode_config(
            f'[[engine]]\nname = "a"\nsocket = "{fake.host}"\n'
            f'[[engine]]\nname = "b"\nkind = "podman"\nsocket = "unix://{tmp_path}/none.sock"\n',
            "x",
        )
        there, absent = engine_facts(config)
    finally:
        fake.stop()
    assert there == EngineFacts("a", "docker", True, "20.10.24", "1.41", "systemd", "", "")
    assert (absent.name, absent.kind, absent.governed, absent.version) == ("b", "podman", False, "")
    assert absent.problem.startswith("podman at unix://")
    assert "podman.socket" in absent.hint
