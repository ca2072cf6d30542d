"""The image of a guest of another architecture than this machine's: arm64.

Its tree is made by its own programs under QEMU's user emulation, which the kernel's binfmt_misc
starts. That takes some ten times as long as a native tree. Whoever wants an image asks `images`.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING

from . import cache
from .bootstrap import (
    _DPKG_OPTIONS,
    _INITRD_MODULES,
    _POLICY,
    APT_NETWORK,
    _write,
    base_key,
    guest_apt_settings,
    in_tree,
    mirror,
)
from .errors import LabError
from .image import Image, _make_image, newest_kernel
from .image import image_key as suite_image_key
from .process import need, network_environment, run, step

if TYPE_CHECKING:
    from .guests import Guest

_MINUTES = 60
_DEBIAN = {"x86_64": "amd64", "aarch64": "arm64"}
_QEMU = {"amd64": "x86_64", "arm64": "aarch64"}
_BINFMT = Path("/proc/sys/fs/binfmt_misc")


def is_foreign(guest: Guest) -> bool:
    """Whether this machine's CPU cannot run the guest's programs itself."""
    return guest.arch != _DEBIAN.get(platform.machine())


def image_key(guest: Guest) -> str:
    return cache.key([suite_image_key(guest), guest.arch, Path(__file__)])


def obtain_image(guest: Guest) -> Image:
    """The image of `guest`, from the cache or built now (half an hour, and the network)."""
    parent = cache.directory() / guest.name
    key = image_key(guest)
    directory = parent / f"image-{key}"
    if not directory.is_dir():
        # A lock of its own: others' guests need not wait so long for one that is not theirs.
        with cache.lock(f"build-{guest.arch}", f"building {guest.name}"):
            let_the_kernel_start_its_programs(guest)

            def from_base(aside: Path) -> None:
                tree_key = cache.key([base_key(guest), guest.arch])
                base = cache.obtain(parent, "base", tree_key, lambda to: _make_base(guest, to))
                _make_image(guest, base / "root", aside)

            directory = cache.obtain(parent, "image", key, from_base)
    return Image(guest, directory, newest_kernel(directory / "root"))


def let_the_kernel_start_its_programs(guest: Guest) -> None:
    """Register QEMU's user emulation, as qemu-user-static does on a machine with systemd."""
    name = f"qemu-{_QEMU[guest.arch]}"
    rule = Path(f"/usr/lib/binfmt.d/{name}.conf")
    if not rule.exists():
        raise LabError(
            f"{name} for programs of {guest.arch} is missing", "apt-get install qemu-user-static"
        )
    if not (_BINFMT / "register").exists():
        run(["mount", "-t", "binfmt_misc", "binfmt_misc", _BINFMT], timeout_s=_MINUTES)
    if not (_BINFMT / name).exists():
        (_BINFMT / "register").write_bytes(rule.read_bytes().strip())


def _make_base(guest: Guest, aside: Path) -> None:
    """As bootstrap's, but for the architecture. Apart, so that no other image is made anew."""
    root, log = aside / "root", aside / "build.log"
    with step(f"{guest.name}: debootstrap {guest.suite} for {guest.arch}"):
        source = mirror()
        run(
            [
                need("debootstrap", "debootstrap"),
                "--variant=minbase",
                f"--arch={guest.arch}",
                guest.suite,
                root,
                *([source] if source else []),
            ],
            timeout_s=60 * _MINUTES,
            log=log,
            env=network_environment(),
        )
    with step(f"{guest.name}: {len(guest.packages)} packages and what they need"):
        policy = root / "usr/sbin/policy-rc.d"
        settings = root / "etc/apt/apt.conf.d/99so1-lab-build"
        _write(root / "etc/initramfs-tools/conf.d/so1-lab", "MODULES=list\n")
        _write(root / "etc/initramfs-tools/modules", _INITRD_MODULES)
        _write(root / "etc/dpkg/dpkg.cfg.d/so1-lab", _DPKG_OPTIONS)
        _write(policy, _POLICY, mode=0o755)
        _write(settings, guest_apt_settings(guest))
        apt = ["apt-get", "-q", "-y", "-o", "Dpkg::Options::=--force-confold"]
        for words, minutes in (
            (["update"], 10),
            (["install", "--no-install-recommends", *guest.packages], 90),
            (["clean"], 1),
        ):
            in_tree(
                root, [*apt, *words], timeout_s=minutes * _MINUTES, log=log, network=APT_NETWORK
            )
        policy.unlink()
        settings.unlink()
        cache.remove_tree(root / "var/lib/apt/lists")
        (root / "var/lib/apt/lists/partial").mkdir(parents=True)
