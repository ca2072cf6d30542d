"""A containerd with its CRI plugin for one test module alone, and pods in it.

Pods are made by CRI's own calls, as a kubelet makes them, with the host's network: nothing here has
CNI. `ctr` is the oracle's way to it; the agent has its socket and the environment of its helper.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.containers import ALPINE, wait_until
from tests.docker.engine_tree import INSTALLED, Inside, engine_tree
from tests.docker.private_engine import _PATH, _archive

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PROJECT = Path(__file__).resolve().parents[2]
IMAGE = f"localhost/{ALPINE}"
PAUSE = "localhost/so1-pause:local"
"""Stands in for Kubernetes' pause image, which no registry is asked for."""
_NODE = 2
"""NamespaceMode: the host's."""

_CONFIG = """
version = 2
root = "{place}/root"
state = "{place}/state"
[grpc]
address = "{place}/c.sock"
[ttrpc]
address = "{place}/c.sock.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
disable_apparmor = true
restrict_oom_score_adj = true
stream_server_port = "0"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{place}/cni/bin"
conf_dir = "{place}/cni/net.d"
"""


@dataclass(slots=True)
class PrivateContainerd:
    """One containerd, by `ctr` and by CRI."""

    directory: Path
    environment: Path
    """The Python environment of CRI's helper."""
    daemon: subprocess.Popen[bytes] | None = None
    inside: Inside = field(default_factory=Inside)
    sandboxes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Those made here: id → its configuration."""

    @property
    def path(self) -> str:
        return f"{self.directory}/c.sock"

    @property
    def socket(self) -> str:
        return f"unix://{self.path}"

    def ctr(self, *words: str) -> str:
        done = subprocess.run(
            self.inside.words("ctr", "--address", self.path, "--namespace", "k8s.io", *words),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def cri(self, method: str, **request: Any) -> Any:
        """The answer of one of CRI's calls."""
        done = subprocess.run(
            [
                *(str(self.environment / "bin/python"), str(PROJECT / "tests/docker/cri/pods.py")),
                *(self.path, method, json.dumps(request)),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout)

    def pod(self, name: str, namespace: str = "default", cgroup_parent: str = "") -> str:
        """Starts a pod's sandbox with the host's network; its full id."""
        config = {
            "metadata": {"name": name, "namespace": namespace, "uid": f"uid-of-{name}"},
            "linux": {
                "cgroup_parent": cgroup_parent,
                "security_context": {"namespace_options": {"network": _NODE}},
            },
        }
        made = str(self.cri("RunPodSandbox", config=config)["pod_sandbox_id"])
        self.sandboxes[made] = config
        return made

    def create(self, sandbox: str, name: str, *command: str, host_pid: bool = False) -> str:
        """A container of a pod, not started; its full id. It has a kubelet's labels."""
        pod = self.sandboxes[sandbox]
        about = pod["metadata"]
        labels = {
            "io.kubernetes.container.name": name,
            "io.kubernetes.pod.name": about["name"],
            "io.kubernetes.pod.namespace": about["namespace"],
            "io.kubernetes.pod.uid": about["uid"],
        }
        modes = {"network": _NODE, "pid": _NODE if host_pid else 1}
        config = {
            "metadata": {"name": name},
            "image": {"image": IMAGE},
            "command": list(command or ("sleep", "infinity")),
            "labels": labels,
            "linux": {"security_context": {"namespace_options": modes}},
        }
        made = self.cri(
            "CreateContainer", pod_sandbox_id=sandbox, config=config, sandbox_config=pod
        )
        return str(made["container_id"])

    def run(self, sandbox: str, name: str, *command: str, host_pid: bool = False) -> str:
        made = self.create(sandbox, name, *command, host_pid=host_pid)
        self.cri("StartContainer", container_id=made)
        return made

    def first_pids(self) -> dict[str, int]:
        """Full id → first process, of every task that `ctr` lists with one that runs."""
        rows = [line.split() for line in self.ctr("tasks", "ls").splitlines()[1:]]
        return {row[0]: int(row[1]) for row in rows if row[2] in ("RUNNING", "PAUSED")}

    def clear(self) -> None:
        """Removes every pod with its containers."""
        for sandbox in list(self.sandboxes):
            self.cri("StopPodSandbox", pod_sandbox_id=sandbox)
            self.cri("RemovePodSandbox", pod_sandbox_id=sandbox)
            del self.sandboxes[sandbox]

    def start(self) -> None:
        """Starts it on its directory and waits until it answers by CRI."""
        with (self.directory / "containerd.log").open("ab") as log:
            self.daemon = daemon = subprocess.Popen(
                self.inside.words("containerd", "--config", str(self.directory / "config.toml")),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

        def answers_or_ended() -> bool:
            asked = self.inside.words("ctr", "--address", self.path, "version")
            is_there = subprocess.run(asked, capture_output=True).returncode == 0
            return daemon.poll() is not None or is_there

        wait_until(answers_or_ended, "containerd answers")
        said = (self.directory / "containerd.log").read_text(errors="replace")
        assert daemon.poll() is None, said[-3000:]

    def hang(self) -> None:
        """It takes connections and never answers; whoever calls wakes it with `wake`."""
        assert self.daemon is not None
        self.daemon.send_signal(signal.SIGSTOP)
        threads = Path(f"/proc/{self.daemon.pid}/task")

        def all_stopped() -> bool:
            return all("T (stopped)" in (one / "status").read_text() for one in threads.iterdir())

        wait_until(all_stopped, "every thread of containerd has stopped")

    def wake(self) -> None:
        assert self.daemon is not None
        self.daemon.send_signal(signal.SIGCONT)

    def end(self, number: int = signal.SIGTERM) -> None:
        """Ends it; its containers go on running, as they do. SIGKILL leaves its socket."""
        if self.daemon is not None:
            self.daemon.send_signal(signal.SIGCONT)
            self.daemon.send_signal(number)
            self.daemon.wait(timeout=60)
            self.daemon = None


@contextmanager
def private_containerd(suite: str = INSTALLED) -> Iterator[PrivateContainerd]:
    """A suite's containerd with the stand-in images, gone afterwards with all that ran in it."""
    Inside().need("busybox")
    if os.geteuid() != 0:
        pytest.skip("root is needed to start containerd")
    environment = _environment()
    # Not below /tmp: the path of a Unix socket is short, and pytest's are long.
    directory = Path(tempfile.mkdtemp(prefix="so1-containerd-", dir="/var/lib"))
    try:
        with engine_tree(suite, directory) as inside:
            inside.need("containerd", "ctr", "runc")
            with _containerd(PrivateContainerd(directory, environment, inside=inside)) as engine:
                yield engine
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _containerd(engine: PrivateContainerd) -> Iterator[PrivateContainerd]:
    directory = engine.directory
    try:
        (directory / "config.toml").write_text(_CONFIG.format(place=directory, pause=PAUSE))
        engine.start()
        root = _archive(directory, ())
        for name in (IMAGE, PAUSE):
            archive = directory / "image.tar"
            # Two commands make two images of it: containerd names an image by its id.
            archive.write_bytes(_image(root, name, "infinity" if name == IMAGE else "100000000"))
            engine.ctr("images", "import", str(archive))
        yield engine
    finally:
        if engine.daemon is None and engine.sandboxes:
            engine.start()
        if engine.daemon is not None:
            engine.daemon.send_signal(signal.SIGCONT)
            engine.clear()
            engine.end()


def _environment() -> Path:
    """The helper's environment, made by the product's own script and kept for the next run."""
    script = PROJECT / "bash/cri_environment.sh"
    wanted = (PROJECT / "requirements/cri.txt").read_bytes() + str(PROJECT).encode()
    prefix = Path("/var/cache/so1") / f"cri-{hashlib.sha256(wanted).hexdigest()[:16]}"
    if not (prefix / "cri/bin/python").exists():
        prefix.mkdir(parents=True, exist_ok=True)
        (prefix / "src").unlink(missing_ok=True)
        (prefix / "src").symlink_to(PROJECT)
        made = subprocess.run([str(script), str(prefix)], capture_output=True, text=True)
        if made.returncode != 0:
            pytest.skip(f"the environment of CRI's helper cannot be made: {made.stderr[-300:]}")
    return prefix / "cri"


def _image(root: bytes, name: str, seconds: str) -> bytes:
    """An archive as `docker save` writes it: one layer, and a command."""
    config = json.dumps(
        {
            "architecture": os.uname()
            .machine.replace("x86_64", "amd64")
            .replace("aarch64", "arm64"),
            "os": "linux",
            "config": {"Env": [f"PATH={_PATH}"], "Cmd": ["sleep", seconds]},
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(root).hexdigest()}"],
            },
        }
    ).encode()
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    files: Sequence[tuple[str, bytes]] = (
        ("config.json", config),
        ("layer.tar", root),
        ("manifest.json", json.dumps(manifest).encode()),
    )
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, data in files:
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()
