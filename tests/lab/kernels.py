"""The images of guests whose kernel is not their suite's own: a backport, a real-time kernel.

Such a guest is another in all but its kernel, so its tree is a copy of that one's, in which the
kernel's packages are exchanged. Whoever wants an image asks here; for every other guest the answer
is `image`'s.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from . import cache
from .bootstrap import APT_NETWORK, base_key, guest_apt_settings, in_tree, make_base
from .errors import LabError
from .guests import GUESTS
from .image import Image, _make_image, newest_kernel
from .image import image_key as suite_image_key
from .image import obtain_image as obtain_suite_image
from .process import run, step

if TYPE_CHECKING:
    from .guests import Guest, Kernel

_MINUTES = 60
_SETTINGS = "etc/apt/apt.conf.d/99so1-lab-kernel"
_SOURCE = "etc/apt/sources.list.d/so1-lab-kernel.list"
_POLICY = "usr/sbin/policy-rc.d"


def image_key(guest: Guest) -> str:
    if guest.kernel is None:
        return suite_image_key(guest)
    return cache.key(
        [suite_image_key(guest), *guest.kernel.packages, guest.kernel.suite, Path(__file__)]
    )


def obtain_image(guest: Guest) -> Image:
    """The image of `guest`, from the cache or built now (minutes, and the network)."""
    kernel = guest.kernel
    if kernel is None:
        return obtain_suite_image(guest)
    parent = cache.directory() / guest.name
    key = image_key(guest)
    directory = parent / f"image-{key}"
    if not directory.is_dir():
        with cache.lock("build", f"building {guest.name}"):

            def from_base(aside: Path) -> None:
                like = suite_guest(guest)
                base = cache.obtain(
                    cache.directory() / like.name,
                    "base",
                    base_key(like),
                    lambda to: make_base(like, to),
                )
                with tempfile.TemporaryDirectory(prefix=".kernel-", dir=parent) as place:
                    exchange_kernel(guest, kernel, base / "root", Path(place))
                    _make_image(guest, Path(place) / "root", aside)
                    cache.remove_tree(Path(place) / "root")

            directory = cache.obtain(parent, "image", key, from_base)
    return Image(guest, directory, newest_kernel(directory / "root"))


def suite_guest(guest: Guest) -> Guest:
    """The guest that `guest` is like; LabError where they are more than a kernel apart."""
    like = GUESTS.get(guest.like)
    if like is None or like.kernel is not None or base_key(like) != base_key(guest):
        raise LabError(
            f"{guest.name} is not {guest.like or 'any guest'} with another kernel",
            "give both the same suite and packages in tests/lab/guests.py",
        )
    return like


def exchange_kernel(guest: Guest, kernel: Kernel, base: Path, place: Path) -> None:
    """Copy the tree `base` to `place/root` and put `kernel` in its kernel's place there."""
    root, log = place / "root", place / "build.log"
    with step(f"{guest.name}: kernel {' '.join(kernel.packages)}"):
        # No hard links: package managers write into some of their files.
        run(["cp", "-a", "--reflink=auto", base, root], timeout_s=15 * _MINUTES, log=log)
        old = newest_kernel(root)
        (root / _SETTINGS).write_text(guest_apt_settings(guest), encoding="utf-8")
        (root / _POLICY).write_text("#!/bin/sh\nexit 101\n", encoding="utf-8")
        (root / _POLICY).chmod(0o755)
        if kernel.suite:
            sources = (root / "etc/apt/sources.list").read_text(encoding="utf-8")
            (root / _SOURCE).write_text(
                source_line(sources, guest.suite, kernel.suite), encoding="utf-8"
            )
        apt = ["apt-get", "-q", "-y", "--no-install-recommends"]
        for words, minutes in (
            (["update"], 10),
            (["install", *kernel.packages], 30),
            (["purge", f"linux-image-{old}", f"linux-headers-{old}"], 10),
            (["clean"], 1),
        ):
            in_tree(
                root, [*apt, *words], timeout_s=minutes * _MINUTES, log=log, network=APT_NETWORK
            )
        for name in (_SETTINGS, _SOURCE, _POLICY):
            (root / name).unlink(missing_ok=True)
        cache.remove_tree(root / "var/lib/apt/lists")
        (root / "var/lib/apt/lists/partial").mkdir(parents=True)


def source_line(sources: str, suite: str, other: str) -> str:
    """The line of `sources` for `suite`, with `other` in its place."""
    line = re.search(rf"^deb .*?\b{re.escape(suite)} .*$", sources, re.MULTILINE)
    if line is None:
        raise LabError(f"the tree's sources.list names no {suite}", sources)
    return line[0].replace(f"{suite} ", f"{other} ", 1) + "\n"
