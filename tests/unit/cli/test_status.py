"""The words that people read: every figure in its unit, every absence said, no name unescaped."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from agent.cli.views import status as render
from agent.model.attribution import AttributionCounts
from tests.unit.builders import status, tick_report, tick_status

if TYPE_CHECKING:
    from collections.abc import Mapping

NOW_MS = 1_700_000_075_000


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def rows(**changed: Any) -> Mapping[str, str]:
    return dict(render.status_rows(status(**changed), NOW_MS))


def test_a_tick_is_one_line_with_all_that_it_did() -> None:
    assert render.tick_line(tick_report()) == (
        "22:13:20 tick 3 · modules: 143 processes, 14 mapped (14 agree) · 5 containers"
        " · 4 removed · RAM 2.0 of 8.0 GB (25 %) · 412 ms"
    )


def test_a_tick_says_what_went_wrong() -> None:
    line = render.tick_line(
        tick_report(
            source="psutil",
            checks=AttributionCounts(agree=3, conflict=1, unverified=2, events_lost=9),
            container_count=None,
            failed=2,
        )
    )
    assert "psutil" in line
    assert "(3 agree, 1 conflict, 2 unverified)" in line
    assert "containers unknown (Docker is away)" in line
    assert "4 removed, 2 failed" in line
    assert "9 events lost" in line


def test_a_tick_that_could_not_be_stored_says_so_on_its_line() -> None:
    assert render.tick_line(tick_report(stored=False)).endswith(" ms · not stored")


def test_a_tick_without_containers_says_none() -> None:
    line = render.tick_line(tick_report(mapped=0, checks=AttributionCounts(), container_count=0))
    assert "0 mapped (none) · 0 containers" in line


@pytest.mark.parametrize(
    ("used", "total", "words"),
    [
        (0, 0, "0.0 of 0.0 GB (0 %)"),
        (1024 * 1024, 4 * 1024 * 1024, "1.0 of 4.0 GB (25 %)"),
        (1_992_294, 8_178_892, "1.9 of 7.8 GB (24 %)"),
    ],
)
def test_ram_is_in_gigabytes_of_1024_megabytes(used: int, total: int, words: str) -> None:
    assert render.ram(used, total) == words


def test_a_status_tells_since_when_what_and_how_it_goes() -> None:
    found = rows()
    assert found["agent"] == "running, pid 4242, since 2023-11-14 22:13:20 UTC"
    assert found["every"] == "20 s, scope managed"
    assert found["source"] == "modules"
    assert found["last tick"] == "number 3, 15 s ago, took 412 ms"
    assert found["processes"] == "143 read, 14 of them in containers"
    assert found["containers"] == "5 running (by tier: low 3, high 2, none 0)"
    assert found["attribution"] == "agree 14, conflict 0"
    assert found["RAM"] == "2.0 of 8.0 GB (25 %)"
    assert "not working" not in found


def test_a_status_before_the_first_tick_says_so() -> None:
    assert rows(tick=None)["last tick"] == "none yet"


def test_a_status_tells_a_dry_run_unstored_ticks_and_docker_away() -> None:
    found = rows(dry_run=True, unstored_ticks=7, tick=tick_status(container_count=None))
    assert "nothing is removed" in found["every"]
    assert "7 ticks not stored" in found["database"]
    assert "Docker does not answer" in found["containers"]


def test_each_thing_that_does_not_work_has_a_row_and_steers_no_terminal() -> None:
    value = status(problems=["docker: away\x1b[2J", "cron: not installed"])
    problems = [text for name, text in render.status_rows(value, NOW_MS) if name == "not working"]
    assert problems == [r"docker: away\x1b[2J", "cron: not installed"]


def test_a_disarmed_policy_says_since_when_and_why_and_an_armed_one_what_is_used() -> None:
    assert rows()["policy"] == "armed"
    used = rows(budgets={"agreement": 0.0, "loss": 0.254})
    assert used["policy"] == "armed (budgets used: agreement 0 %, loss 25 %)"
    spent = rows(armed=False, disarmed_since_ms=1_700_000_000_000, disarmed_why="by hand: \x1b[2J")
    assert spent["policy"].startswith("DISARMED since 2023-11-14 22:13:20 UTC: by hand: ")
    assert spent["policy"].isprintable()


def test_what_waits_for_a_receiver_has_a_row_where_there_are_any() -> None:
    assert "notify" not in rows()
    assert rows(notify={"webhook": 3, "alertmanager": 0})["notify"] == (
        "waiting: webhook 3, alertmanager 0"
    )


def test_a_clock_set_back_makes_no_tick_of_the_future() -> None:
    late = dict(render.status_rows(status(), 1_600_000_000_000))
    assert "0 s ago" in late["last tick"]


def test_plain_rows_are_aligned_and_nothing_is_nothing() -> None:
    assert render.plain([("a", "1"), ("long", "2")]) == "a     1\nlong  2"
    assert render.plain([]) == ""


def test_a_moment_has_a_date_a_time_and_a_zone() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \w+", render.moment(NOW_MS))
