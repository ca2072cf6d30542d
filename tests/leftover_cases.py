"""What a killed agent, a generator at work and a reboot leave, and how the agent takes it.

Collected, beside `kill_cases`, through a subclass that gives an `engine`. A reboot is made of what
it does: processes and modules gone, containers ended, `/run` empty or, where it is no tmpfs, as it
was, with pids that are somebody else's now.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import containers
from tests.agent_process import agent_command, run_agent
from tests.containers import wait_until
from tests.kill_cases import CLEANUP, LIMIT, START, Place, is_free, modules

_NOT_RUNNING = 3


def generator_script() -> Path:
    """Of the agent that the tests run: the installed one's in a guest."""
    installed = Path("/opt/so1/src/bash/generar_contenedores.sh")
    if containers.in_lab() and installed.exists():
        return installed
    return Path(__file__).resolve().parents[1] / "bash/generar_contenedores.sh"


@contextmanager
def generator_at_work(place: Place, call_s: int = 60) -> Iterator[Path]:
    """One as cron starts it, held up in the middle of a `docker run` until the file is made.

    It gives up by itself after `call_s`, its limit to a single call of Docker.
    """
    shim = place.directory / "shim"
    shim.mkdir()
    go, reached = place.directory / "go", place.directory / "reached"
    docker = shim / "docker"
    docker.write_text(
        f'#!/bin/bash\nif [[ $1 == run ]]; then touch "{reached}"\n'
        f'while [[ ! -e "{go}" ]]; do sleep 0.02; done; fi\nexec {shutil.which("docker")} "$@"\n',
        encoding="utf-8",
    )
    docker.chmod(0o755)
    settings = {
        "PATH": f"{shim}:{os.environ['PATH']}",
        "DOCKER_HOST": place.engine.host,
        "SO1_IMAGE_LOW": containers.ALPINE,
        "SO1_IMAGE_HIGH": containers.STRESS,
        "SO1_MAX_CONTAINERS": str(LIMIT),
        "SO1_DOCKER_TIMEOUT": str(call_s),
        "SO1_RUN_DIR": str(place.run),
        "SO1_LOG_DIR": str(place.directory / "log"),
        "SO1_INSTALLATION_FILE": str(place.database.parent / "installation"),
        "TMPDIR": str(place.directory / "tmp"),
    }
    (place.directory / "tmp").mkdir()
    generator = subprocess.Popen(
        ["bash", str(generator_script())], env=settings, start_new_session=True
    )
    try:
        wait_until(reached.exists, "the generator makes a container")
        yield go
    finally:
        go.touch()
        generator.wait(60)
    assert os.listdir(place.directory / "tmp") == []


def no_first_generation(place: Place) -> None:
    """The agent's own generation would be the one at work: this waits until it has ended."""
    wait_until(place.mine, "load is generated")
    lock = place.run / "generator.lock"
    wait_until(lambda: lock.exists() and is_free(lock), "the first generation has ended")
    place.remove_mine()


class LeftoverCases:
    """One agent a test."""

    source = "auto"

    def test_a_generator_at_work_during_the_stop_leaves_nothing(self, place: Place) -> None:
        with place.agent() as agent:
            agent.wait_for_tick(1)
            no_first_generation(place)
            with generator_at_work(place) as go:
                agent.signal(signal.SIGTERM)
                wait_until(lambda: not place.cron_file.exists(), "the stop has begun")
                assert agent.process.poll() is None
                go.touch()
                assert agent.wait_end() == 0, agent.output
        place.assert_nothing_is_left(way=START)

    def test_a_generator_that_outlives_a_killed_agent_is_waited_for_by_clean_up(
        self, place: Place
    ) -> None:
        with place.agent() as agent:
            agent.wait_for_tick(1)
            no_first_generation(place)
            with generator_at_work(place) as go:
                agent.signal(signal.SIGKILL)
                agent.wait_end()
                cleanup = subprocess.Popen(
                    [*agent_command(), "cleanup", "--config", str(place.config)],
                    cwd=Path(__file__).resolve().parents[1],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
                wait_until(lambda: not place.cron_file.exists(), "clean-up has begun")
                assert cleanup.poll() is None
                go.touch()
                said, _ = cleanup.communicate(timeout=120)
                assert (cleanup.returncode, said.splitlines()[-1]) == (0, "Clean."), said
        place.assert_nothing_is_left(way=CLEANUP)

    @pytest.mark.full
    def test_a_generator_that_does_not_end_fails_the_clean_up_and_is_named(
        self, place: Place
    ) -> None:
        """Not even then is anything else left: the rest is cleaned up."""
        with place.agent() as agent:
            agent.wait_for_tick(1)
            no_first_generation(place)
            with generator_at_work(place, call_s=600):
                agent.signal(signal.SIGKILL)
                agent.wait_end()
                done = run_agent("cleanup", "--config", str(place.config), timeout_s=240)
                assert done.returncode == 1, done.stdout
                assert "A generator of load is still running" in done.stderr
                assert not place.cron_file.exists()
                assert modules() == set()
        place.bring_to_an_end(CLEANUP)

    @pytest.mark.parametrize("way", [START, CLEANUP])
    @pytest.mark.parametrize("run_is_empty", [True, False], ids=["empty /run", "kept /run"])
    def test_after_a_kill_and_a_reboot_what_is_left_is_recognised(
        self, place: Place, way: str, run_is_empty: bool
    ) -> None:
        with place.agent() as agent:
            agent.wait_for_tick(1)
            wait_until(place.mine, "load is generated")
            agent.signal(signal.SIGKILL)
            agent.wait_end()
        wait_until(lambda: not place.processes(), "the generator has ended")
        place.engine.docker("kill", *place.mine())
        for name in sorted(modules()):
            subprocess.run(["rmmod", name], check=True)
        assert place.mine() == []
        assert place.mine("-a")
        assert place.cron_file.exists()
        innocent = subprocess.Popen(["sleep", "999"])
        try:
            if run_is_empty:
                shutil.rmtree(place.run)
            else:
                # The pids that they name are somebody else's by now.
                record = {"pid": innocent.pid, "started_wall_ns": time.time_ns()}
                for name in ("agent.lock", "generator.lock"):
                    (place.run / name).write_text(json.dumps(record) + "\n", encoding="ascii")
                (place.run / ".status.json.new").write_bytes(b"{")
            status = run_agent("status", "--config", str(place.config))
            assert (status.returncode, "not running" in status.stdout) == (_NOT_RUNNING, True)
            assert "No agent is running" in place.command("stop")
            place.bring_to_an_end(way)
            assert innocent.poll() is None
        finally:
            innocent.kill()
            innocent.wait()
