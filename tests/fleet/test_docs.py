"""docs/fleet.md says of the schema what is true of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from agent.fleet.streams import ALL_STREAMS
from tests.fleet.programs import PROJECT

if TYPE_CHECKING:
    from tests.fleet.conftest import Centre

PAGE = (PROJECT / "docs/fleet.md").read_text(encoding="utf-8")
KEPT_WHOLE = {"ranges", "settings"}


def test_every_stream_is_in_the_table_of_what_travels() -> None:
    for stream in ALL_STREAMS:
        kind, _, level = stream.name.partition("_")
        assert f"`{stream.name}`" in PAGE or f"`_{level}`" in PAGE, stream.name
        assert f"`{kind}" in PAGE


def test_the_statements_for_citus_name_every_table_and_keys_are_as_it_wants_them(
    lasting_centre: Centre,
) -> None:
    """Citus itself is in no Debian release: what it asks of a schema is what can be checked."""
    named = set(re.findall(r"create_(?:distributed|reference)_table\('so1\.(\w+)'", PAGE))
    tables = {
        name
        for (name,) in lasting_centre.ask(
            "SELECT relname FROM pg_class WHERE relnamespace = 'so1'::regnamespace"
            " AND relkind IN ('r', 'p') AND NOT relispartition"
        )
    }
    assert named | {stream.name for stream in ALL_STREAMS} == tables
    keys = lasting_centre.ask(
        "SELECT c.relname, array_agg(a.attname::text) FROM pg_index i"
        " JOIN pg_class c ON c.oid = i.indrelid AND c.relnamespace = 'so1'::regnamespace"
        " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY(i.indkey)"
        " WHERE i.indisunique AND NOT c.relispartition GROUP BY c.relname, i.indexrelid"
    )
    assert {name for name, _ in keys} == tables
    for name, columns in keys:
        assert name in KEPT_WHOLE or "installation" in columns, name
