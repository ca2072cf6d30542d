"""What the loader of the modules is told, what is made of its end, and whether one is at work."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from agent.actions import kernel_modules
from agent.config import ModulesSettings
from agent.errors import ModulesError
from agent.util.subprocess import CommandError, Finished


def test_the_loader_makes_the_entries_that_are_read() -> None:
    settings = ModulesSettings(sysinfo_path="/proc/sysinfo_mine")
    assert kernel_modules.entries(settings) == {
        "SO1_SYSINFO_ENTRY": "sysinfo_mine",
        "SO1_CONTINFO_ENTRY": "continfo_so1_202300539",
    }


def test_a_path_that_is_no_entry_of_proc_names_none() -> None:
    settings = ModulesSettings(sysinfo_path="/tmp/sysinfo", continfo_path="/proc/a/b")
    assert kernel_modules.entries(settings) == {}


def test_a_loader_is_at_work_while_it_or_what_it_runs_holds_its_turn(tmp_path: Path) -> None:
    turn = tmp_path / "modules.lock"
    assert not kernel_modules._is_at_work(turn)
    held = os.open(turn, os.O_RDWR | os.O_CREAT)
    assert not kernel_modules._is_at_work(turn)
    fcntl.flock(held, fcntl.LOCK_EX)
    inherited = os.dup(held)
    os.close(held)
    assert kernel_modules._is_at_work(turn)
    os.close(inherited)
    assert not kernel_modules._is_at_work(turn)


class Script:
    """Stands for load_modules.sh, in the foreground and in the background."""

    def __init__(self, sys_module: Path) -> None:
        self.sys_module = sys_module
        self.calls: list[tuple[tuple[str, ...], dict[str, str]]] = []
        self.status: int | None = 0
        self.said = ""
        self.error: CommandError | None = None
        self.leaves: tuple[str, ...] = ()
        self.closed = 0

    def has(self, *names: str) -> None:
        for name in kernel_modules.MODULES:
            place = self.sys_module / name
            if name in names:
                place.mkdir(exist_ok=True)
            elif place.exists():
                place.rmdir()

    def run(self, argv: list[str], *, timeout_s: float, check: bool) -> Finished:
        self.calls.append((tuple(argv), {}))
        if self.error is None or self.leaves == ():
            self.has(*self.leaves)
        if self.error is not None:
            raise self.error
        assert self.status is not None
        return Finished(tuple(argv), self.status, "", self.said)

    def running(self, argv: list[str], *, timeout_s: float, env: dict[str, str]) -> Script:
        if self.error is not None:
            raise self.error
        self.calls.append((tuple(argv), env))
        return self

    def fileno(self) -> int:
        return 77

    def poll(self) -> Finished | None:
        if self.error is not None:
            raise self.error
        return None if self.status is None else Finished((), self.status, "", self.said)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    made = Script(tmp_path)
    there = kernel_modules.loaded
    monkeypatch.setattr(kernel_modules, "loaded", lambda: there(tmp_path))
    monkeypatch.setattr(kernel_modules, "_TURN", tmp_path / "turn")
    monkeypatch.setattr(kernel_modules, "run", made.run)
    monkeypatch.setattr(kernel_modules, "Running", made.running)
    return made


def begun(script: Script) -> kernel_modules.ScriptAtWork:
    return kernel_modules.begin_loading(Path("/srv/build"), ModulesSettings())


def test_the_loader_is_told_where_to_build_for_whom_and_which_names(script: Script) -> None:
    loading = begun(script)
    ((argv, env),) = script.calls
    assert argv[0] == "bash"
    assert argv[1].endswith("/bash/load_modules.sh")
    assert env == {
        "SO1_BUILD_ROOT": "/srv/build",
        "SO1_PARENT": str(os.getpid()),
        "SO1_SYSINFO_ENTRY": "sysinfo_so1_202300539",
        "SO1_CONTINFO_ENTRY": "continfo_so1_202300539",
    }
    assert loading.fileno() == 77


def test_a_loading_is_done_once_the_script_has_ended_well_and_can_be_given_up(
    script: Script,
) -> None:
    loading = begun(script)
    script.status = None
    assert loading.poll() is False
    script.status = 0
    assert loading.poll() is True
    loading.cancel()
    assert script.closed == 1


@pytest.mark.parametrize(
    ("said", "words"),
    [("checking\nmodules: install the headers\n", "install the headers"), ("", "no reason given")],
)
def test_a_loading_that_fails_has_the_script_s_last_words(
    script: Script, said: str, words: str
) -> None:
    loading = begun(script)
    script.status, script.said = 6, said
    with pytest.raises(ModulesError, match=words) as raised:
        loading.poll()
    assert "load_modules.sh` shows all of it" in raised.value.hint


def test_a_loader_that_cannot_be_started_or_takes_too_long_is_a_modules_error(
    script: Script,
) -> None:
    loading = begun(script)
    script.error = CommandError("bash took longer than 900 s and was ended.", "Run `bash`.")
    with pytest.raises(ModulesError, match="could not be loaded: bash took longer"):
        loading.poll()
    with pytest.raises(ModulesError, match="bash took longer"):
        begun(script)


def test_with_nothing_loaded_and_nobody_at_work_no_script_is_run(script: Script) -> None:
    assert kernel_modules.unload() == ()
    assert script.calls == []


def test_an_unloading_names_those_that_were_there(script: Script) -> None:
    script.has("continfo")
    assert kernel_modules.unload() == ("continfo",)
    ((argv, _),) = script.calls
    assert argv[-1] == "--unload"


def test_what_a_killed_agent_s_loader_loads_meanwhile_is_unloaded_and_named(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the first look there is nothing, but a script is at work."""
    monkeypatch.setattr(kernel_modules, "_is_at_work", lambda: True)
    script.said = "waiting\nunloaded continfo\nunloaded sysinfo\n"
    assert kernel_modules.unload() == ("sysinfo", "continfo")


def test_a_module_that_stays_is_named_with_the_script_s_reason(script: Script) -> None:
    script.has("sysinfo", "continfo")
    script.status, script.said, script.leaves = 11, "sysinfo is read by cat (4711)", ("sysinfo",)
    with pytest.raises(ModulesError, match="module sysinfo stays loaded: sysinfo is read") as error:
        kernel_modules.unload()
    assert error.value.hint == ""


@pytest.mark.parametrize("status", [0, 11])
def test_a_module_that_stays_without_a_reason_has_the_plain_remedy(
    script: Script, status: int
) -> None:
    script.has("sysinfo", "continfo")
    script.status, script.leaves = status, ("sysinfo", "continfo")
    with pytest.raises(ModulesError, match="sysinfo and continfo stays loaded") as error:
        kernel_modules.unload()
    assert error.value.hint == "Run `sudo rmmod continfo sysinfo`."


@pytest.mark.parametrize("stays", [True, False])
def test_an_unloader_that_is_ended_for_its_time_is_an_error_whatever_it_did(
    script: Script, stays: bool
) -> None:
    script.has("sysinfo")
    script.error = CommandError("bash took longer than 60 s and was ended.", "Run `bash` by hand.")
    script.leaves = ("sysinfo",) if stays else ()
    with pytest.raises(ModulesError, match="took longer than 60 s") as error:
        kernel_modules.unload()
    assert ("rmmod sysinfo" in error.value.hint) is stays
