"""A podman for one test module alone: its storage, its state and its service are nobody else's.

`podman` is the oracle's way to it; the agent has its socket. Containers have no network; systemd
manages their cgroups where it is the host's init.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.containers import ALPINE, STRESS, DockerCommandError, remove_all, wait_until
from tests.docker.engine_tree import INSTALLED, Inside, engine_tree
from tests.docker.left_mounts import remove_engines_directory
from tests.docker.private_engine import _PATH, _archive
from tests.docker.rootless import rootless

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

IMAGE = f"localhost/{ALPINE}"
MANAGER = "systemd" if Path("/run/systemd/system").exists() else "cgroupfs"


@dataclass(slots=True)
class PrivatePodman:
    """One podman, by its command line."""

    directory: Path
    service: subprocess.Popen[bytes] | None = None
    env: dict[str, str] = field(default_factory=dict)
    inside: Inside = field(default_factory=Inside)

    @property
    def socket(self) -> str:
        return f"unix://{self.directory}/podman.sock"

    def podman(self, *words: str, data: bytes | None = None, timeout_s: float = 120) -> str:
        """The output of `podman WORDS…`, stripped; DockerCommandError when it fails."""
        done = subprocess.run(
            self.inside.words("podman", *words),
            input=data,
            capture_output=True,
            timeout=timeout_s,
            env={**os.environ, **self.env},
            check=False,
        )
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip()
            raise DockerCommandError(f"podman {' '.join(words)}: {said}")
        return done.stdout.decode(errors="replace").strip()

    def run(self, *options: str, image: str = IMAGE, command: Sequence[str] = ()) -> str:
        """Starts a container that sleeps, or runs `command`; its full id."""
        # A member of a pod has the pod's network.
        network = [] if any(word.startswith("--pod") for word in options) else ["--network=none"]
        words = command or ("sleep", "infinity")
        return self.podman("run", "-d", *network, *options, image, *words)

    def pod(self, name: str) -> str:
        """Makes a pod; its full id. Its infra container is made of the stand-in image."""
        return self.podman(
            *("pod", "create", "--name", name, "--network=none"),
            *("--infra-image", IMAGE, "--infra-command", "sleep infinity"),
        )

    def inspect(self, container: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(self.podman("inspect", container))
        return found[0]

    def first_pid(self, container: str) -> int:
        return int(self.inspect(container)["State"]["Pid"])

    def ids(self, *options: str) -> set[str]:
        return set(self.podman("ps", "-q", "--no-trunc", *options).split())

    def names(self, *options: str) -> set[str]:
        return set(self.podman("ps", *options, "--format", "{{.Names}}").split())

    def clear(self) -> None:
        """Removes every pod and container of it."""
        self.podman("pod", "rm", "--all", "--force", "--time", "0")

        def remove(*words: str) -> str:
            return self.podman(*words[:3], "--time", "0", *words[3:])

        remove_all(lambda: list(self.ids("-a")), remove, "podman is empty")


@contextmanager
def private_podman(suite: str = INSTALLED) -> Iterator[PrivatePodman]:
    """A suite's podman with both stand-in images and its API's service, gone afterwards."""
    Inside().need("busybox", "stress")
    if os.geteuid() != 0:
        pytest.skip("root is needed for podman with cgroups")
    directory = Path(tempfile.mkdtemp(prefix="so1-podman-", dir="/var/lib"))
    try:
        with engine_tree(suite, directory) as inside, _podman(directory, inside) as engine:
            yield engine
    finally:
        remove_engines_directory(directory)


@contextmanager
def rootless_podman(suite: str = INSTALLED) -> Iterator[PrivatePodman]:
    """The same of a user's."""
    Inside().need("busybox", "stress")
    if os.geteuid() != 0:
        pytest.skip("root is needed to become another user")
    directory = Path(tempfile.mkdtemp(prefix="so1-podman-", dir="/var/lib"))
    try:
        with rootless(suite, directory) as inside, _podman(directory, inside) as engine:
            yield engine
    finally:
        remove_engines_directory(directory)


@contextmanager
def _podman(directory: Path, inside: Inside) -> Iterator[PrivatePodman]:
    inside.need("podman", "runc")
    engine = PrivatePodman(directory, inside=inside)
    try:
        _configure(engine)
        for image, programs in ((ALPINE, ()), (STRESS, ("stress",))):
            archive = directory / "image.tar"
            archive.write_bytes(_archive(directory, programs))
            engine.podman("import", "-c", f"ENV PATH={_PATH}", str(archive), image)
        engine.service = _serve(engine)
        yield engine
    finally:
        if engine.service is not None:
            engine.clear()
            engine.service.terminate()
            engine.service.wait(timeout=60)
        mounted = str(directory / "root/overlay")
        subprocess.run(inside.words("umount", mounted), capture_output=True, check=False)


def _configure(engine: PrivatePodman) -> None:
    place = engine.directory
    files, tasks = (
        resource.getrlimit(which)[1] for which in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC)
    )
    # Podman raises both limits to those of a whole host, which not every root may.
    limits = [f"nofile={min(files, 1024)}", f"nproc={1024 if tasks < 0 else min(tasks, 1024)}"]
    (place / "storage.conf").write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{place}/root"\nrunroot = "{place}/run"\n'
    )
    listed = ", ".join(f'"{one}:{one.partition("=")[2]}"' for one in limits)
    (place / "containers.conf").write_text(
        f"[containers]\ndefault_ulimits = [{listed}]\n"
        f'[engine]\ncgroup_manager = "{MANAGER}"\nevents_logger = "file"\ntmp_dir = "{place}/tmp"\n'
        # crun takes no host with controllers in both hierarchies.
        'runtime = "runc"\n'
    )
    engine.env = {
        "CONTAINERS_STORAGE_CONF": str(place / "storage.conf"),
        "CONTAINERS_CONF": str(place / "containers.conf"),
    }


def _serve(engine: PrivatePodman) -> subprocess.Popen[bytes]:
    with (engine.directory / "service.log").open("wb") as log:
        service = subprocess.Popen(
            engine.inside.words("podman", "system", "service", "--time=0", engine.socket),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **engine.env},
            start_new_session=True,
        )

    def listens_or_ended() -> bool:
        return service.poll() is not None or Path(engine.socket.removeprefix("unix://")).exists()

    wait_until(listens_or_ended, "podman listens")
    assert service.poll() is None, (engine.directory / "service.log").read_text(errors="replace")
    return service
