"""Where settings come from: a file that may be read and trusted, and the command line over it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from agent.config import Config, Scope, SourceChoice, decode_config, load_config, with_overrides
from agent.errors import ConfigError
from tests.unit.config_support import one_line

if TYPE_CHECKING:
    from pathlib import Path


def test_an_override_of_the_command_line_wins_over_the_file() -> None:
    file = decode_config('interval_s = 5\n[policy]\nscope = "managed"\nkeep_low = 1', "f")
    config = with_overrides(
        file, interval_s=7.5, policy__scope=Scope.ALL, source=SourceChoice.PSUTIL
    )
    assert (config.interval_s, config.policy.scope, config.policy.keep_low) == (7.5, "all", 1)
    assert config.source is SourceChoice.PSUTIL


def test_an_override_that_was_not_given_leaves_the_file_s_value() -> None:
    file = decode_config("interval_s = 5\n[cron]\nenabled = false", "f")
    assert with_overrides(file, interval_s=None, cron__enabled=None) == file


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("interval_s", -1.0),
        ("interval_s", float("nan")),
        ("paths__database", "/a\nb"),
        ("paths__database", ""),
    ],
)
def test_an_override_is_checked_as_a_file_s_value_is(name: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        with_overrides(Config(), **{name: value})
    one_line(caught.value)
    assert "command line" in caught.value.message


def test_a_named_file_has_to_be_there_and_the_default_one_has_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.config.DEFAULT_CONFIG", tmp_path / "none.toml")
    assert load_config(None) == Config()
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "none.toml")
    one_line(caught.value)
    assert str(tmp_path / "none.toml") in caught.value.message


@pytest.mark.parametrize("what", ["a directory", "not UTF-8", "a loop of links"])
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path, what: str) -> None:
    path = tmp_path / "agent.toml"
    if what == "a directory":
        path.mkdir()
    elif what == "not UTF-8":
        path.write_bytes(b"source = '\xff'")
    else:
        path.symlink_to(path)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    one_line(caught.value)


@pytest.mark.parametrize(
    ("mode", "named", "taken"),
    [
        (0o600, False, True),
        (0o644, False, True),
        (0o664, False, False),
        (0o646, False, False),
        (0o664, True, True),
        (0o666, True, False),
    ],
)
def test_a_file_that_another_user_could_write_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, named: bool, taken: bool
) -> None:
    path = tmp_path / "agent.toml"
    path.write_text("interval_s = 5\n")
    path.chmod(mode)
    monkeypatch.setattr("agent.config.DEFAULT_CONFIG", path)
    if taken:
        assert load_config(path if named else None).interval_s == 5
        return
    with pytest.raises(ConfigError) as caught:
        load_config(path if named else None)
    one_line(caught.value)
    assert "written by others" in caught.value.message


def test_the_default_file_has_to_be_root_s_or_the_caller_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to give a file away")
    path = tmp_path / "agent.toml"
    path.write_text("interval_s = 5\n")
    os.chown(path, 65534, 65534)
    monkeypatch.setattr("agent.config.DEFAULT_CONFIG", path)
    with pytest.raises(ConfigError):
        load_config(None)
    assert load_config(path).interval_s == 5


@pytest.mark.parametrize(
    ("given", "below"),
    [("metrics.db", "metrics.db"), ("./a/../b.db", "b.db"), ("../x.db", "../x.db")],
)
def test_a_relative_path_of_the_command_line_is_one_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, below: str
) -> None:
    monkeypatch.chdir(tmp_path)
    config = with_overrides(Config(), paths__database=given)
    assert config.paths.database == os.path.normpath(tmp_path / below)


def test_a_working_directory_that_is_gone_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    with pytest.raises(ConfigError, match="working directory") as caught:
        with_overrides(Config(), paths__database="metrics.db")
    one_line(caught.value)


def test_a_byte_order_mark_before_the_settings_is_no_setting(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_bytes(b"\xef\xbb\xbfinterval_s = 7\r\n")
    assert load_config(path).interval_s == 7
