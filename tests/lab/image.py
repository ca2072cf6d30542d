"""Turns a distribution's tree into an image that boots: lab unit, virtual environment, ext4 file.

Made in seconds from the tree of `bootstrap`, so a change of the requirements does not cost a
debootstrap. The tree stays beside the image: kernel modules are built in it, natively.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import cache
from .bootstrap import PIP_NETWORK, base_key, in_tree, make_base
from .errors import LabError
from .process import need, run, step

if TYPE_CHECKING:
    from .guests import Guest

PROJECT = Path(__file__).resolve().parents[2]
VENV = "/opt/so1/venv"
IMAGES_IN_GUEST = "/opt/so1-lab/images"
_MINUTES = 60
_SIZE = "8G"
_REQUIREMENTS = ("run.txt", "test.txt")
# Timers and waits that a throw-away guest has no use for; Docker and cron stay as on any host.
_MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dkms.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "man-db.timer",
    "modprobe@drm.service",
    "podman.service",
    "podman.socket",
    "podman-auto-update.service",
    "podman-auto-update.timer",
    "podman-clean-transient.service",
    "podman-restart.service",
    # A getty there hangs the line up and takes the console's last output with it.
    "serial-getty@ttyS0.service",
    "systemd-networkd-wait-online.service",
)
_PATH_IN_CONTAINERS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Image:
    """A built guest: the disk, what QEMU boots it with, and the tree it was made from."""

    guest: Guest
    directory: Path
    kernel_release: str

    @property
    def disk(self) -> Path:
        return self.directory / "image.ext4"

    @property
    def tree(self) -> Path:
        return self.directory / "root"

    @property
    def kernel(self) -> Path:
        return self.tree / f"boot/vmlinuz-{self.kernel_release}"

    @property
    def initrd(self) -> Path:
        return self.tree / f"boot/initrd.img-{self.kernel_release}"


def image_key(guest: Guest) -> str:
    requirements = [PROJECT / "requirements" / name for name in _REQUIREMENTS]
    unit = Path(__file__).parent / "guest" / "so1-lab.service"
    return cache.key([base_key(guest), *requirements, unit, Path(__file__)])


def obtain_image(guest: Guest) -> Image:
    """The image of `guest`, from the cache or built now (minutes, and the network)."""
    parent = cache.directory() / guest.name
    directory = parent / f"image-{image_key(guest)}"
    if not directory.is_dir():
        with cache.lock("build", f"building {guest.name}"):

            def from_base(aside: Path) -> None:
                base = cache.obtain(
                    parent, "base", base_key(guest), lambda to: make_base(guest, to)
                )
                _make_image(guest, base / "root", aside)

            directory = cache.obtain(parent, "image", image_key(guest), from_base)
    return Image(guest, directory, newest_kernel(directory / "root"))


def newest_kernel(tree: Path) -> str:
    """The release of the newest kernel in the tree's /boot (`lib/modules` has more names)."""

    def version(release: str) -> list[tuple[int, str]]:
        return [(int(part or 0), word) for part, word in re.findall(r"(\d*)(\D*)", release)]

    releases = [path.name.removeprefix("vmlinuz-") for path in tree.glob("boot/vmlinuz-*")]
    if not releases:
        raise LabError(f"{tree} has no kernel", "remove the cached image and build it again")
    return max(releases, key=version)


def _make_image(guest: Guest, base: Path, aside: Path) -> None:
    root, log = aside / "root", aside / "build.log"
    with step(f"{guest.name}: virtual environment and settings"):
        # Hard links: nothing below writes into a file of the base, it only replaces or adds.
        run(["cp", "-al", base, root], timeout_s=10 * _MINUTES, log=log)
        _make_settings(guest, root)
        if not guest.fresh:
            _make_venv(root, log)
            _make_stand_ins(root, aside / "stand-ins", log)
    with step(f"{guest.name}: image"):
        # No journal and no lazy initialisation: a guest's disk is thrown away after each run.
        run(
            [
                need("mke2fs", "e2fsprogs"),
                "-q",
                "-t",
                "ext4",
                "-O",
                "^has_journal",
                "-E",
                "lazy_itable_init=0,root_owner=0:0",
                "-L",
                "so1-lab",
                "-d",
                root,
                aside / "image.ext4",
                _SIZE,
            ],
            timeout_s=10 * _MINUTES,
            log=log,
        )


def _make_venv(root: Path, log: Path) -> None:
    # System site packages: BCC is the distribution's and knows only the distribution's Python.
    in_tree(
        root,
        ["/usr/bin/python3", "-m", "venv", "--system-site-packages", VENV],
        timeout_s=5 * _MINUTES,
        log=log,
    )
    requirements = PROJECT / "requirements"
    for name in _REQUIREMENTS:
        in_tree(
            root,
            [
                *(f"{VENV}/bin/pip", "install", "-q", "--require-hashes", "--no-cache-dir"),
                *("-r", f"/run/requirements/{name}"),
            ],
            timeout_s=15 * _MINUTES,
            log=log,
            network=PIP_NETWORK,
            binds={requirements: "/run/requirements"},
        )


def _make_settings(guest: Guest, root: Path) -> None:
    # debootstrap leaves this machine's own resolver and name in the tree.
    _replace(root / "etc/resolv.conf", "")
    _replace(root / "etc/hostname", f"{guest.name}\n")
    _replace(root / "etc/hosts", f"127.0.0.1 localhost {guest.name}\n::1 localhost\n")
    _replace(root / "etc/fstab", "")
    _replace(root / "etc/systemd/journald.conf.d/so1-lab.conf", "[Journal]\nStorage=volatile\n")
    units = root / "etc/systemd/system"
    for name in _MASKED:
        (units / name).unlink(missing_ok=True)
        (units / name).symlink_to("/dev/null")
    unit = Path(__file__).parent / "guest" / "so1-lab.service"
    _replace(units / unit.name, unit.read_text(encoding="utf-8"))
    wanted = units / "multi-user.target.wants"
    wanted.mkdir(exist_ok=True)
    (wanted / unit.name).symlink_to(f"/etc/systemd/system/{unit.name}")
    for name in ("lab", "results"):
        (root / name).mkdir()
    _spare_the_boot(root)


def _spare_the_boot(root: Path) -> None:
    """Leave out what would take an emulated CPU ten seconds at each boot and tests nothing.

    AppArmor compiles its profiles for the running kernel (Docker loads its own, which stays), and
    systemd updates its caches in a tree whose /usr is newer than its stamps.
    """
    profiles = root / "etc/apparmor.d"
    disabled = profiles / "disable"
    disabled.mkdir(exist_ok=True)
    for profile in profiles.iterdir():
        if profile.is_file() and not (disabled / profile.name).is_symlink():
            (disabled / profile.name).symlink_to(f"/etc/apparmor.d/{profile.name}")
    in_tree(root, ["touch", "/etc/.updated", "/var/.updated"], timeout_s=_MINUTES)


def _replace(path: Path, text: str) -> None:
    """Write a new file: the old one may be a hard link into the base."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(text, encoding="utf-8")


def _make_stand_ins(root: Path, work: Path, log: Path) -> None:
    """Two small container images as tar files: there is no registry that a guest could reach.

    `alpine` is a static busybox; `stress` is the same with Debian's stress and its libraries.
    """
    target = root / IMAGES_IN_GUEST.lstrip("/")
    target.mkdir(parents=True)
    busybox = next(
        path for path in (root / "usr/bin/busybox", root / "bin/busybox") if path.exists()
    )
    alpine, stress = work / "alpine", work / "stress"
    for tree in (alpine, stress):
        for name in ("bin", "dev", "etc", "proc", "root", "sys", "tmp", "usr/bin"):
            (tree / name).mkdir(parents=True)
        (tree / "tmp").chmod(0o1777)
        shutil.copy2(busybox, tree / "bin/busybox")
        applets = in_tree(root, ["busybox", "--list"], timeout_s=_MINUTES).split()
        for applet in applets:
            if applet != "busybox":
                (tree / "bin" / applet).symlink_to("busybox")
    shutil.copy2(root / "usr/bin/stress", stress / "usr/bin/stress")
    for library in re.findall(
        r"/\S+", in_tree(root, ["ldd", "/usr/bin/stress"], timeout_s=_MINUTES)
    ):
        inside = stress / library.lstrip("/")
        inside.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2((root / library.lstrip("/")).resolve(), inside)
    for tree in (alpine, stress):
        run(
            ["tar", "-C", tree, "--owner=0", "--group=0", "-cf", target / f"{tree.name}.tar", "."],
            timeout_s=_MINUTES,
            log=log,
        )
    cache.remove_tree(work)
