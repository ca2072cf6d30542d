"""Our file in /etc/cron.d, read by a real cron: real minutes pass here.

That a minute has passed is told by a file of the test's own beside ours, which cron runs as well.
That cron ignores a wrong file is shown with wrong ones, so that ours being run means something.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.actions import cron
from agent.config import Config, decode_config
from tests.containers import docker, inspect, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.vm.conftest import Images

# Minutes of guest time: beyond what CI has for one guest.
pytestmark = pytest.mark.full

DIRECTORY = Path("/etc/cron.d")
SCRIPT = Path(__file__).resolve().parents[2] / "bash" / "generar_contenedores.sh"
OURS = "0123456789abcdef" * 2
CRONTAB = b"# mine\n17 4 * * 1 /usr/bin/true 100\\% mine\n"
MINUTES_S = 200


@pytest.fixture
def place() -> Iterator[Path]:
    path = Path("/var/lib/so1-test-cron")
    path.mkdir(mode=0o750)
    (path / "installation").write_text(OURS + "\n")
    (path / "installation").chmod(0o600)
    yield path
    for file in DIRECTORY.glob("so1*"):
        file.unlink()
    if left := generated():
        docker("rm", "-f", *left)
    subprocess.run(["rm", "-rf", str(path)], check=True)


@pytest.fixture
def config(place: Path, images: Images) -> Config:
    return decode_config(
        f'[images]\nlow = "{images.alpine}"\nhigh = "{images.stress}"\n'
        "[policy]\nmax_containers = 2\nkeep_low = 1\nkeep_high = 1\n"
        f'[paths]\nrun = "{place}/run"\nlog = "{place}/log"\ndatabase = "{place}/metrics.db"\n',
        "test",
    )


@pytest.fixture
def agent(place: Path) -> Iterator[None]:
    """An agent that runs, as far as its lock tells."""
    (place / "run").mkdir(mode=0o755)
    descriptor = os.open(place / "run" / "agent.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield
    os.close(descriptor)


def generated() -> list[str]:
    return docker("ps", "-aq", "--filter", "name=^/?so1_contenedor_").split()


def cron_line(name: str, command: str, mode: int = 0o644) -> Path:
    """A file of the test's own in cron's directory."""
    path = DIRECTORY / name
    path.write_text(f"* * * * * root {command}\n")
    path.chmod(mode)
    return path


def minutes(place: Path) -> int:
    """How often cron has run the test's own line."""
    file = place / "minutes"
    return len(file.read_text().splitlines()) if file.exists() else 0


def wait_for_a_minute(place: Path) -> None:
    """Until cron has begun a minute and then another: one whole round of all its files."""
    before = minutes(place)
    wait_until(lambda: minutes(place) >= before + 2, "cron ran twice", timeout_s=MINUTES_S)


def test_cron_fills_the_host_each_minute_while_our_file_is_there(
    config: Config, place: Path, agent: None
) -> None:
    subprocess.run(["crontab", "-"], input=CRONTAB, check=True)
    cron_line("so1-test-minutes", f"echo x >>{place}/minutes")
    wrong_name = cron_line("so1-agent.test", f"touch {place}/wrong-name")
    wrong_mode = cron_line("so1-test-mode", f"touch {place}/wrong-mode", 0o664)
    path = cron.install(config, SCRIPT)
    assert path == DIRECTORY / "so1-agent"
    log = place / "log" / "execution.log"
    wait_until(
        lambda: log.exists() and "Total actual: 2 contenedores." in log.read_text(),
        "cron generated two containers",
        timeout_s=MINUTES_S,
    )
    found = generated()
    assert len(found) == 2
    for one in found:
        assert inspect(one)["Config"]["Labels"] == {"so1.installation": OURS}
    # Again at the next minute, with nothing to do.
    wait_until(
        lambda: "Contenedores actuales: 2" in log.read_text(), "a second time", timeout_s=MINUTES_S
    )
    assert sorted(generated()) == sorted(found)
    wait_for_a_minute(place)
    assert not (place / "wrong-name").exists()
    assert not (place / "wrong-mode").exists()
    wrong_name.unlink()
    wrong_mode.unlink()

    # Without our file cron never comes again, and nobody's crontab was touched.
    assert cron.remove(config.cron)
    wait_for_a_minute(place)
    lines = log.read_text().splitlines()
    wait_for_a_minute(place)
    assert log.read_text().splitlines() == lines
    listed = subprocess.run(["crontab", "-l"], capture_output=True, check=True)
    assert listed.stdout == CRONTAB


def test_cron_does_nothing_once_the_agent_was_killed(config: Config, place: Path) -> None:
    cron_line("so1-test-minutes", f"echo x >>{place}/minutes")
    cron.install(config, SCRIPT)
    wait_for_a_minute(place)
    assert generated() == []
    assert not (place / "log").exists()


def test_a_cron_that_does_not_run_is_told_with_what_starts_it() -> None:
    assert cron.daemon_problem() is None
    subprocess.run(["systemctl", "stop", "cron"], check=True, timeout=60)
    try:
        problem = cron.daemon_problem()
    finally:
        subprocess.run(["systemctl", "start", "cron"], check=True, timeout=60)
    assert problem is not None
    assert "systemctl enable --now cron" in problem.hint
    wait_until(lambda: cron.daemon_problem() is None, "cron runs again")
