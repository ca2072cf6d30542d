"""A flush is started without the command line's library where its words are the agent's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.cli.commands import fleet
from agent.config import load_config
from agent.errors import AgentError
from agent.fleet.ship import plain_options
from agent.fleet.streams import ALL_STREAMS, STREAMS, chosen


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {}),
        (["--database", "/x.db"], {"database": "/x.db"}),
        (
            ["--database", "/x.db", "--config", "/a.toml"],
            {"database": "/x.db", "config": "/a.toml"},
        ),
        (["--help"], None),
        (["--database"], None),
        (["--database", "--config"], None),
        (["--database=/x.db"], None),
        (["--database", "/a", "--database", "/b"], None),
        (["--json", "x"], None),
        (["extra", "word"], None),
    ],
)
def test_other_words_are_the_command_lines(
    words: list[str], expected: dict[str, str] | None
) -> None:
    assert plain_options(words) == expected


def test_settings_choose_streams(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text("[fleet]\n")
    assert chosen(load_config(file).fleet.options) == STREAMS
    file.write_text('[fleet]\nresolution = "60s"\nprocesses = "top:20"\n')
    assert chosen(load_config(file).fleet.options) == ALL_STREAMS
    file.write_text('[fleet]\nresolution = "60s"\n')
    names = {one.name for one in chosen(load_config(file).fleet.options)}
    assert names - {one.name for one in STREAMS} == {"host_1m", "container_1m"}


@pytest.mark.parametrize("line", ['resolution = "30s"', 'processes = "top:5"', "processes = 20"])
def test_what_is_not_offered_is_refused(tmp_path: Path, line: str) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(f"[fleet]\n{line}\n")
    with pytest.raises(AgentError) as raised:
        load_config(file)
    assert line.split(maxsplit=1)[0] in str(raised.value)


def test_a_list_of_shards_may_begin_with_a_mark_of_the_byte_order(tmp_path: Path) -> None:
    file = tmp_path / "shards"
    file.write_bytes(b"\xef\xbb\xbfeast host=/east\nwest host=/west\n")
    assert fleet._shards(file) == {"east": "host=/east", "west": "host=/west"}
