"""The environment itself has a test: a guest has what every other test in this layer counts on."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import containers

if TYPE_CHECKING:
    from tests.vm.conftest import Images


@pytest.mark.parametrize(
    "program",
    [
        "docker",
        "cron",
        "sudo",
        "bpftool",
        "jq",
        "sqlite3",
        "gcc",
        "make",
        "strace",
        "dkms",
        "podman",
    ],
)
def test_a_guest_has_the_programs_that_tests_call(program: str) -> None:
    assert shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin")


@pytest.mark.parametrize("module", ["bcc", "docker", "msgspec", "peewee", "psutil", "typer"])
def test_the_virtual_environment_has_what_the_agent_imports(module: str) -> None:
    # In a process of its own: other tests look whether their own has BCC in it.
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)


def test_a_container_of_each_image_runs_and_is_found_in_its_cgroup(
    images: Images, started: containers.Containers
) -> None:
    alpine = started.run(images.alpine, ["sleep", "infinity"])
    stress = started.run(images.stress, ["stress", "--vm", "1", "--vm-bytes", "8M", "--vm-keep"])
    containers.wait_until(lambda: len(containers.pids_of(stress)) == 2, "stress and its worker")
    (sleeper,) = containers.pids_of(alpine)
    assert sleeper == containers.first_pid(alpine)
    assert Path(f"/proc/{sleeper}/comm").read_text(encoding="utf-8") == "sleep\n"


def test_a_helpers_containers_are_gone_when_it_is_closed(images: Images) -> None:
    mine, other = containers.Containers(), containers.Containers()
    try:
        mine.run(images.alpine, ["sleep", "infinity"])
        kept = other.run(images.alpine, ["sleep", "infinity"])
        mine.close()
        assert mine.ids() == []
        assert other.ids() == [kept]
    finally:
        other.close()
