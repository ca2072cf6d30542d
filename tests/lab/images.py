"""Whoever wants a guest's image asks here: it is made as the guest's row of `guests` needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import foreign, kernels

if TYPE_CHECKING:
    from .guests import Guest
    from .image import Image


def image_key(guest: Guest) -> str:
    return foreign.image_key(guest) if foreign.is_foreign(guest) else kernels.image_key(guest)


def obtain_image(guest: Guest) -> Image:
    """The image of `guest`, from the cache or built now (minutes, and the network)."""
    if foreign.is_foreign(guest):
        return foreign.obtain_image(guest)
    return kernels.obtain_image(guest)
