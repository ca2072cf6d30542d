"""`agent doctor` on a real host: held against the host's own tools, then against staged lacks.

Where the command that fixes a lack can work without a network, the test runs it as it is told and
looks again.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.agent_process import AgentProcess, run_agent
from tests.containers import engine_answers, wait_until
from tests.other_user import NOBODY
from tests.vm.conftest import load_modules, unload_modules
from tests.vm.faults.support import a_clock_put_back, run, set_clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from tests.vm.conftest import Images

QUIET = ("--no-cron", "--no-grafana", "--no-bpf")
LOCKDOWN = Path("/sys/kernel/security/lockdown")


@dataclass(frozen=True, slots=True)
class Told:
    """What one run of `agent doctor --json` told."""

    status: int
    can_run: bool
    checks: dict[str, dict[str, Any]]

    def state(self, name: str) -> str:
        return str(self.checks[name]["state"])

    def finding(self, name: str) -> str:
        return str(self.checks[name]["finding"])

    def command(self, name: str) -> str:
        """The first command among the remedy, without `sudo` where the host has none."""
        mend = str(self.checks[name]["mend"])
        quoted = re.search(r"`(.+?)`", mend)
        command = quoted[1] if quoted else mend.partition(", ")[0]
        return command if shutil.which("sudo") else command.removeprefix("sudo ")


def doctor(*words: str) -> Told:
    done = run_agent("doctor", "--json", *words)
    assert done.stderr == ""
    value = json.loads(done.stdout)
    return Told(
        done.returncode, value["can_run"], {check["name"]: check for check in value["checks"]}
    )


def said(*words: str) -> str:
    """What the host's own tool prints."""
    return run(*words).strip()


def locked_down() -> bool:
    return LOCKDOWN.exists() and "[none]" not in LOCKDOWN.read_text()


# Half a dozen restarts of services at a guest's pace: beyond what CI has for one guest.
pytestmark = [pytest.mark.full, pytest.mark.usefixtures("docker_engine", "nothing_loaded")]

unlocked = pytest.mark.skipif(
    locked_down(), reason="needs a kernel that is not locked down: that one has a test of its own"
)


@unlocked
def test_a_host_that_lacks_nothing_is_told_as_its_own_tools_tell_it() -> None:
    told = doctor()
    lacking = {name: one for name, one in told.checks.items() if one["state"] == "missing"}
    assert (told.status, told.can_run, lacking) == (0, True, {})
    release = os.uname().release
    version = said(
        "docker", "version", "--format", "{{.Server.Version}}, API {{.Server.APIVersion}}"
    )
    driver = said("docker", "info", "--format", "{{.CgroupDriver}}")
    bcc = said("/usr/bin/python3", "-c", "import bcc; print(bcc.__version__)")
    # v2 alone is a cgroup2 at the root, v1 alone has no cgroup2 anywhere (cgroups(7)).
    kinds = said("findmnt", "-rn", "-o", "TARGET,FSTYPE").splitlines()
    unified = "/sys/fs/cgroup cgroup2" in kinds
    mode = "v2" if unified else "hybrid" if any(k.endswith(" cgroup2") for k in kinds) else "v1"
    for name, expected in {
        "kernel": f"{release} takes modules",
        "headers": f"those of {release} are there",
        "Docker": f"{version}, cgroup driver {driver}",
        "cgroups": f"{mode}, ",
        "BCC": bcc,
        "OOM kills": "seen by BPF, checked by the kernel's log",
        "module signing": "lockdown none",
        "cron": "a daemon runs",
    }.items():
        assert told.state(name) == "ok", told.checks[name]
        assert expected in told.finding(name)
    free_mb = int(said("df", "--output=avail", "-BM", "/var/lib").splitlines()[1].rstrip("M"))
    found = re.match(r"(\d+) MB free", told.finding("disk"))
    assert found
    assert abs(int(found[1]) - free_mb) <= 64
    # Its word is held against the thing itself: what it says can run does run.
    once = run_agent("start", "--once", "--dry-run", "--no-bpf")
    assert once.returncode == 0, once.stderr


@pytest.fixture(scope="module")
def nothing_loaded() -> Iterator[None]:
    """The modules of the tests before are not there, as on a host without an agent."""
    found = unload_modules()
    yield
    if found:
        assert load_modules().returncode == 0


@contextmanager
def without_docker() -> Iterator[None]:
    said("systemctl", "stop", "docker.socket", "docker.service")
    try:
        yield
    finally:
        said("systemctl", "start", "docker.service")
        wait_until(engine_answers, "docker answers")


@contextmanager
def without_cron() -> Iterator[None]:
    said("systemctl", "stop", "cron")
    try:
        yield
    finally:
        said("systemctl", "start", "cron")


@contextmanager
def one_module() -> Iterator[None]:
    done = load_modules()
    assert done.returncode == 0, done.stderr
    said("rmmod", "continfo")
    try:
        yield
    finally:
        unload_modules()


@contextmanager
def after_kill() -> Iterator[None]:
    """An agent that was killed: its modules are left."""
    with AgentProcess((*QUIET, "--interval", "600")) as agent:
        agent.wait_for_tick(1)
        agent.signal(signal.SIGKILL)
        agent.wait_end()
    try:
        yield
    finally:
        run_agent("cleanup")


MENDED: dict[str, tuple[str, str, str, Callable[[], AbstractContextManager[None]]]] = {
    "Docker is stopped": ("Docker", "missing", "", without_docker),
    "cron is stopped": ("cron", "degraded", "No cron daemon runs", without_cron),
    "one module alone": ("modules", "degraded", "only sysinfo is loaded", one_module),
    "an agent was killed": ("agent", "degraded", "left behind: module", after_kill),
}


@unlocked
@pytest.mark.parametrize("what", MENDED)
def test_the_command_that_it_names_mends_what_it_found(what: str, images: Images) -> None:
    name, state, finding, staged = MENDED[what]
    assert doctor().state(name) == "ok"
    with staged():
        told = doctor()
        assert told.state(name) == state, told.checks[name]
        assert finding in told.finding(name)
        assert (told.status, told.can_run) == ((1, False) if state == "missing" else (0, True))
        run("bash", "-c", told.command(name))
        wait_until(lambda: doctor().state(name) == "ok", f"fixed: {told.command(name)}")


@contextmanager
def mounted(target: Path, *words: str) -> Iterator[None]:
    said("mount", *words, str(target))
    try:
        yield
    finally:
        said("umount", str(target))


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that only root can write."""
    directory = Path("/var/lib/so1-test-doctor")
    directory.mkdir(mode=0o750)
    yield directory
    shutil.rmtree(directory)


@unlocked
def test_a_full_disk_and_one_that_is_read_only_are_missing(place: Path) -> None:
    database = str(place / "metrics.db")
    with mounted(place, "-t", "tmpfs", "-o", "size=8m,mode=750", "tmpfs"):
        full = doctor("--database", database)
        said("mount", "-o", "remount,ro", str(place))
        read_only = doctor("--database", database)
    assert (full.status, full.state("disk")) == (1, "missing")
    assert "8 MB free" in full.finding("disk")
    assert (read_only.status, read_only.state("database")) == (1, "missing")
    assert "cannot be written" in read_only.finding("database")


@unlocked
def test_a_database_of_somebody_else_is_missing_and_a_damaged_one_is_told(place: Path) -> None:
    theirs, ours = place / "theirs.db", place / "metrics.db"
    theirs.write_bytes(b"a letter to somebody" * 400)
    ours.write_bytes(os.urandom(8192))
    found = doctor("--database", str(theirs))
    assert (found.status, found.state("database")) == (1, "missing")
    damaged = doctor("--database", str(ours))
    assert (damaged.status, damaged.state("database")) == (0, "degraded")
    assert theirs.read_bytes() == b"a letter to somebody" * 400


@unlocked
def test_a_clock_before_the_installation_is_told() -> None:
    where = "import agent; print(agent.__path__[0])"
    place = said("/opt/so1/venv/bin/python", "-I", "-c", where)
    installed = said("stat", "-c", "%Y", f"{place}/__init__.py")
    with a_clock_put_back():
        set_clock(int(installed) - 7200 - time.time())
        told = doctor()
    assert told.state("clock") == "degraded"
    assert "before this agent was installed" in told.finding("clock")
    assert told.status == 0


@unlocked
def test_without_the_kernels_types_there_is_no_bpf_and_the_main_job_runs(place: Path) -> None:
    assert doctor().state("BPF") == "ok"
    with mounted(Path("/sys/kernel/btf"), "-t", "tmpfs", "tmpfs"):
        told = doctor()
    assert told.state("BPF") == "degraded"
    assert told.status == 0


@unlocked
def test_without_headers_and_built_modules_processes_are_read_otherwise(place: Path) -> None:
    config = place / "agent.toml"
    config.write_text(f'[paths]\nbuild = "{place}/build"\n')
    headers = Path(f"/lib/modules/{os.uname().release}/build").resolve()
    with mounted(headers, "-t", "tmpfs", "tmpfs"):
        told = doctor("--config", str(config))
    assert told.state("headers") == "degraded"
    assert f"apt-get install -y linux-headers-{os.uname().release}" in told.command("headers")
    assert told.state("modules") == "degraded"
    assert told.status == 0


@unlocked
def test_images_are_told_as_docker_has_them(place: Path, images: Images) -> None:
    config = place / "agent.toml"
    config.write_text(f'[images]\nlow = "{images.alpine}"\nhigh = "{images.stress}"\n')
    both = doctor("--config", str(config))
    config.write_text(f'[images]\nlow = "so1-none:latest"\nhigh = "{images.stress}"\n')
    one = doctor("--config", str(config))
    assert both.finding("images") == f"{images.alpine}, {images.stress}"
    assert one.finding("images").startswith("so1-none:latest not here")


@unlocked
def test_another_user_gets_a_table_that_names_what_he_may_not_see() -> None:
    done = subprocess.run(
        ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "agent", "doctor"],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert done.stderr == ""
    assert re.search(r"^privileges +unknown +not root", done.stdout, re.MULTILINE)
    assert "sudo agent doctor" in done.stdout


@pytest.mark.skipif(
    not locked_down(), reason="needs a guest booted with `--append lockdown=integrity`"
)
def test_a_locked_down_kernel_is_told_what_its_modules_lack_before_anything_is_built() -> None:
    told = doctor()
    assert told.state("module signing") == "degraded"
    assert "only signed modules are taken" in told.finding("module signing")
    assert "mokutil --import" in str(told.checks["module signing"]["mend"])
    loaded = load_modules()
    assert loaded.returncode != 0
    assert "mokutil" in loaded.stderr
    assert "make" not in loaded.stdout
    once = run_agent("start", "--once", "--dry-run", *QUIET)
    assert once.returncode == 0, once.stderr
    assert " psutil: " in once.stdout
