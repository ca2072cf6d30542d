"""How a guest is booted, and what its phases and ports make of a run."""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.lab import vm
from tests.lab.errors import LabError
from tests.lab.guests import find_guest
from tests.lab.image import Image
from tests.lab.vm import Machine, Ports, Progress, kernel_arguments, qemu_command


@pytest.fixture(autouse=True)
def qemu_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vm, "need", lambda program, package: f"/usr/bin/{program}")


def image(name: str = "debian12") -> Image:
    return Image(find_guest(name), Path("/cache/image"), "6.1.0-50-amd64")


def command(machine: Machine) -> str:
    return " ".join(qemu_command(image(), machine, Path("/share"), Path("/results"), Ports(7, 8)))


def test_nothing_that_a_guest_does_to_its_disk_is_kept() -> None:
    assert "file=/cache/image/image.ext4,format=raw,if=virtio,cache=unsafe,snapshot=on" in command(
        Machine()
    )


def test_the_share_is_read_only_and_the_results_are_not() -> None:
    words = qemu_command(image(), Machine(), Path("/share"), Path("/results"), Ports(7, 8))
    (share,) = [word for word in words if "mount_tag=lab" in word]
    (results,) = [word for word in words if "mount_tag=results" in word]
    assert "path=/share" in share
    assert share.endswith("readonly=on")
    assert "readonly" not in results


def test_a_guest_has_no_network_unless_asked_for() -> None:
    assert "-nic" not in command(Machine())
    assert "-nic user" in command(Machine(network=True))


def test_another_kernel_boots_without_an_initrd() -> None:
    assert "-initrd /cache/image/root/boot/initrd.img-6.1.0-50-amd64" in command(Machine())
    debug = command(Machine(kernel=Path("/k/bzImage")))
    assert "-kernel /k/bzImage" in debug
    assert "-initrd" not in debug


def test_memory_cpus_and_more_kernel_arguments_reach_qemu() -> None:
    line = command(Machine(memory_mb=6144, cpus=1, append="a=1 b=2"))
    assert "-smp 1 -m 6144" in line
    assert line.endswith("a=1 b=2")


@pytest.mark.parametrize(
    ("guest", "cgroup", "expected"),
    [
        ("debian12", "v2", ["systemd.unified_cgroup_hierarchy=1"]),
        (
            "debian12",
            "v1",
            [
                "systemd.unified_cgroup_hierarchy=0",
                "systemd.legacy_systemd_cgroup_controller=1",
            ],
        ),
        (
            "debian12",
            "hybrid",
            [
                "systemd.unified_cgroup_hierarchy=0",
                "systemd.legacy_systemd_cgroup_controller=0",
            ],
        ),
        (
            "debian13",
            "v1",
            [
                "systemd.unified_cgroup_hierarchy=0",
                "systemd.legacy_systemd_cgroup_controller=1",
                "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1",
            ],
        ),
    ],
)
def test_each_cgroup_layout_has_its_kernel_arguments(
    guest: str, cgroup: str, expected: list[str]
) -> None:
    words = kernel_arguments(image(guest), Machine(cgroup=cgroup)).split()
    assert [word for word in words if "cgroup" in word.lower()] == expected


def test_a_layout_that_a_guest_has_not_is_refused_before_it_boots() -> None:
    without = replace(image(), guest=replace(find_guest("debian12"), cgroup_v1=False))
    with pytest.raises(LabError, match="has no cgroup v1"):
        kernel_arguments(without, Machine(cgroup="v1"))


def test_a_kernel_that_panics_or_oopses_ends_the_guest() -> None:
    words = kernel_arguments(image(), Machine()).split()
    assert {"panic=-1", "oops=panic"} <= set(words)
    assert "-no-reboot" in command(Machine())


def test_progress_is_read_whatever_the_pieces_it_comes_in() -> None:
    progress = Progress()
    for piece in (b"phase up 2", b"3.95\nphase rea", b"dy 25.50\nex", b"it 3", b"\n"):
        progress.feed(piece)
    assert progress.phases == {"up": "23.95", "ready": "25.50"}
    assert progress.exit_status == 3


def test_half_a_status_is_none() -> None:
    progress = Progress()
    progress.feed(b"exit 0")
    assert progress.exit_status is None
    progress.feed(b"garbage\nexit\nexit x\n")
    assert progress.exit_status is None


def follow(
    out: bytes, status: bytes, *, close: bool, timeout_s: float
) -> tuple[bool, Progress, bytes]:
    output, its_output = socket.socketpair()
    told, its_told = socket.socketpair()
    written: list[bytes] = []
    with output, its_output, told, its_told:
        its_output.sendall(out)
        its_told.sendall(status)
        if close:
            its_output.close()
            its_told.close()
        progress = Progress()
        in_time = vm._follow(output, told, progress, written.append, time.monotonic() + timeout_s)
    return in_time, progress, b"".join(written)


def test_all_output_that_came_before_the_status_is_written() -> None:
    in_time, progress, written = follow(b"x" * 100_000, b"exit 4\n", close=False, timeout_s=60)
    assert (in_time, progress.exit_status, len(written)) == (True, 4, 100_000)


def test_a_guest_that_goes_without_a_status_has_none() -> None:
    in_time, progress, written = follow(b"so far\n", b"phase up 1\n", close=True, timeout_s=60)
    assert (in_time, progress.exit_status, written) == (True, None, b"so far\n")


def test_a_guest_that_says_nothing_runs_out_of_time() -> None:
    in_time, progress, _ = follow(b"", b"", close=False, timeout_s=0)
    assert (in_time, progress.exit_status) == (False, None)
