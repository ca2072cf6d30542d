"""`deletions` numbers its rows for good: an emptied table would begin at 1 again otherwise.

What is shipped to a centre is told apart by its id. The other shipped tables have it from the
beginning.
"""

from __future__ import annotations

import re
from typing import Any

_PRIMARY_KEY = re.compile(r"\bid INTEGER NOT NULL PRIMARY KEY\b")


def up(_migrator: Any, database: Any) -> None:
    rows = database.execute_sql(
        "SELECT type, sql FROM sqlite_master WHERE tbl_name = 'deletions' AND sql IS NOT NULL"
    ).fetchall()
    (made,) = (sql for kind, sql in rows if kind == "table")
    if "AUTOINCREMENT" in made.upper():
        return
    fresh, changed = _PRIMARY_KEY.subn("id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT", made)
    fresh, named = re.subn(r"\bdeletions\b", "deletions_numbered", fresh, count=1)
    if (changed, named) != (1, 1):
        raise ValueError("the table deletions is not as a migration made it")
    # All of it or nothing: a full disk or a kill in the middle leaves the table as it was.
    database.execute_sql("PRAGMA legacy_alter_table = ON")  # views over it are no obstacle
    try:
        with database.atomic():
            database.execute_sql(fresh)
            database.execute_sql("INSERT INTO deletions_numbered SELECT * FROM deletions")
            database.execute_sql("DROP TABLE deletions")
            database.execute_sql("ALTER TABLE deletions_numbered RENAME TO deletions")
            for kind, sql in rows:
                if kind == "index":
                    database.execute_sql(sql)
    finally:
        database.execute_sql("PRAGMA legacy_alter_table = OFF")
