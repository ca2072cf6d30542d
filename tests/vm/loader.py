"""bash/load_modules.sh for a test: called with settings, its refusals read; the kernel as found."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.vm import modules_support as host

if TYPE_CHECKING:
    from collections.abc import Iterator


PROJECT = Path(__file__).resolve().parents[2]

SCRIPT = PROJECT / "bash" / "load_modules.sh"

RELEASE = os.uname().release

HEADERS = Path(f"/lib/modules/{RELEASE}/build")

KERNEL, TOOLS, HEADERS_MISSING, LOCKED, BUILD, LOAD, UNLOAD = 4, 5, 6, 7, 8, 9, 11


def script(
    *options: str, path: Path = SCRIPT, prefix: tuple[str, ...] = (), **settings: object
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*prefix, "bash", str(path), *options],
        env=os.environ | {name: str(value) for name, value in settings.items()},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )


def succeeded(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    assert done.returncode == 0, done.stderr
    return done


def refused(done: subprocess.CompletedProcess[str], status: int) -> str:
    """The last line said, of a run that ended with `status`."""
    assert done.returncode == status, done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.endswith((".", ")")), "not a sentence"
    assert ": " in line, "without a remedy"
    return line


def loaded() -> set[str]:
    return {name for name in host.MODULES if Path(f"/sys/module/{name}/initstate").exists()}


def identity(module: str) -> int:
    """A number that another load of the module does not have."""
    return Path(f"/sys/module/{module}").stat().st_ino


def kernel_log() -> list[str]:
    done = subprocess.run(["dmesg", "--raw"], capture_output=True, check=True)
    return [
        line.split("] ", 1)[-1].strip()
        for line in done.stdout.decode(errors="replace").splitlines()
    ]


@pytest.fixture(autouse=True)
def as_found(guest: None) -> Iterator[None]:
    """Other tests may use the modules: what was loaded before is loaded afterwards."""
    before = loaded()
    succeeded(script("--unload"))
    yield
    succeeded(script() if before else script("--unload"))


@pytest.fixture
def built() -> Path:
    """The directory of the modules that the lab has built."""
    directory = Path(succeeded(script("--print-dir")).stdout.strip())
    assert (directory / "sysinfo.ko").exists(), "the lab has not seeded the modules"
    return directory


@pytest.fixture
def copied(built: Path, tmp_path: Path) -> Path:
    """A build root of the test's own with the same modules; SO1_BUILD_ROOT may name it."""
    target = tmp_path / "build" / RELEASE / built.name
    shutil.copytree(built, target)
    return target


def seal(directory: Path) -> None:
    """Make what is in a build directory count as whole."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(directory.glob("*.ko"))
    ]
    (directory / "SHA256SUMS").write_text("".join(lines))


LAY_OVER = 'while [ "$1" != -- ]; do mount --bind "$1" "$2"; shift 2; done; shift; exec "$@"'


TARGETS = {
    "lockdown": "/sys/kernel/security/lockdown",
    "modules_disabled": "/proc/sys/kernel/modules_disabled",
    "sig_enforce": "/sys/module/module/parameters/sig_enforce",
    "mokutil": "/usr/bin/mokutil",
}


def over(**files: Path) -> tuple[str, ...]:
    """A prefix under which files of the kernel read otherwise, for the script alone."""
    return laid({TARGETS[name]: path for name, path in files.items()})


def laid(files: dict[str, Path]) -> tuple[str, ...]:
    words = [word for target, path in files.items() for word in (str(path), target)]
    return ("unshare", "--mount", "bash", "-c", LAY_OVER, "lay", *words, "--")


@pytest.fixture
def mokutil(tmp_path: Path) -> Path:
    """A mokutil of a machine with Secure Boot on that does not know our key."""
    program = tmp_path / "mokutil"
    program.write_text(
        '#!/bin/sh\ncase $1 in\n--sb-state) echo "SecureBoot enabled" ;;\n'
        '--test-key) echo "$2 is not enrolled" ;;\nesac\n'
    )
    program.chmod(0o755)
    return program


def signing_key(directory: Path) -> tuple[Path, Path]:
    key, certificate = directory / "mok.key", directory / "mok.pub"
    request = "openssl req -new -x509 -newkey rsa:2048 -nodes -days 9 -subj /CN=so1-test/"
    files = f" -outform DER -keyout {key} -out {certificate}"
    subprocess.run(shlex.split(request + files), check=True, capture_output=True)
    return key, certificate
