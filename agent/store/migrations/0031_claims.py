"""Which rule claims a container, beside its figures; NULL in rows of before."""

from __future__ import annotations

from typing import Any


def up(_migrator: Any, database: Any) -> None:
    database.execute_sql("ALTER TABLE container_totals ADD COLUMN rule TEXT")
