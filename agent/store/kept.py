"""States that are stored with whatever is written next: the outbox, the policy's arming."""

from __future__ import annotations

import sqlite3
from typing import Protocol


class KeptState(Protocol):
    """A state of its owner's that each write takes along."""

    def write(self, connection: sqlite3.Connection) -> None:
        """Within the transaction. Raises sqlite3's errors."""

    def written(self) -> None:
        """It is committed."""
