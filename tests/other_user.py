"""Another user than root, for tests of what somebody without rights is told."""

from __future__ import annotations

from pathlib import Path

import pytest

NOBODY = 65534
_PROJECT = Path(__file__).resolve().parents[1]


def need_readable_checkout() -> None:
    """Skips where others cannot reach this checkout: a clone in root's home, for one."""
    if not all(parent.stat().st_mode & 0o005 for parent in _PROJECT.parents):
        pytest.skip(f"needs a checkout that other users can read, not {_PROJECT}")
