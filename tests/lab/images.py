"""Whoever wants a guest's image asks here: it is made as the guest's row of `guests` needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import cache, foreign, kernels
from .bootstrap import base_key, make_base

if TYPE_CHECKING:
    from pathlib import Path

    from .guests import Guest
    from .image import Image


def image_key(guest: Guest) -> str:
    return foreign.image_key(guest) if foreign.is_foreign(guest) else kernels.image_key(guest)


def obtain_image(guest: Guest) -> Image:
    """The image of `guest`, from the cache or built now (minutes, and the network)."""
    if foreign.is_foreign(guest):
        return foreign.obtain_image(guest)
    return kernels.obtain_image(guest)


def obtain_base(guest: Guest) -> Path:
    """The directory with `root`, the guest's tree without the agent, from the cache or built now.

    LabError where it cannot be built.
    """
    parent, key = cache.directory() / guest.name, base_key(guest)
    # A name that exists is whole: nothing that is being built meanwhile has to be waited for.
    there = parent / f"base-{key}"
    if there.is_dir():
        return there
    with cache.lock("build", f"the tree of {guest.name}"):
        return cache.obtain(parent, "base", key, lambda to: make_base(guest, to))
