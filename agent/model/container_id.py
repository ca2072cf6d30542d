"""The full id of a container: 64 hexadecimal digits, as every engine gives it. Pure."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

LENGTH = 64
PATTERN = rf"[0-9a-f]{{{LENGTH}}}"

FullId = Annotated[str, msgspec.Meta(pattern=rf"\A{PATTERN}\Z")]
"""For the shapes of an engine's answers."""

_WHOLE = re.compile(PATTERN)
_WITHIN = re.compile(rf"(?<![0-9a-f]){PATTERN}(?![0-9a-f])")


def is_full_id(value: object) -> bool:
    """Whether it is a full id and nothing else."""
    return isinstance(value, str) and _WHOLE.fullmatch(value) is not None


def ids_in(text: str) -> list[str]:
    """Every full id in a text, in order; a longer run of digits holds none."""
    return _WITHIN.findall(text) if len(text) >= LENGTH else []
