"""Boots a guest under QEMU, runs one command in it and brings its status, output and logs out.

The guest tells its phases and the command's status through a port of its own; a guest that ends
without having told one is lost, which is an error and never a pass.
"""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .errors import GuestTimeoutError, LabError, LostGuestError
from .process import clean_environment, need, say, tail

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .image import Image

CGROUPS = ("v2", "v1", "hybrid")
_KERNEL_ARGUMENTS = (
    "root=/dev/vda",
    "rw",
    # A guest that panics ends (-no-reboot) instead of waiting; an oops is a panic.
    "panic=-1",
    "oops=panic",
    # `quiet` would keep warnings from the console, which is all that a lost guest leaves.
    "loglevel=5",
    "log_buf_len=4M",
    "systemd.show_status=0",
    "mitigations=off",
    # On a busy machine the emulated TSC looks unstable: the kernel would change to slower clocks,
    # patching its own code while it runs.
    "tsc=reliable",
    "net.ifnames=0",
    "so1.lab",
)
_END_GRACE_S = 10


@dataclass(frozen=True, slots=True)
class Emulator:
    """What emulates a guest's architecture, and where its kernel's console is."""

    program: str
    package: str
    board: tuple[str, ...]
    console: str


_EMULATORS = {
    "amd64": Emulator(
        "qemu-system-x86_64",
        "qemu-system-x86",
        # Five-level page tables cost a tenth of an emulated CPU's time and prove nothing.
        ("-M", "q35", "-cpu", "max,la57=off"),
        "ttyS0",
    ),
    "arm64": Emulator(
        "qemu-system-aarch64",
        "qemu-system-arm",
        # The architecture's own cipher for pointers costs half of an emulated CPU's time.
        ("-M", "virt,gic-version=3", "-cpu", "max,pauth-impdef=on"),
        "ttyAMA0",
    ),
}
_CHUNK = 65536


@dataclass(frozen=True, slots=True)
class Machine:
    """What may be chosen about a boot. `kernel` boots without an initrd (a debug kernel)."""

    cgroup: str = "v2"
    memory_mb: int = 4096
    cpus: int = 2
    timeout_s: float = 1800
    append: str = ""
    kernel: Path | None = None
    network: bool = False
    interactive: bool = False
    shares: tuple[tuple[str, Path], ...] = ()


@dataclass(frozen=True, slots=True)
class Ports:
    """QEMU's ends of the two socket pairs."""

    output: int
    status: int


@dataclass(slots=True)
class Progress:
    """What the guest has told so far: `phases` maps a phase to the guest's uptime in seconds."""

    phases: dict[str, str] = field(default_factory=dict)
    exit_status: int | None = None
    rest: bytes = b""

    def feed(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            match line.decode(errors="replace").split():
                case ["phase", name, uptime]:
                    self.phases[name] = uptime
                case ["exit", status] if status.isdecimal():
                    self.exit_status = int(status)


def kernel_arguments(image: Image, machine: Machine) -> str:
    """The kernel command line; LabError when the guest's systemd has not that cgroup layout."""
    console = _EMULATORS[image.guest.arch].console
    # Not the image's own mask: a getty takes the console's last output with it.
    getty = f"systemd.mask=serial-getty@{console}.service"
    words = [*_KERNEL_ARGUMENTS, f"console={console}", getty]
    if machine.cgroup == "v2":
        words.append("systemd.unified_cgroup_hierarchy=1")
    else:
        if not image.guest.cgroup_v1:
            raise LabError(
                f"{image.guest.name} has no cgroup {machine.cgroup}",
                "its systemd supports v2 only; use debian12 or debian13",
            )
        words.append("systemd.unified_cgroup_hierarchy=0")
        words.append(
            f"systemd.legacy_systemd_cgroup_controller={'1' if machine.cgroup == 'v1' else '0'}"
        )
        if image.guest.legacy_cgroup_force:
            words.append("SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1")
    return " ".join([*words, *machine.append.split()])


def qemu_command(
    image: Image, machine: Machine, lab: Path, results: Path, ports: Ports
) -> list[str]:
    """The whole command line. The disk is a snapshot: nothing a guest does is kept."""
    emulator = _EMULATORS[image.guest.arch]
    command = [
        need(emulator.program, emulator.package),
        *(*emulator.board, "-accel", "tcg,thread=multi,tb-size=1024"),
        *("-smp", str(machine.cpus), "-m", str(machine.memory_mb)),
        *("-display", "none", "-vga", "none", "-monitor", "none", "-no-reboot", "-nodefaults"),
        *("-serial", f"file:{results / 'console.log'}"),
        *("-drive", f"file={image.disk},format=raw,if=virtio,cache=unsafe,snapshot=on"),
        *("-device", "virtio-rng-pci", "-device", "virtio-serial-pci"),
    ]
    for name, descriptor in (("output", ports.output), ("status", ports.status)):
        command += ["-chardev", f"socket,id={name},fd={descriptor}"]
        command += ["-device", f"virtserialport,chardev={name},name=so1.{name}"]
    if machine.interactive:
        command += ["-chardev", "stdio,id=tty,signal=off", "-device", "virtconsole,chardev=tty"]
    for tag, path, readonly in (
        ("lab", lab, True),
        ("results", results, False),
        *((tag, path, True) for tag, path in machine.shares),
    ):
        command += [
            "-virtfs",
            f"local,path={path},mount_tag={tag},security_model=none,multidevs=remap"
            + (",readonly=on" if readonly else ""),
        ]
    if machine.network:
        command += ["-nic", "user,model=virtio-net-pci"]
    if machine.kernel is None:
        command += ["-kernel", str(image.kernel), "-initrd", str(image.initrd)]
    else:
        command += ["-kernel", str(machine.kernel)]
    return [*command, "-append", kernel_arguments(image, machine)]


def boot(
    image: Image,
    machine: Machine,
    lab: Path,
    results: Path,
    write: Callable[[bytes], None],
) -> int:
    """Run the command that lies in `lab`; return its status, give its output to `write` live.

    LostGuestError when the guest ends first, GuestTimeoutError after `machine.timeout_s`. QEMU is
    gone in any case when this returns.
    """
    begun = time.monotonic()
    progress = Progress()
    with ExitStack() as stack:
        ours_output, its_output = _socket_pair(stack)
        ours_status, its_status = _socket_pair(stack)
        ports = Ports(its_output.fileno(), its_status.fileno())
        log = stack.enter_context((results / "qemu.log").open("wb"))
        qemu = subprocess.Popen(
            # It must not outlive us: the lock that keeps guests apart goes with this process.
            [
                *(need("setpriv", "util-linux"), "--pdeathsig", "KILL", "--"),
                *qemu_command(image, machine, lab, results, ports),
            ],
            stdin=None if machine.interactive else subprocess.DEVNULL,
            stdout=None if machine.interactive else log,
            stderr=log,
            env=clean_environment(),
            pass_fds=(ports.output, ports.status),
            start_new_session=not machine.interactive,
        )
        stack.callback(_end, qemu)
        its_output.close()
        its_status.close()
        in_time = _follow(ours_output, ours_status, progress, write, begun + machine.timeout_s)
        told = ", ".join(f"{name} after {uptime} s" for name, uptime in progress.phases.items())
        if progress.exit_status is not None:
            say(
                f"{image.guest.name}: {told}; "
                f"status {progress.exit_status} after {time.monotonic() - begun:.0f} s in all"
            )
            return progress.exit_status
        if not in_time:
            raise GuestTimeoutError(
                f"{image.guest.name} was still running after {machine.timeout_s:.0f} s "
                f"({told or 'it never came up'})",
                _last_words(results),
            )
        status = _end(qemu)
        raise LostGuestError(
            f"{image.guest.name} went away after {time.monotonic() - begun:.0f} s before its "
            f"command had ended ({told or 'it never came up'}; QEMU's status {status})",
            _last_words(results),
        )


def _socket_pair(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    ours, its = socket.socketpair()
    return stack.enter_context(ours), stack.enter_context(its)


def _follow(
    output: socket.socket,
    status: socket.socket,
    progress: Progress,
    write: Callable[[bytes], None],
    deadline: float,
) -> bool:
    """Read both ports until the guest told its status or is gone; False when time was up."""
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        selector.register(status, selectors.EVENT_READ)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            # Output first: what came before the status must be out before we leave.
            ready = {key.fileobj for key, _ in selector.select(left)}
            for port in (output, status):
                if port not in ready:
                    continue
                data = port.recv(_CHUNK)
                if not data:
                    selector.unregister(port)
                elif port is output:
                    write(data)
                else:
                    progress.feed(data)
            if progress.exit_status is not None:
                _empty(output, write)
                return True
    return True


def _empty(port: socket.socket, write: Callable[[bytes], None]) -> None:
    port.setblocking(False)
    try:
        while data := port.recv(_CHUNK):
            write(data)
    except BlockingIOError:
        return


def _end(qemu: subprocess.Popen[bytes]) -> int:
    if qemu.poll() is None:
        qemu.terminate()
        try:
            return qemu.wait(_END_GRACE_S)
        except subprocess.TimeoutExpired:
            qemu.kill()
    return qemu.wait()


def _last_words(results: Path) -> str:
    """The end of the console, else of what QEMU said."""
    for name in ("console.log", "qemu.log"):
        path = results / name
        if path.exists() and path.stat().st_size:
            return f"{path}:\n{tail(path.read_text(encoding='utf-8', errors='replace'))}"
    return f"nothing in {results}"


def write_to_stdout(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def terminal_settings() -> dict[str, str]:
    """The size and kind of this terminal, for an interactive guest."""
    size = os.get_terminal_size()
    return {
        "LAB_ROWS": str(size.lines),
        "LAB_COLUMNS": str(size.columns),
        "LAB_TERM": os.environ.get("TERM", "linux"),
    }
