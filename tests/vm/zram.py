"""Compressed swap in memory, for tests in a guest."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.containers import wait_until

_DEVICE = Path("/dev/zram0")


@contextmanager
def zram(size_mb: int) -> Iterator[Path]:
    """The device, in use as swap meanwhile; the module is unloaded behind it."""
    subprocess.run(["modprobe", "zram", "num_devices=1"], check=True)
    Path("/sys/block/zram0/disksize").write_text(f"{size_mb << 20}", encoding="ascii")
    subprocess.run(["mkswap", _DEVICE], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["swapon", _DEVICE], check=True)
    try:
        yield _DEVICE
    finally:
        subprocess.run(["swapoff", _DEVICE], check=True)
        # udev may still look at it.
        wait_until(
            lambda: subprocess.run(["rmmod", "zram"], check=False).returncode == 0,
            "zram is unloaded",
        )
