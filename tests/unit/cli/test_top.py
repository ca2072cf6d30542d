"""`agent top`: what a key changes, what is shown, and a terminal that is put back."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import select
import shutil
import sqlite3
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from agent.cli.commands import top as command
from agent.cli.views import top as view
from agent.cli.views.top import Choice, press
from agent.cli.views.top_keys import Key, Sort, keys_in
from agent.config import PolicySettings
from agent.model.proof import ArmingWord
from agent.store.queries import ShortLived
from tests.unit.grafana.make_db import make
from tests.unit.grafana.world import END_MS, Plan

PROJECT = Path(__file__).resolve().parents[3]
DEADLINE_S = 30.0


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("top") / "metrics.db"
    # The last tick is one in which the generator has just filled up.
    make(path, Plan(hours=0.2, processes=40, incidents=False, seed=3))
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        full = connection.execute(
            "SELECT timestamp FROM container_totals GROUP BY timestamp HAVING count(*) >= 12 "
            "ORDER BY timestamp DESC LIMIT 1"
        ).fetchone()[0]
        for table in ("metrics", "container_totals", "container_stats", "process_stats",
                      "attribution_checks", "deletions"):  # fmt: skip
            # Its own removals come just before its row.
            connection.execute(
                f"DELETE FROM {table} WHERE timestamp > ?",
                (full - 1000 if table == "deletions" else full,),
            )
    return path


@pytest.fixture(scope="module")
def snapshot(file: Path) -> view.LastTick:
    found = view.read(file, PolicySettings())
    assert found is not None
    return found


def with_removal(file: Path, tmp_path: Path, outcome: str, error: str) -> tuple[str, Path]:
    """A copy in which the last tick's largest governed container was to be removed; its id."""
    path = tmp_path / "metrics.db"
    shutil.copy(file, path)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        identity, timestamp = connection.execute(
            "SELECT container_id, timestamp FROM container_totals WHERE governed "
            "ORDER BY timestamp DESC, held_mb DESC LIMIT 1"
        ).fetchone()
        connection.execute("DELETE FROM deletions WHERE container_id = ?", (identity,))
        connection.execute(
            "INSERT INTO deletions (timestamp, decision, container_id, container_name, image, "
            "tier, rank, reason, held_mb, cpu_usage, outcome, duration_ms, error, "
            "available_before_mb, available_after_mb) "
            "VALUES (?, 'd', ?, 'n', 'i', 'low', 1, 'exited', 1, 0, ?, 1, ?, 1, 1)",
            (timestamp, identity, outcome, error),
        )
    return identity, path


@pytest.mark.parametrize(
    ("outcome", "error", "away"),
    [
        ("removed", "", True),
        ("gone", "", True),
        ("gone", "it runs again", False),
        ("gone", "not governed any more", False),
        ("gone", "created at another time than the one decided on", False),
        ("failed", "device or resource busy", False),
        ("dry-run", "", False),
    ],
)
def test_only_a_container_that_is_away_is_shown_as_removed(
    file: Path, tmp_path: Path, outcome: str, error: str, away: bool
) -> None:
    identity, path = with_removal(file, tmp_path, outcome, error)
    found = view.read(path, PolicySettings())
    assert found is not None
    assert (("docker", identity) in found.gone) is away
    assert (identity in {one.container_id for one in found.contenders}) is not away


def text_of(snapshot: view.LastTick, state: Choice, width: int = 160, height: int = 0) -> str:
    console = Console(file=io.StringIO(), width=width, height=200, markup=False)
    console.print(view.frame(snapshot, state, END_MS, 20.0, height))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def names(snapshot: view.LastTick, sort: Sort) -> list[str]:
    return [row.container_name for row in view.in_order(snapshot.containers, sort)]


@pytest.mark.parametrize(
    ("key", "sort"),
    [
        (Key.BY_RAM, Sort.RAM),
        (Key.BY_CPU, Sort.CPU),
        (Key.BY_PROCESSES, Sort.PROCESSES),
        (Key.BY_NAME, Sort.NAME),
    ],
)
def test_a_key_sorts(key: Key, sort: Sort, snapshot: view.LastTick) -> None:
    assert press(Choice(), key, snapshot).sort is sort


def test_the_greatest_come_first_and_names_from_a_to_z(snapshot: view.LastTick) -> None:
    held = [row.held_mb for row in view.in_order(snapshot.containers, Sort.RAM)]
    cpu = [row.cpu_percent for row in view.in_order(snapshot.containers, Sort.CPU)]

    assert held == sorted(held, reverse=True)
    assert cpu == sorted(cpu, reverse=True)
    assert names(snapshot, Sort.NAME) == sorted(names(snapshot, Sort.NAME))


def test_what_a_container_ran_unseen_stands_below_its_processes(snapshot: view.LastTick) -> None:
    box = snapshot.containers[0]
    at = (snapshot.tick.timestamp_ms, box.container_id, box.container_name)
    unseen = (
        ShortLived(*at, "sh", "sle\x1bep", 12, 34.56, 1.5, "docker"),
        ShortLived(*at, "", "(others)", 3, 0.0, None, "docker"),
        ShortLived(at[0], "another", "another", "sh", "elsewhere", 1, 1.0, 1.0, "docker"),
    )
    shown = replace(snapshot, short_lived=unseen)
    text = text_of(shown, Choice(selected=box.container_id, inside=True))
    assert "12 times from sh, 34.6 ms of CPU" in text
    assert "(others): 3 times, 0.0 ms of CPU" in text
    assert "elsewhere" not in text
    assert "\x1b" not in text
    listed = view.plain(shown, Choice(), shown.tick.timestamp_ms).splitlines()
    (place,) = [at for at, line in enumerate(listed) if "unseen: 12 sle\\x1bep, 3 (others)" in line]
    assert box.container_name in listed[place - 1]
    assert "35 ms of CPU" in listed[place]


def test_the_choice_moves_and_stops_at_both_ends(snapshot: view.LastTick) -> None:
    order = [row.container_id for row in view.in_order(snapshot.containers, Sort.RAM)]
    state = Choice()

    state = press(state, Key.DOWN, snapshot)
    assert state.selected == order[0]
    state = press(press(state, Key.DOWN, snapshot), Key.UP, snapshot)
    assert state.selected == order[0]
    state = press(state, Key.UP, snapshot)
    assert state.selected == order[0]
    for _ in range(50):
        state = press(state, Key.DOWN, snapshot)
    assert state.selected == order[-1]


def test_the_choice_stays_with_its_container_when_the_order_changes(
    snapshot: view.LastTick,
) -> None:
    chosen = press(press(Choice(), Key.DOWN, snapshot), Key.DOWN, snapshot)

    assert press(chosen, Key.BY_NAME, snapshot).selected == chosen.selected


def test_enter_shows_the_processes_of_the_chosen_one(snapshot: view.LastTick) -> None:
    state = press(press(Choice(), Key.DOWN, snapshot), Key.OPEN, snapshot)
    chosen = view.in_order(snapshot.containers, Sort.RAM)[0]
    mine = [one for one in snapshot.processes if one.container_id == chosen.container_id]

    text = text_of(snapshot, state)

    assert f"Processes of {chosen.container_name}" in text
    for one in mine:
        assert str(one.pid) in text
    assert "Next to be removed" in text_of(snapshot, press(state, Key.BACK, snapshot))


def test_what_goes_next_is_told_with_its_reason(snapshot: view.LastTick) -> None:
    goes = [one for one in snapshot.contenders if one.goes]
    assert goes

    text = text_of(snapshot, Choice())

    for one in goes:
        line = next(
            line for line in text.splitlines() if one.container_name in line and "goes" in line
        )
        assert "that stay, and holds more" in line


def test_an_old_tick_says_its_age(snapshot: view.LastTick) -> None:
    now_ms = snapshot.tick.timestamp_ms + 3_600_000 + 120_000

    assert "tick 1 h 2 min ago" in view.headline(snapshot, now_ms)


def test_a_disarmed_policy_is_the_first_word(snapshot: view.LastTick) -> None:
    now_ms = snapshot.tick.timestamp_ms
    disarmed = replace(snapshot, word=ArmingWord(False, 1, "by hand: x"))
    assert view.headline(disarmed, now_ms).startswith("DISARMED (by hand: x), tick ")
    assert view.headline(snapshot, now_ms).startswith("tick ")


def test_a_small_terminal_keeps_the_chosen_row_and_says_how_many_are_left_out(
    snapshot: view.LastTick,
) -> None:
    last = view.in_order(snapshot.containers, Sort.RAM)[-1]
    state = Choice(selected=last.container_id)

    text = text_of(snapshot, state, width=80, height=18)

    assert last.container_name in text
    assert "more)" in text
    assert len(text.splitlines()) <= 18


def test_a_hostile_name_does_nothing(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "metrics.db"
    path.write_bytes(file.read_bytes())
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        evil = "\x1b[2J[bold]x[/bold]"
        connection.execute("UPDATE container_totals SET container_name = ?", (evil,))
        connection.execute("UPDATE container_stats SET process_name = ?", (evil,))
    found = view.read(path, PolicySettings())
    assert found is not None

    shown = text_of(found, Choice(selected=found.containers[0].container_id, inside=True))

    for text in (shown, view.plain(found, Choice(), END_MS)):
        assert "\x1b" not in text
        assert "\\x1b[2J[bold]x[/bold]" in text


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        (b"q", [Key.QUIT]),
        (b"\x1b[A\x1b[B", [Key.UP, Key.DOWN]),
        (b"\x1bOB\n", [Key.DOWN, Key.OPEN]),
        (b"\x1b", [Key.BACK]),
        (b"zz\x00\xff", []),
        (b"cr", [Key.BY_CPU, Key.BY_RAM]),
    ],
)
def test_what_a_terminal_sends_is_read_as_keys(sent: bytes, keys: list[Key]) -> None:
    assert list(keys_in(sent)) == keys


def run(*words: str) -> Any:
    app = typer.Typer()
    app.command()(command.top)
    return CliRunner().invoke(app, list(words))


def test_without_a_terminal_the_last_tick_is_printed_once(file: Path) -> None:
    done = run("--database", str(file), "--sort", "name")

    assert done.exit_code == 0
    assert "Containers by name" in done.stdout
    assert "Next to be removed, and why" in done.stdout
    assert "\x1b" not in done.stdout


class Terminal:
    """A pseudo terminal with `agent top` in it."""

    def __init__(self, file: Path) -> None:
        self.master, self.slave = pty.openpty()
        termios.tcsetwinsize(self.slave, (40, 150))
        self.before = termios.tcgetattr(self.slave)
        code = (
            "import fcntl, signal, sys, termios, typer; sys.path.insert(0, sys.argv[1]); "
            # As a terminal's programs have it: tests in the background of a shell inherit SIG_IGN.
            "signal.signal(signal.SIGINT, signal.default_int_handler); "
            "fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
            "from agent.cli.commands.top import top; app = typer.Typer(); app.command()(top); "
            "app(['--database', sys.argv[2]])"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, str(PROJECT), str(file)],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            # Its own session, so that the terminal is its own and Ctrl-C its signal.
            start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8"},
        )
        self.seen = ""

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while text not in self.seen:
            assert time.monotonic() < deadline, f"{text!r} was not shown: {self.seen[-2000:]!r}"
            if select.select([self.master], [], [], 0.2)[0]:
                self.seen += os.read(self.master, 65536).decode("utf-8", "replace")

    def send(self, data: bytes) -> None:
        self.seen = ""
        os.write(self.master, data)


@pytest.fixture
def terminal(file: Path) -> Iterator[Terminal]:
    found = Terminal(file)
    yield found
    if found.process.poll() is None:
        found.process.kill()
    found.process.wait()
    os.close(found.master)
    os.close(found.slave)


@pytest.mark.allow_subprocess
@pytest.mark.parametrize("end", [b"q", b"\x03"], ids=["q", "ctrl-c"])
def test_it_is_live_and_puts_the_terminal_back(terminal: Terminal, end: bytes) -> None:
    terminal.wait_for("Containers by ram")
    terminal.send(b"c")
    terminal.wait_for("Containers by cpu")
    terminal.send(b"\x1b[B\r")
    terminal.wait_for("Processes of")

    terminal.send(end)

    assert terminal.process.wait(DEADLINE_S) == 0
    assert termios.tcgetattr(terminal.slave) == terminal.before


def test_the_rule_of_ones_own_that_claims_a_container_stands_beside_it(
    snapshot: view.LastTick,
) -> None:
    assert "RULE" not in text_of(snapshot, Choice()), "nobody has rules: as before"
    built_in = tuple(replace(row, rule="original-low") for row in snapshot.containers)
    assert "RULE" not in text_of(replace(snapshot, containers=built_in), Choice())
    mine = (replace(built_in[0], rule="nightly-jobs", tier="none"), *built_in[1:])
    for text in (
        text_of(replace(snapshot, containers=mine), Choice()),
        view.plain(replace(snapshot, containers=mine), Choice(), END_MS),
    ):
        assert "RULE" in text
        assert text.count("nightly-jobs") == 1
        assert "original-low" not in text
    alone = replace(snapshot, containers=mine[:1], contenders=())
    assert "see agent policy plan" in view.plain(alone, Choice(), END_MS)
    nobody = replace(snapshot, containers=(), contenders=())
    assert "no governed container is there" in view.plain(nobody, Choice(), END_MS)
