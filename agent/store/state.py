"""How storing goes, for status and doctor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class StoreState:
    """Whether rows are being stored; `problem` is one sentence, empty while they are."""

    problem: str = ""
    unstored_ticks: int = 0
    quarantined: Path | None = None
    """Where the last damaged database was put, None where none was."""
    retention: str = ""
    """Why rows are not deleted by age at the moment, empty where they are."""

    @property
    def ok(self) -> bool:
        return not self.problem
