"""One row of `agent doctor`, and what its four states mean."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

AS_ROOT = "sudo agent doctor"


class State(StrEnum):
    OK = "ok"
    DEGRADED = "degraded"
    """The agent runs, with less."""
    MISSING = "missing"
    """The main job cannot run."""
    UNKNOWN = "unknown"
    """It could not be looked at."""


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, how it is, and the remedy ("" where nothing has to be)."""

    name: str
    state: State
    finding: str
    remedy: str = ""


def look_again(*, root: bool, else_by: str) -> str:
    """What helps where something could not be looked at: to be root, or for root `else_by`."""
    return else_by if root else AS_ROOT
