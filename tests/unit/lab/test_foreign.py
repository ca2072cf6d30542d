"""A guest of another architecture: its emulator, its packages, its image, and when it is run."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from tests.lab import foreign, images, kernels, vm
from tests.lab.guests import GUESTS, find_guest
from tests.lab.image import Image
from tests.lab.vm import Machine, Ports, kernel_arguments, qemu_command

ARM = find_guest("debian13-arm64")


@pytest.fixture(autouse=True)
def on_a_pc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


def test_it_is_emulated_as_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vm, "need", lambda program, package: f"/usr/bin/{program}")
    image = Image(ARM, Path("/cache/image"), "6.12.117-arm64")
    command = qemu_command(image, Machine(), Path("/share"), Path("/results"), Ports(7, 8))
    assert command[0] == "/usr/bin/qemu-system-aarch64"
    assert command[command.index("-M") + 1].startswith("virt")
    words = kernel_arguments(image, Machine()).split()
    assert "console=ttyAMA0" in words
    assert not [word for word in words if word.startswith("console=ttyS")]


def test_its_kernel_is_its_architectures_and_all_else_is_as_in_its_suites_guest() -> None:
    like = find_guest("debian13")
    differ = set(ARM.packages) ^ set(like.packages)
    assert differ == {
        f"linux-{what}-{arch}" for what in ("image", "headers") for arch in ("arm64", "amd64")
    }


def test_whether_it_is_foreign_goes_by_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [guest for guest in GUESTS.values() if foreign.is_foreign(guest)] == [ARM]
    assert images.image_key(ARM) != kernels.image_key(ARM)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert not foreign.is_foreign(ARM)
    assert foreign.is_foreign(find_guest("debian12"))


def test_test_sh_runs_it_in_full_only() -> None:
    script = (Path(__file__).parents[3] / "bash/test.sh").read_text(encoding="utf-8")
    names = " ".join(guest.name for guest in GUESTS.values() if foreign.is_foreign(guest))
    assert f"readonly foreign_guests=({names})" in script
    assert not [guest.name for guest in GUESTS.values() if guest.arch != "amd64" and guest.in_ci]
