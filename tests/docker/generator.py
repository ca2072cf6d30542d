"""The load generator's script with directories of its own."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.containers import ALPINE, STRESS
from tests.docker.private_engine import PrivateEngine

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = Path(__file__).resolve().parents[2] / "bash" / "generar_contenedores.sh"


OURS = "0123456789abcdef" * 2


STAMP = r"[A-Z][a-z]{2} \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [A-Z0-9+-]+: "


KINDS = {
    (ALPINE, ("sleep", "infinity")),
    (STRESS, ("stress", "--vm", "1", "--vm-bytes", "128M")),
    (STRESS, ("stress", "--cpu", "1")),
}


@dataclass
class Generator:
    """The script with directories of its own and `shim` in front of docker."""

    engine: PrivateEngine
    place: Path
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def run_dir(self) -> Path:
        return self.place / "run"

    @property
    def log_file(self) -> Path:
        return self.place / "log" / "execution.log"

    def environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self.place / 'shim'}:{os.environ['PATH']}",
            "TMPDIR": str(self.place / "tmp"),
            "DOCKER_HOST": self.engine.host,
            "SO1_IMAGE_LOW": ALPINE,
            "SO1_IMAGE_HIGH": STRESS,
            "SO1_RUN_DIR": str(self.run_dir),
            "SO1_LOG_DIR": str(self.place / "log"),
            "SO1_INSTALLATION_FILE": str(self.place / "installation"),
            **self.settings,
        }

    def start(self, *options: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            # Tests may run under nohup, and a shell cannot trap what it was started to ignore.
            ["env", "--default-signal=HUP,INT,TERM", "bash", str(SCRIPT), *options],
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *options: str, status: int = 0) -> str:
        """Runs it to its end; what it said on stderr."""
        process = self.start(*options)
        out, said = process.communicate(timeout=300)
        assert (process.returncode, out) == (status, ""), said
        return said

    def log(self) -> list[str]:
        """The log's lines without their time; none where there is no log."""
        if not self.log_file.exists():
            return []
        lines = self.log_file.read_text(encoding="utf-8").splitlines()
        assert all(re.match(STAMP, line) for line in lines), lines
        return [re.sub("^" + STAMP, "", line) for line in lines]

    def shim(self, script: str) -> None:
        """`script` runs before each docker command; `$real "$@"` is that command."""
        path = self.place / "shim" / "docker"
        real = shutil.which("docker")
        path.write_text(
            f'#!/bin/bash\nreal={real}\nplace={self.place}\n{script}\nexec $real "$@"\n'
        )
        path.chmod(0o755)

    def hold_agent_lock(self) -> int:
        self.run_dir.mkdir(exist_ok=True)
        return hold(self.run_dir / "agent.lock")


def hold(path: Path) -> int:
    """A descriptor with an exclusive lock on `path`."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def is_locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@pytest.fixture
def generator(engine: PrivateEngine, tmp_path: Path) -> Generator:
    if os.geteuid() != 0:
        pytest.skip("root is needed to generate containers")
    for name in ("shim", "tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / "installation").write_text(OURS + "\n")
    (tmp_path / "installation").chmod(0o600)
    return Generator(engine, tmp_path)


@pytest.fixture
def agent(generator: Generator) -> Iterator[int]:
    """An agent that runs, as far as its lock tells."""
    descriptor = generator.hold_agent_lock()
    yield descriptor
    os.close(descriptor)
