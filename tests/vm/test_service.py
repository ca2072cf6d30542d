"""The agent as a systemd service, in its sandbox, on a real kernel.

What the sandbox must not take away is looked at from outside it: modules by /sys/module, rows by
SQLite, probes by what the rows say, and the unit by systemctl.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import containers
from tests.agent_process import rows, run_agent
from tests.containers import docker, pids_of, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.vm.conftest import Images

# Minutes of guest time: beyond what CI has for one guest.
pytestmark = pytest.mark.full

UNIT = "so1-agent.service"
DATABASE = Path("/var/lib/so1/metrics.db")
CRON_FILE = Path("/etc/cron.d/so1-agent")
SETTINGS = Path("/etc/so1/agent.toml")
DROP_IN = Path(f"/etc/systemd/system/{UNIT}.d/test.conf")
SERVICE_SCRIPT = "/opt/so1/src/bash/service.sh"
WATCHDOG_S = 20


def shell(*words: str, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(words),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def journal() -> str:
    return shell("journalctl", "--no-pager", "-u", "so1-agent", "-n", "200").stdout


def unit(name: str) -> str:
    """One property of the unit, as systemd has it."""
    return shell("systemctl", "show", "--value", "-p", name, UNIT).stdout.strip()


def status() -> dict[str, object]:
    done = run_agent("status", "--json")
    value: dict[str, object] = json.loads(done.stdout)["status"] or {}
    return value


def ticks() -> int:
    return int(rows(DATABASE, "SELECT count(*) AS n FROM metrics")[0]["n"])


@pytest.fixture(scope="module")
def service(images: Images) -> Iterator[None]:
    """Installed as people install it, with short times; taken away at the end."""
    SETTINGS.parent.mkdir(exist_ok=True)
    SETTINGS.write_text(
        f'interval_s = 2\n[images]\nlow = "{images.alpine}"\nhigh = "{images.stress}"\n'
    )
    DROP_IN.parent.mkdir(parents=True, exist_ok=True)
    DROP_IN.write_text(f"[Service]\nWatchdogSec={WATCHDOG_S}\nTimeoutAbortSec=5\nRestartSec=1\n")
    done = shell("bash", SERVICE_SCRIPT, "install")
    try:
        assert done.returncode == 0, done.stderr + journal()
        yield
    finally:
        removed = shell("bash", SERVICE_SCRIPT, "remove")
        DROP_IN.unlink()
        SETTINGS.unlink()
        print(journal())
    assert removed.returncode == 0, removed.stderr


@pytest.fixture
def container(images: Images, service: None) -> Iterator[str]:
    mine = containers.Containers()
    yield mine.run(
        images.alpine, ["sleep", "infinity"], name="bystander", options=["--network", "none"]
    )
    mine.close()


def test_the_unit_counts_as_started_when_the_first_tick_is_stored(service: None) -> None:
    assert unit("ActiveState") == "active"
    assert ticks() >= 1
    assert re.search(r"tick \d+ · modules: \d+ processes", unit("StatusText"))


def test_in_the_sandbox_the_modules_are_read_and_both_witnesses_agree(container: str) -> None:
    assert {"sysinfo", "continfo"} <= {path.name for path in Path("/sys/module").iterdir()}
    wait_until(
        lambda: status().get("bpf") == "ready",
        f"BPF is ready: {status()}",
        timeout_s=300,
        pause_s=2,
    )
    (pid,) = pids_of(container)

    def verdict() -> str:
        newest = rows(
            DATABASE,
            "SELECT verified FROM container_stats WHERE pid = ? AND container_name = 'bystander'"
            " ORDER BY timestamp DESC LIMIT 1",
            pid,
        )
        return newest[0]["verified"] if newest else ""

    wait_until(lambda: verdict() == "agree", "a row on which both agree", timeout_s=60, pause_s=1)


def test_in_the_sandbox_cron_is_told_and_containers_are_generated(service: None) -> None:
    assert CRON_FILE.is_file()
    wait_until(
        lambda: "so1_contenedor_" in docker("ps", "-a", "--format", "{{.Names}}"),
        f"a generated container: {status()}",
        timeout_s=180,
        pause_s=2,
    )


HOLDER = """
import os, sys
held = []
try:
    while True:
        held.append(os.open("/proc/sysinfo_so1_202300539", os.O_RDONLY))
        os.read(held[-1], 1)
except OSError as error:
    print(len(held), error.errno, flush=True)
sys.stdin.read()
"""


def test_a_user_who_holds_all_snapshots_he_can_does_not_lock_the_service_out(
    service: None,
) -> None:
    with subprocess.Popen(
        ["/usr/bin/python3", "-c", HOLDER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        user=65534,
        group=65534,
        extra_groups=[],
    ) as holder:
        assert holder.stdout is not None
        held, number = map(int, holder.stdout.readline().split())
        assert (held > 10, number) == (True, errno.EBUSY)
        seen = ticks()
        wait_until(lambda: ticks() >= seen + 3, "three more ticks", timeout_s=120, pause_s=1)
        newest = rows(DATABASE, "SELECT source FROM metrics ORDER BY timestamp DESC LIMIT 2")
        holder.communicate("")
    assert [one["source"] for one in newest] == ["modules", "modules"]


def test_nothing_but_grafana_fails_for_want_of_a_right(service: None) -> None:
    problems = status()["problems"]
    assert isinstance(problems, list)
    assert [one for one in problems if not one.startswith("grafana")] == []
    denied = [line for line in journal().splitlines() if re.search(r"ermi(ssion|tted)|EPERM", line)]
    assert denied == []


def test_a_line_of_the_journal_has_the_priority_of_what_it_says(service: None) -> None:
    def newest(*words: str) -> list[dict[str, object]]:
        text = shell("journalctl", "-u", "so1-agent", "-o", "json", *words).stdout
        return [json.loads(line) for line in text.splitlines()]

    assert any("tick 1 ·" in str(one["MESSAGE"]) for one in newest("-p", "info"))
    assert not any(" tick " in str(one["MESSAGE"]) for one in newest("-p", "warning"))
    assert not any(str(one["MESSAGE"]).startswith("<") for one in newest())


def test_an_agent_that_hangs_is_restarted_and_ticks_again(service: None) -> None:
    before, pid = ticks(), int(unit("MainPID"))
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: unit("NRestarts") == "1", "a restart", timeout_s=WATCHDOG_S * 6, pause_s=1)
    wait_until(lambda: unit("ActiveState") == "active", "up again", timeout_s=180, pause_s=1)
    assert int(unit("MainPID")) != pid
    wait_until(lambda: ticks() > before, "a tick of the new one", timeout_s=60, pause_s=1)
    assert "watchdog" in journal().casefold()


@pytest.mark.full
def test_in_the_sandbox_the_modules_can_be_built(service: None) -> None:
    build = Path("/var/lib/so1/build")
    assert shell("systemctl", "stop", UNIT).returncode == 0
    kept = build.rename(build.with_name("build.kept"))
    try:
        assert shell("systemctl", "start", UNIT, timeout_s=1200).returncode == 0, journal()
        assert len(list(build.rglob("*.ko"))) == 2
        newest = rows(DATABASE, "SELECT source FROM metrics ORDER BY timestamp DESC LIMIT 1")
        assert newest == [{"source": "modules"}]
    finally:
        shutil.rmtree(build, ignore_errors=True)
        kept.rename(build)


def test_the_score_of_the_sandbox_is_reported(service: None) -> None:
    done = shell("systemd-analyze", "--no-pager", "security", UNIT)
    if results := os.environ.get("SO1_LAB_RESULTS"):
        Path(results, "systemd-security.txt").write_text(done.stdout)
    score = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert score, done.stdout + done.stderr
    print(f"systemd-analyze security: {score[1]}")
    assert float(score[1]) < 5


def test_a_stop_takes_down_what_the_agent_brought_and_the_unit_ends_well(service: None) -> None:
    done = shell("systemctl", "stop", UNIT)
    assert done.returncode == 0, done.stderr
    assert unit("Result") == "success", journal()
    assert unit("ActiveState") == "inactive"
    assert not CRON_FILE.exists()
    assert not any(Path(f"/sys/module/{name}").exists() for name in ("sysinfo", "continfo"))
    assert "so1_contenedor_" not in docker("ps", "-a", "--format", "{{.Names}}")
    assert run_agent("status").returncode == 3
