"""Histories that the centre does not know: clones, old copies, gaps, other versions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from agent.fleet import centre as administration
from agent.fleet import entrance, shipper
from agent.fleet.connection import connected
from agent.fleet.errors import FleetError
from agent.fleet.local import FILE_NAME, read_state
from agent.fleet.schema import OWNER
from agent.fleet.shipper import Identity, flush
from agent.fleet.streams import REMOVALS, STOPS, STREAMS
from tests.fleet.host import make_history
from tests.fleet.test_shipping import fill, now_ms, same

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fleet.conftest import Centre
    from tests.fleet.host import Host


def test_a_clone_begins_an_epoch_where_the_two_parted(
    host: Host, centre: Centre, tmp_path: Path
) -> None:
    fill(host, 10)
    host.flush()
    clone = host.copy(tmp_path / "clone")
    fill(host, 3, "original")
    host.flush()
    clone.written += 1000
    fill(clone, 5, "clone")
    clone.flush()
    fill(host, 2, "original")
    host.flush()
    fill(clone, 2, "clone")
    clone.flush()
    assert centre.epochs(host) == ["first", "fork"]
    for stream in STREAMS:
        expected = host.rows(stream) + clone.rows(stream)[10:]
        assert centre.rows(stream, host) == expected
    assert centre.gaps(host) == []


def test_a_clone_without_its_state_finds_where_the_two_parted(
    host: Host, centre: Centre, tmp_path: Path
) -> None:
    fill(host, 40)
    host.flush()
    clone = host.copy(tmp_path / "clone")
    clone.lose_state()
    fill(host, 9, "original")
    host.flush()
    clone.written += 1000
    fill(clone, 25, "clone")
    clone.flush()
    assert centre.epochs(host) == ["first", "fork"]
    for stream in STREAMS:
        assert centre.rows(stream, host) == host.rows(stream) + clone.rows(stream)[40:]


@pytest.mark.parametrize("with_state", [True, False], ids=["whole disk", "database alone"])
def test_an_old_copy_brought_back_is_a_fork_and_doubles_nothing(
    host: Host, centre: Centre, tmp_path: Path, with_state: bool
) -> None:
    fill(host, 10)
    host.flush()
    old = host.copy(tmp_path / "old")
    fill(host, 6, "lost")
    host.flush()
    before = {stream.name: host.rows(stream) for stream in STREAMS}
    if not with_state:
        (old.directory / FILE_NAME).write_bytes(host.state.read_bytes())
    old.written += 1000
    fill(old, 4, "again")
    old.flush()
    assert centre.epochs(host) == ["first", "fork"]
    for stream in STREAMS:
        assert centre.rows(stream, host) == before[stream.name] + old.rows(stream)[10:]


def test_a_database_that_was_begun_anew_has_an_epoch_of_its_own(host: Host, centre: Centre) -> None:

    fill(host, 10)
    host.flush()
    before = {stream.name: host.rows(stream) for stream in STREAMS}
    for path in host.directory.glob("metrics.db*"):
        path.unlink()
    make_history(host.database)
    fill(host, 12, "new")
    host.flush()
    assert centre.epochs(host) == ["first", "begun again"]
    for stream in STREAMS:
        assert centre.rows(stream, host) == before[stream.name] + host.rows(stream)


def test_rows_that_went_before_they_were_shipped_are_a_gap_that_says_which(
    host: Host, centre: Centre
) -> None:
    fill(host, 5)
    host.flush()
    fill(host, 10)
    host.run("DELETE FROM deletions WHERE id <= 9")
    host.run("DELETE FROM deletions WHERE id = 12")
    host.flush()
    assert centre.gaps(host) == [("removals", 6, 9), ("removals", 12, 12)]
    assert [row[0] for row in centre.rows(REMOVALS, host)] == [*range(1, 6), 10, 11, 13, 14, 15]


def test_retention_may_take_what_is_shipped_and_nothing_else(host: Host) -> None:
    fill(host, 5)
    with pytest.raises(FleetError):
        flush(host.database, host.dsn, Identity(host.installation, "x" * 43))
    assert read_state(host.directory).safe_before_ms == 0
    host.flush()
    safe_ms = read_state(host.directory).safe_before_ms
    assert safe_ms > 0
    fill(host, 5)
    with pytest.raises(FleetError):
        flush(host.database, host.dsn, Identity(host.installation, "x" * 43))
    assert read_state(host.directory).safe_before_ms == safe_ms
    assert min(row[1] for stream in STREAMS for row in host.rows(stream) if row[0] > 5) > safe_ms


def test_a_flush_that_stops_at_its_bound_holds_the_rest(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipper, "MAX_ROWS", 7)
    fill(host, 10)
    host.flush()
    assert read_state(host.directory).safe_before_ms == host.rows(REMOVALS)[7][1]


def test_an_emptied_table_goes_on_counting_and_leaves_a_gap(host: Host, centre: Centre) -> None:
    fill(host, 5)
    host.flush()
    fill(host, 4)
    host.run("DELETE FROM deletions")
    host.flush()
    fill(host, 2)
    host.flush()
    assert centre.epochs(host) == ["first"]
    assert centre.gaps(host) == [("removals", 6, 9)]
    assert [row[0] for row in centre.rows(REMOVALS, host)] == [1, 2, 3, 4, 5, 10, 11]


def test_rows_of_a_clock_in_2036_are_kept_apart_and_stop_nothing(
    host: Host, centre: Centre
) -> None:
    fill(host, 2)
    for stream in STREAMS:
        host.write(stream, 3, 2_090_000_000_000)
    for stream in STREAMS:
        host.write(stream, 1, 1_000_000_000_000)
    host.flush()
    fill(host, 2)
    host.flush()
    assert centre.gaps(host) == []
    apart = centre.ask("SELECT stream, id FROM so1.out_of_range ORDER BY 1, 2")
    assert apart == [(one, at) for one in sorted(s.name for s in STREAMS) for at in (3, 4, 5, 6)]
    for stream in STREAMS:
        assert [row[0] for row in centre.rows(stream, host)] == [1, 2, 7, 8]
    (content,) = centre.ask(
        "SELECT content FROM so1.out_of_range WHERE stream = 'removals' AND id = 3"
    )[0]
    (row,) = host.run("SELECT * FROM deletions WHERE id = 3")
    assert content["decision"] == row[2]
    assert content["held_mb"] == row[9]
    assert host.flush().rows == 0


def test_an_older_agents_history_ships_what_it_has(host: Host, centre: Centre) -> None:
    for (view,) in host.run("SELECT name FROM sqlite_master WHERE type = 'view'"):
        host.run(f"DROP VIEW {view}")
    for stream in STREAMS:
        if stream is not REMOVALS:
            host.run(f"DROP TABLE {stream.table}")
    host.run("ALTER TABLE deletions DROP COLUMN available_after_mb")
    host.write(STREAMS[0], 0, now_ms())
    host.run(
        "INSERT INTO deletions (timestamp, decision, container_id, container_name, image, tier,"
        " rank, reason, held_mb, cpu_usage, outcome, duration_ms, error, available_before_mb)"
        " VALUES (?, 'd', 'c', 'n', 'i', 'low', 1, 'exited', 1.5, 0, 'removed', 5, '', 7)",
        now_ms(),
    )
    assert host.flush().rows == 1
    (row,) = centre.rows(REMOVALS, host)
    after_mb = [one.name for one in REMOVALS.columns].index("available_after_mb") + 2
    assert (row[2], row[9], row[after_mb]) == ("d", 1.5, None)
    assert host.flush().rows == 0


def test_an_agent_older_than_the_centre_leaves_new_columns_empty(
    host: Host, centre: Centre, monkeypatch: pytest.MonkeyPatch
) -> None:

    older = replace(STOPS, columns=())
    monkeypatch.setattr(shipper, "ALL_STREAMS", (older,))
    monkeypatch.setattr(shipper, "chosen", lambda _options: (older,))
    host.write(STOPS, 2, now_ms())
    host.flush()
    assert [row[2] for row in centre.rows(STOPS, host)] == [None, None]


def before_the_rules(centre: Centre) -> None:
    """The centre as an agent of before the rules made it."""

    older = replace(REMOVALS, columns=REMOVALS.columns[:-3])
    centre.ask("DROP FUNCTION so1_api.ingest_removals")
    centre.ask("DROP VIEW so1.at_removals")
    for name in ("action", "rule", "engine"):
        centre.ask(f"ALTER TABLE so1.removals DROP COLUMN {name}")
    centre.ask(entrance.ingest(older))
    centre.ask(f"ALTER FUNCTION so1_api.ingest_removals OWNER TO {OWNER}")
    centre.ask("GRANT EXECUTE ON FUNCTION so1_api.ingest_removals TO so1_agent")


def test_a_centre_of_before_the_rules_takes_what_it_knows_and_init_brings_it_up_to_date(
    host: Host, centre: Centre
) -> None:

    before_the_rules(centre)
    fill(host, 2)
    host.flush()
    assert centre.ask("SELECT count(*), min(error) FROM so1.removals")[0][0] == 2
    with connected(centre.dsn()) as connection:
        administration.initialise(connection)
    assert centre.ask("SELECT DISTINCT rule FROM so1.removals") == [(None,)]
    host.write(REMOVALS, 1, now_ms())
    host.flush()
    (sent,) = host.rows(REMOVALS)[2:]
    assert centre.rows(REMOVALS, host)[2] == sent
    assert sent[-2].startswith("x rule")


def test_a_host_that_was_forgotten_and_enrolled_again_ships_everything_anew(
    host: Host, centre: Centre
) -> None:

    fill(host, 4)
    host.flush()
    with connected(centre.dsn()) as connection:
        assert administration.forget(connection, host.installation) == 4 * len(STREAMS)
        assert [centre.rows(stream, host) for stream in STREAMS] == [[]] * len(STREAMS)
        with pytest.raises(FleetError):
            host.flush()
        host.secret = administration.enroll(connection, host.installation, "again")
    host.flush()
    same(host, centre)
    assert centre.epochs(host) == ["begun again"]
