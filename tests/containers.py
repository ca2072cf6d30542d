"""Containers for tests, through the docker command line and nothing of the agent.

Each helper labels what it starts and removes just that, so that tests may share an engine with
each other and with people. Also an oracle: what it reads, it reads from Docker and /proc itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ALPINE = "so1-alpine-standin:local"
STRESS = "so1-stress-standin:local"
#: Where the docker command line, and so every agent of a test, finds its engine.
HOST = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LABEL = "so1.test"
_REMOVED_AT_ONCE = 8


class DockerCommandError(AssertionError):
    """A docker command failed; the message has its words and what it said."""


def docker(*words: str, timeout_s: float = 120, data: bytes | None = None) -> str:
    """The output of `docker WORDS…`, stripped; DockerCommandError when it fails."""
    done = subprocess.run(
        ["docker", *words], input=data, capture_output=True, timeout=timeout_s, check=False
    )
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise DockerCommandError(f"docker {' '.join(words)}: {said}")
    return done.stdout.decode(errors="replace").strip()


def engine_answers(docker: Callable[..., str] = docker) -> bool:
    """Whether an engine is there and talks to this client (`docker`, as the function above)."""
    try:
        docker("version", "--format", "{{.Server.Version}}", timeout_s=30)
    except (DockerCommandError, FileNotFoundError, subprocess.TimeoutExpired):
        return False
    return True


def import_image(name: str, archive: Path) -> None:
    """Make a local image of a tar file, unless the name exists already."""
    if not docker("image", "ls", "--quiet", name):
        docker("import", "-c", f"ENV PATH={_PATH}", str(archive), name)


def wait_until(
    condition: Callable[[], Any], what: str, *, timeout_s: float = 240, pause_s: float = 0.1
) -> Any:
    """The first true answer of `condition`; AssertionError naming `what` at the deadline."""
    deadline = time.monotonic() + timeout_s
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        time.sleep(pause_s)
    return answer


def remove_all(listed: Callable[[], list[str]], docker: Callable[..., str], what: str) -> None:
    """Remove what `listed` gives by `docker` (as the function of that name) until it gives none.

    One that vanishes meanwhile is what we want. An engine under load gives some of a crowd up in
    its first attempt ("failed to exit"), or has a removal of its own or the agent's under way: it
    has its time again as long as there are fewer of them. A few at a time: of 80 at once Docker
    20.10 kept some for minutes. What it answers is printed, for a test that fails by it.
    """

    left = listed()
    said = ""

    def are_fewer() -> bool:
        nonlocal left, said
        number = len(left)
        for first in range(0, number, _REMOVED_AT_ONCE):
            try:
                docker("rm", "-f", "-v", *left[first : first + _REMOVED_AT_ONCE])
            except (DockerCommandError, subprocess.TimeoutExpired) as error:
                if str(error) != said:
                    said = str(error)
                    print(said)
        left = listed()
        return len(left) < number

    while left:
        wait_until(are_fewer, what, pause_s=0.5)


@dataclass(slots=True)
class Containers:
    """Starts containers that bear a label of its own and removes those when closed."""

    label: str = field(default_factory=lambda: f"{_LABEL}={uuid.uuid4().hex}")

    def run(
        self,
        image: str,
        command: Sequence[str],
        *,
        name: str | None = None,
        options: Sequence[str] = (),
    ) -> str:
        """Start a container in the background and return its full id.

        Without a network unless `options` name one: no test needs it, and it costs most of a start.
        """
        named = ["--name", name] if name else []
        network = [] if any(word.startswith("--net") for word in options) else ["--network=none"]
        return docker(
            "run", "-d", "--label", self.label, *network, *named, *options, image, *command
        )

    def ids(self) -> list[str]:
        """The full ids of what was started here and still exists, exited ones included."""
        listed = docker("ps", "-aq", "--no-trunc", "--filter", f"label={self.label}")
        return listed.split()

    def close(self) -> None:
        """Remove them all."""
        remove_all(self.ids, docker, f"no container with {self.label} is left")


def inspect(container: str) -> dict[str, Any]:
    """Docker's own description of one container."""
    found: list[dict[str, Any]] = json.loads(docker("inspect", container))
    return found[0]


def first_pid(container: str) -> int:
    """The host's pid of the container's first process."""
    return int(inspect(container)["State"]["Pid"])


def pids_of(container: str) -> set[int]:
    """Every process of a container by `cgroup.procs` of the first one's cgroup and those below.

    Read from the unified hierarchy where the process is in one there, else from memory's.
    """
    directory = cgroup_directory(first_pid(container))
    return {
        int(word)
        for file in (directory / "cgroup.procs", *directory.rglob("*/cgroup.procs"))
        for word in _read(file).split()
    }


def cgroup_directory(pid: int) -> Path:
    """The cgroup directory of a process: memory's on v1 and hybrid, the only one on v2."""
    root = Path("/sys/fs/cgroup")
    for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers and (root / "cgroup.controllers").exists():
            return root / path.lstrip("/")
        if "memory" in controllers.split(","):
            return root / "memory" / path.lstrip("/")
    raise AssertionError(f"process {pid} is in no memory cgroup")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, OSError):  # a cgroup that went away has no processes
        return ""


def in_lab() -> bool:
    """Whether we run in a guest of the lab, where a missing ability is an error."""
    return os.environ.get("SO1_LAB") == "1"
