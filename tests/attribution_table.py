"""The adversarial table: one test for each way in which a process may be hard to attribute.

The same rows run on every host that is to be had: natively with the fallback source, in guests with
the modules, on every mode of cgroups. After each arrangement the whole host is compared with the
oracle, so that containers of earlier rows are witnesses in the later ones.
"""

from __future__ import annotations

import subprocess
import threading
import uuid
from pathlib import Path

import pytest

from tests import containers
from tests.attribution_moves import MovedProcesses
from tests.attribution_processes import beside, child_of, host_pid_inside, process_at
from tests.attribution_rows import ADMIN, FAMILY, command_of
from tests.attribution_support import (
    Host,
    Told,
    directories_of,
    directory_of,
    moved_below,
    pids_below,
    running,
    state_of,
    text_of,
)
from tests.containers import Containers, docker, first_pid, wait_until

INNER_DOCKER = """set -e
mount -t proc proc /host/proc
for d in run tmp mnt; do mount -t tmpfs tmpfs /host/$d; done
mount -o rbind /sys/fs/cgroup /host/sys/fs/cgroup
cd /sys/fs/cgroup
if [ -e cgroup.controllers ]; then
    mkdir init
    for pid in $(cat cgroup.procs); do echo $pid >init/cgroup.procs || true; done
    for one in $(cat cgroup.controllers); do echo +$one >cgroup.subtree_control; done
fi
exec chroot /host sh -c '
cd /
dockerd --data-root /mnt/d --exec-root /run/d -p /run/d.pid -H unix:///run/d.sock \
    --bridge=none --iptables=false --storage-driver=vfs >/tmp/log 2>&1 &
export DOCKER_HOST=unix:///run/d.sock
until docker version >/dev/null 2>&1; do sleep 0.5; done
tar -c usr/bin/busybox | docker import - inner
docker run -d --network=none inner /usr/bin/busybox sleep 8811
'
"""
"""Docker inside Docker from the host's own programs."""

HELD_BY_A_THREAD = """import ctypes, threading
held = threading.Event()
def hold():
    pages = b"x" * (64 << 20)
    held.set()
    threading.Event().wait()
threading.Thread(target=hold).start()
held.wait()
ctypes.CDLL(None).pthread_exit(None)
"""
"""A main thread that ends before the one that has the memory."""


@pytest.mark.usefixtures("host")
class AttributionTable(MovedProcesses):
    """Collected through a subclass, as all rows are; those of moved processes are inherited."""

    def test_an_ordinary_container(self, host: Host, boxes: Containers, image: str) -> None:
        box = self.run(boxes, image, command=FAMILY)
        wait_until(lambda: len(pids_below(directory_of(box))) == 3, "the shell's children")
        host.check(basis=dict.fromkeys(pids_below(directory_of(box)), "cgroup"))

    def test_its_own_pid_namespace_alone(self, host: Host, boxes: Containers, image: str) -> None:
        box = self.run(boxes, image, "--uts=host")
        host.check(basis={first_pid(box): "cgroup"})

    def test_its_own_uts_namespace_alone(self, host: Host, boxes: Containers, image: str) -> None:
        box = self.run(boxes, image, "--pid=host")
        host.check(basis={first_pid(box): "cgroup"})

    def test_the_hosts_namespaces(self, host: Host, boxes: Containers, image: str) -> None:
        box = self.run(boxes, image, "--uts=host", "--pid=host", "--network=host")
        docker("exec", "-d", box, "sleep", "8801")
        inside = host_pid_inside(box, "8801")
        host.check(basis={first_pid(box): "added", inside: "added"})

    def test_another_containers_pid_namespace(
        self, host: Host, boxes: Containers, image: str
    ) -> None:
        owner = self.run(boxes, image)
        guest = self.run(boxes, image, f"--pid=container:{owner}")
        docker("exec", "-d", guest, "sleep", "8802")
        inside = host_pid_inside(guest, "8802")
        host.check(basis=dict.fromkeys((first_pid(owner), first_pid(guest), inside), "cgroup"))

    def test_processes_of_docker_exec(self, host: Host, boxes: Containers, image: str) -> None:
        box = self.run(boxes, image)
        for marker in ("8803", "8804"):
            docker("exec", "-d", box, "sleep", marker)
        inside = [host_pid_inside(box, marker) for marker in ("8803", "8804")]
        host.check(basis=dict.fromkeys(inside, "cgroup"))

    def test_a_cgroup_made_inside_a_container(
        self, host: Host, boxes: Containers, image: str
    ) -> None:
        script = (
            "d=/tmp/cgroup; mkdir $d;"
            " if [ -e /sys/fs/cgroup/cgroup.procs ]; then mount -t cgroup2 none $d;"
            " else mount -t cgroup -o memory none $d; fi;"
            " mkdir -p $d/inner/deeper && echo $$ >$d/inner/deeper/cgroup.procs;"
            " /bin/sleep 9999 & /bin/sleep 9999; true"
        )
        box = self.run(boxes, image, *ADMIN, "--cgroupns=private", command=("sh", "-c", script))
        deeper = directory_of(box) / "inner" / "deeper"
        wait_until(lambda: deeper.exists() and len(pids_below(deeper)) == 3, "the inner cgroup")
        host.check(basis=dict.fromkeys(pids_below(deeper), "cgroup"))

    @pytest.mark.parametrize("names", [["x" * 200] * 25, ["x"] * 300], ids=["long", "deep"])
    @pytest.mark.parametrize("namespaces", ["own", "hosts"])
    def test_a_cgroup_longer_than_a_path_or_deeper_than_any(
        self, host: Host, boxes: Containers, image: str, namespaces: str, names: list[str]
    ) -> None:
        """Neither hides a process, nor is its memory added to what its cgroup holds anyway."""
        options = ("--uts=host", "--pid=host") if namespaces == "hosts" else ()
        box = self.run(boxes, image, *options)
        pid = first_pid(box)
        basis = "added" if options else "cgroup"
        with moved_below(pid, directory_of(box), names):
            host.check(extra={pid: Told(box, basis)})
        host.check(basis={pid: basis})

    def test_a_cgroup_parent(self, host: Host, boxes: Containers, image: str) -> None:
        systemd = docker("info", "--format", "{{.CgroupDriver}}") == "systemd"
        parent = "so1-deep-down.slice" if systemd else "/so1test/deep/down"
        box = self.run(boxes, image, f"--cgroup-parent={parent}")
        assert "down" in str(directory_of(box).parent)
        host.check(basis={first_pid(box): "cgroup"})

    def test_another_containers_cgroup_as_parent(
        self, host: Host, boxes: Containers, image: str
    ) -> None:
        if docker("info", "--format", "{{.CgroupDriver}}") == "systemd":
            pytest.skip("needs the cgroupfs driver: systemd takes slices only")
        outer = self.run(boxes, image)
        inner = self.run(boxes, image, f"--cgroup-parent=/docker/{outer}")
        assert directory_of(inner).parent == directory_of(outer)
        host.check(basis={first_pid(outer): "cgroup", first_pid(inner): "cgroup"})

    def test_the_hosts_cgroup_namespace(self, host: Host, boxes: Containers, image: str) -> None:
        box = self.run(boxes, image, "--cgroupns=host")
        host.check(basis={first_pid(box): "cgroup"})

    def test_a_paused_one(self, host: Host, boxes: Containers, image: str) -> None:
        box = self.run(boxes, image)
        docker("pause", box)
        try:
            host.check(basis={first_pid(box): "cgroup"})
        finally:
            docker("unpause", box)

    def test_one_renamed(self, host: Host, boxes: Containers, image: str) -> None:
        box = self.run(boxes, image)
        host.check()
        name = f"so1-renamed-{uuid.uuid4().hex[:8]}"
        docker("rename", box, name)
        for reader in host.readers.values():
            rows = host.attribution(reader).rows
            assert {row.container_name for row in rows if row.container_id == box} == {name}

    def test_one_restarted_within_two_looks(
        self, host: Host, boxes: Containers, image: str
    ) -> None:
        box = self.run(boxes, image)
        host.check()
        before = first_pid(box)
        docker("restart", "-t", "0", box)
        assert first_pid(box) != before
        host.check(basis={first_pid(box): "cgroup"})

    def test_an_init_of_dockers(self, host: Host, boxes: Containers, image: str) -> None:
        box = self.run(boxes, image, "--init")
        wait_until(lambda: len(pids_below(directory_of(box))) == 2, "the init's child")
        host.check(basis=dict.fromkeys(pids_below(directory_of(box)), "cgroup"))

    def test_a_zombie_is_its_containers(self, host: Host, boxes: Containers, image: str) -> None:
        # The shell becomes a sleep, which never waits for the child that ends.
        box = self.run(boxes, image, command=("sh", "-c", "/bin/sleep 1 & exec /bin/sleep 9999"))
        parent = first_pid(box)

        def zombie() -> int:
            listed = subprocess.run(
                ["ps", "--ppid", str(parent), "-o", "pid=,stat="], capture_output=True, text=True
            )
            words = listed.stdout.split()
            return int(words[0]) if words[1:2] and words[1].startswith("Z") else 0

        pid = wait_until(zombie, "a zombie")
        assert pid not in pids_below(directory_of(box))
        for name, reader in host.readers.items():
            # cgroup v1 shows the root for what has ended: its PID namespace has to tell.
            mute = name == "psutil" and box not in text_of(Path(f"/proc/{pid}/cgroup"))
            assert host.told(reader)[pid] == Told(box, "strayed" if mute else "cgroup"), name
        host.check()

    def test_one_whose_main_thread_has_ended_keeps_its_memory(
        self, host: Host, boxes: Containers, image: str
    ) -> None:
        python = ("chroot", "/host", "/usr/bin/python3", "-c", HELD_BY_A_THREAD)
        box = self.run(boxes, image, "-v", "/:/host:ro", command=python)
        pid = first_pid(box)
        wait_until(lambda: state_of(pid) == "Z", "the main thread has ended")
        host.check(basis={pid: "cgroup"})
        for reader in host.readers.values():
            (one,) = (process for process in reader().processes if process.pid == pid)
            assert 64 << 10 <= one.rss_kb < 96 << 10
        # Engines take it for ended, and would leave its other thread behind when they remove it.
        subprocess.run(["kill", "-9", str(pid)], check=True)
        wait_until(lambda: state_of(pid) == "", "it is gone")

    def test_host_processes_with_namespaces_of_their_own(
        self, host: Host, boxes: Containers, image: str
    ) -> None:
        with (
            beside("unshare", "--uts", "sleep", "9999") as uts,
            beside("unshare", "--pid", "--uts", "--fork", "sleep", "9999") as forks,
        ):
            inner = child_of(forks)
            for reader in host.readers.values():
                assert host.attribution(reader).counts.dropped >= 2
            host.check(absent=[uts, forks, inner])

    def test_a_pid_used_again(self, host: Host, boxes: Containers, image: str) -> None:
        one, other = self.run(boxes, image), self.run(boxes, image)
        docker("exec", "-d", one, "sleep", "8810")
        pid = host_pid_inside(one, "8810")
        host.check(basis={pid: "cgroup"})
        subprocess.run(["kill", "-9", str(pid)], check=True)
        wait_until(lambda: state_of(pid) == "", "it is gone")
        with process_at(pid):
            host.check(absent=[pid])
        with process_at(pid, directory_of(other)):
            host.check(extra={pid: Told(other, "added")})

    def test_a_first_pid_used_again(self, host: Host, boxes: Containers, image: str) -> None:
        box = self.run(boxes, image)
        pid = first_pid(box)
        host.check(basis={pid: "cgroup"})
        docker("kill", box)
        wait_until(lambda: state_of(pid) == "", "it is gone")
        with process_at(pid):
            host.check(absent=[pid])

    def test_ones_being_removed_while_they_are_read(
        self, host: Host, boxes: Containers, image: str
    ) -> None:
        doomed = [self.run(boxes, image) for _ in range(6)]
        owner = {first_pid(box): box for box in doomed}
        removal = threading.Thread(target=lambda: docker("rm", "-f", *doomed, timeout_s=300))
        removal.start()
        looks = 0
        while removal.is_alive() or looks == 0:
            for reader in host.readers.values():
                told = host.told(reader)
                for pid, box in owner.items():
                    assert pid not in told or told[pid].container == box
            looks += 1
        removal.join()
        assert not set(doomed) & set(running())
        host.check(absent=list(owner))

    def test_ones_that_start_while_they_are_read(
        self, host: Host, boxes: Containers, image: str
    ) -> None:
        made: list[str] = []

        def start() -> None:
            for number in range(5):
                options = ("--uts=host", "--pid=host") if number % 2 else ()
                made.append(self.run(boxes, image, *options))

        starter = threading.Thread(target=start)
        starter.start()
        while starter.is_alive():
            for reader in host.readers.values():
                for pid, told in host.told(reader).items():
                    # Whatever is told of a new one is told of the cgroup that it is in.
                    cgroup = text_of(Path(f"/proc/{pid}/cgroup"))
                    if told.basis in ("cgroup", "added") and cgroup and told.container in made:
                        assert told.container in cgroup
        starter.join()
        assert len(made) == 5
        host.check()

    def test_docker_inside_docker_is_the_outer_ones(
        self, host: Host, boxes: Containers, image: str
    ) -> None:
        if refused := _refused("run", "--rm", "--privileged", image, "true"):
            pytest.skip(f"needs privileged containers: {refused}")
        outer = self.run(boxes, image, "--privileged", "--cgroupns=private", "-v", "/:/host:ro")
        docker("exec", "-d", outer, "sh", "-c", INNER_DOCKER)
        listing = ("docker", "-H", "unix:///run/d.sock", "ps", "-q", "--no-trunc")
        inner = wait_until(
            lambda: _try("exec", outer, "chroot", "/host", *listing),
            "a container inside the container",
            timeout_s=240,
            pause_s=1,
        )
        assert inner not in running()
        # This host's Docker does not know it: its cgroup has its name.
        place = min(directories_of(inner), key=lambda path: len(path.parts))
        pids = [pid for pid in pids_below(place) if b"8811" in command_of(pid)]
        assert pids, "the inner container's process is not to be seen"
        assert place.is_relative_to(directory_of(outer))
        host.check(basis=dict.fromkeys(pids, "cgroup"))
        docker("rm", "-f", outer)

    @pytest.mark.full
    def test_sixty_containers(self, host: Host, boxes: Containers, image: str) -> None:
        missing = max(0, 60 - len(running()))
        for number in range(missing):
            options = ((), ("--pid=host",), ("--uts=host",), ("--uts=host", "--pid=host"))[
                number % 4
            ]
            self.run(boxes, image, *options)
        assert len(running()) >= 60
        host.check()


def _refused(*words: str) -> str:
    try:
        docker(*words)
    except containers.DockerCommandError as error:
        return str(error)[-200:]
    return ""


def _try(*words: str) -> str:
    try:
        return docker(*words)
    except containers.DockerCommandError:
        return ""
