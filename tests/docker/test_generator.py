"""`generar_contenedores.sh` on a real engine: how many, when not, never two, nothing left behind.

Where a test has to meet the script in the middle of a docker command, a few lines in front of the
real `docker` hold that command up or spoil it.
"""

from __future__ import annotations

import os
import re
import shutil
import signal

import pytest

from tests.containers import wait_until
from tests.docker.generator import KINDS, OURS, Generator, agent, generator, hold, is_locked
from tests.docker.private_engine import PrivateEngine

__all__ = ["agent", "generator"]

HOLD_RUN = """
if [[ $1 == run ]]; then
    touch "$place/reached"
    while [[ ! -e $place/go ]]; do sleep 0.01; done
fi"""


def test_it_fills_up_to_ten_of_the_three_kinds_with_our_label(
    generator: Generator, engine: PrivateEngine, agent: int
) -> None:
    generator.run()
    names = engine.names()
    assert len(names) == 10
    for name in names:
        assert re.fullmatch(r"so1_contenedor_\d+", name)
        about = engine.inspect(name)
        assert about["Config"]["Labels"] == {"so1.installation": OURS}
        assert (about["Config"]["Image"], tuple(about["Config"]["Cmd"])) in KINDS
    assert generator.log() == [
        "Contenedores actuales: 0",
        "Creando 10 contenedores nuevos...",
        "✅ Creación completa. Total actual: 10 contenedores.",
    ]
    assert list((generator.place / "tmp").iterdir()) == []


def test_at_ten_it_starts_none_and_says_so(
    generator: Generator, engine: PrivateEngine, agent: int
) -> None:
    for number in range(10):
        engine.run("--name", f"so1_contenedor_{number}")
    since = engine.now()
    generator.run()
    assert engine.events(since, "create", "start") == []
    assert generator.log() == [
        "Contenedores actuales: 10",
        "LÍMITE ALCANZADO (10 contenedores). NO se crean nuevos.",
    ]


def test_only_running_ones_of_that_name_count(
    generator: Generator, engine: PrivateEngine, agent: int
) -> None:
    for number in range(7):
        engine.run("--name", f"so1_contenedor_{number}")
    engine.run("--name", "so1_contenedor_exited", command=("true",))
    engine.run("--name", "other_so1_contenedor_7")
    engine.docker("pause", "so1_contenedor_0")
    wait_until(lambda: "so1_contenedor_exited" not in engine.names(), "it exited")
    generator.run()
    assert len([name for name in engine.names() if name.startswith("so1_contenedor_")]) == 10
    assert generator.log()[:2] == ["Contenedores actuales: 7", "Creando 3 contenedores nuevos..."]


def test_the_number_is_a_setting(generator: Generator, engine: PrivateEngine, agent: int) -> None:
    generator.settings["SO1_MAX_CONTAINERS"] = "2"
    generator.run()
    assert len(engine.names()) == 2


def test_without_an_agent_it_does_nothing_and_leaves_no_trace(
    generator: Generator, engine: PrivateEngine
) -> None:
    assert "no agent runs" in generator.run()
    assert not generator.run_dir.exists()
    os.close(generator.hold_agent_lock())  # one that ran and ended
    assert "no agent runs" in generator.run()
    assert engine.names("-a") == set()
    assert generator.log() == []


def test_people_can_force_it(generator: Generator, engine: PrivateEngine) -> None:
    generator.settings["SO1_MAX_CONTAINERS"] = "1"
    generator.run("--force")
    assert len(engine.names()) == 1


def test_two_at_once_make_no_more_than_one_would(
    generator: Generator, engine: PrivateEngine, agent: int
) -> None:
    several = [generator.start() for _ in range(4)]
    said = [process.communicate(timeout=300)[1] for process in several]
    assert [process.returncode for process in several] == [0] * 4
    assert len(engine.names()) == 10
    assert sum("another one is at work" in words for words in said) >= 1
    assert generator.log().count("Creando 10 contenedores nuevos...") == 1


@pytest.mark.parametrize("options", [(), ("--force",)])
def test_a_stopping_agent_keeps_it_out_even_by_force(
    generator: Generator, engine: PrivateEngine, agent: int, options: tuple[str, ...]
) -> None:
    stop = hold(generator.run_dir / "generator.lock")
    assert "another one is at work" in generator.run(*options)
    os.close(stop)
    assert engine.names("-a") == set()


def test_the_agents_lock_is_asked_again_under_the_generators_own(
    generator: Generator, engine: PrivateEngine
) -> None:
    """The agent ends between the first question and the lock, which `flock` here stands for."""
    agent = generator.hold_agent_lock()
    shim = generator.place / "shim" / "flock"
    shim.write_text(
        "#!/bin/bash\n"
        f'{shutil.which("flock")} "$@"; status=$?\n'
        f"[[ $* == *--shared* ]] || {{ touch {generator.place}/locked; "
        f"while [[ ! -e {generator.place}/ended ]]; do sleep 0.01; done; }}\n"
        "exit $status\n"
    )
    shim.chmod(0o755)
    process = generator.start()
    wait_until((generator.place / "locked").exists, "it has its lock")
    os.close(agent)
    (generator.place / "ended").touch()
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert engine.names("-a") == set()
    assert generator.log() == []


def test_it_stops_when_the_agent_is_gone_in_the_middle(
    generator: Generator, engine: PrivateEngine
) -> None:
    agent = generator.hold_agent_lock()
    generator.shim(HOLD_RUN)
    process = generator.start()
    wait_until((generator.place / "reached").exists, "it starts a container")
    os.close(agent)
    (generator.place / "go").touch()
    process.communicate(timeout=60)
    assert len(engine.names("-a")) == 1
    assert generator.log()[-1] == "⚠️ Creación interrumpida. Total actual: 1 contenedores."


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_lets_it_finish_the_one_it_makes_and_no_other(
    generator: Generator, engine: PrivateEngine, agent: int, number: signal.Signals
) -> None:
    generator.shim(HOLD_RUN)
    process = generator.start()
    wait_until((generator.place / "reached").exists, "it starts a container")
    process.send_signal(number)
    (generator.place / "go").touch()
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert len(engine.names("-a")) == 1
    assert list((generator.place / "tmp").iterdir()) == []
    assert not is_locked(generator.run_dir / "generator.lock")


def test_killed_in_the_middle_its_lock_lasts_until_its_last_container_is_made(
    generator: Generator, engine: PrivateEngine, agent: int
) -> None:
    generator.shim(HOLD_RUN)
    process = generator.start()
    wait_until((generator.place / "reached").exists, "it starts a container")
    process.kill()
    process.wait()
    # What a stop waits for: with the lock free, no container can be born any more.
    assert is_locked(generator.run_dir / "generator.lock")
    (generator.place / "go").touch()
    wait_until(lambda: not is_locked(generator.run_dir / "generator.lock"), "the lock is free")
    assert len(engine.names("-a")) == 1
    (name,) = engine.names()
    assert engine.inspect(name)["Config"]["Labels"] == {"so1.installation": OURS}
    process.communicate()
    generator.run()
    assert len(engine.names()) == 10


def test_no_docker_command_inherits_the_agents_lock_and_no_pull_any_lock(
    generator: Generator, engine: PrivateEngine, agent: int
) -> None:
    generator.settings.update(SO1_IMAGE_LOW="so1-absent-alpine:none", SO1_MAX_CONTAINERS="1")
    generator.shim('for fd in /proc/$$/fd/*; do echo "$1 $(readlink "$fd")"; done >>"$place/fds"')
    generator.run()
    held = [line for line in (generator.place / "fds").read_text().splitlines() if ".lock" in line]
    assert not [line for line in held if "agent.lock" in line]
    assert not [line for line in held if line.startswith("pull")]
    assert [line for line in held if line.startswith("run")]
