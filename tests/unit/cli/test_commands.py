"""The command line: what cannot be done is one clear sentence, a status, and never a traceback.

Most of it runs in this process, by the function that the console script calls; some by
`python -m agent`, as people do. Nothing here starts an agent.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent import __main__ as entry
from agent import __version__
from agent.cli.app import app
from agent.cli.commands import fleet
from tests.other_user import NOBODY, need_readable_checkout

PROJECT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Command:
    """How a command is called, whether root alone may, and what it takes."""

    words: tuple[str, ...]
    root: bool = True
    takes: frozenset[str] = field(default_factory=lambda: frozenset({"--config"}))


def takes(*options: str) -> frozenset[str]:
    return frozenset({"--config", *options})


COMMANDS = {
    "start": Command(("start",), takes=takes("--database", "--interval")),
    "stop": Command(("stop",)),
    "reload": Command(("reload",)),
    "status": Command(("status",), takes=takes("--database", "--json")),
    "cleanup": Command(("cleanup",), takes=takes("--database")),
    "bpf trace": Command(("bpf", "trace"), takes=takes("--container", "--duration", "--json")),
    "bpf check": Command(("bpf", "check"), takes=takes("--canary", "--json")),
    "top": Command(("top",), root=False, takes=takes("--sort", "--once", "--at", "--database")),
    "report": Command(
        ("report",), root=False, takes=takes("--since", "--at", "--json", "--database")
    ),
    "oom": Command(("oom",), root=False, takes=takes("--since", "--json", "--database")),
    "who": Command(("who", "1"), takes=takes("--name", "--json", "--database")),
    "fleet init": Command(
        ("fleet", "init", "host=/x"),
        root=False,
        takes=takes("--facts-days", "--figures-days", "--shard"),
    ),
    "fleet enroll": Command(
        ("fleet", "enroll", "host=/x", "a" * 32), root=False, takes=takes("--name")
    ),
    "fleet rotate": Command(("fleet", "rotate", "host=/x", "a" * 32), root=False),
    "fleet forget": Command(("fleet", "forget", "host=/x", "a" * 32), root=False),
    "fleet ship": Command(("fleet", "ship"), takes=takes("--database")),
    "fleet status": Command(("fleet", "status"), takes=takes("--json")),
    "fleet hub": Command(("fleet", "hub", "host=/x"), root=False, takes=takes("--shards")),
    "fleet top": Command(("fleet", "top"), root=False, takes=takes("--dsn", "--json")),
    "policy disarm": Command(("policy", "disarm"), takes=takes("--database")),
    "policy arm": Command(("policy", "arm"), takes=takes("--database")),
    "notify test": Command(("notify", "test"), takes=takes("--json", "--summary")),
    "doctor": Command(("doctor",), root=False, takes=takes("--database", "--json")),
    "policy check": Command(("policy", "check"), root=False, takes=takes("--json")),
    "policy plan": Command(("policy", "plan"), takes=takes("--database", "--free", "--json")),
    "policy apply": Command(("policy", "apply", "p"), takes=takes("--database", "--json")),
    "policy why": Command(("policy", "why", "web"), takes=takes("--database", "--json")),
    "policy replay": Command(
        ("policy", "replay"),
        root=False,
        takes=takes("--since", "--with", "--database", "--json"),
    ),
    "policy show": Command(("policy", "show"), root=False, takes=takes("--json")),
}
BROKEN = {
    "an unknown key": ("intervall_s = 20", "intervall_s"),
    "a negative interval": ("interval_s = -5", "$.interval_s"),
    "a wrong type": ('[policy]\nkeep_low = "three"', "$.policy.keep_low"),
    "no TOML": ("interval_s: 20", "TOML"),
}


class StartedError(BaseException):
    """A test was about to do to this host what it must not."""


@dataclass(frozen=True)
class Said:
    status: int
    out: str
    err: str


@pytest.fixture
def agent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Said]:
    """Calls the console script's function and gives its status and what it printed."""

    def must_not_run(*arguments: object, **more: object) -> None:
        raise StartedError

    for name in ("agent.daemon.composition.start", "agent.cli.commands.control.stop"):
        monkeypatch.setattr(name, must_not_run)
    monkeypatch.setattr("agent.cli.commands.control.cleanup", must_not_run)

    def call(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["agent", *words])
        with pytest.raises(SystemExit) as end:
            entry.main()
        out, err = capsys.readouterr()
        code = end.value.code
        return Said(code if isinstance(code, int) else 0 if code is None else 1, out, err)

    return call


def python_m_agent(*words: str, user: int | None = None, **more: object) -> Said:
    done = subprocess.run(
        [sys.executable, "-m", "agent", *words],
        stdin=subprocess.DEVNULL,
        capture_output="stdout" not in more,
        text=True,
        cwd=PROJECT,
        timeout=120,
        check=False,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
        **more,  # type: ignore[call-overload]
    )
    return Said(done.returncode, done.stdout or "", done.stderr or "")


def one_sentence(said: Said, *words: str) -> None:
    """The cause on one line, the remedy on the next, and nothing else."""
    assert said.status != 0
    assert "Traceback" not in said.err
    lines = said.err.splitlines()
    assert lines[0].startswith("agent: ")
    assert lines[0].endswith(".")
    assert 1 <= len(lines) <= 2, said.err
    for word in words:
        assert word in said.err
    assert said.out == ""


def test_every_command_is_in_the_table() -> None:
    names = {one.name or one.callback.__name__ for one in app.registered_commands if one.callback}
    for group in app.registered_groups:
        inner = group.typer_instance
        assert inner is not None
        for one in inner.registered_commands:
            assert one.callback is not None
            names.add(f"{inner.info.name} {one.name or one.callback.__name__}")
    assert names == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_help_that_names_its_options(agent: Callable[..., Said], name: str) -> None:
    said = agent(*COMMANDS[name].words, "--help")
    assert (said.status, said.err) == (0, "")
    for option in COMMANDS[name].takes:
        assert option in said.out


def test_without_a_command_the_help_is_printed(agent: Callable[..., Said]) -> None:
    said = agent()
    assert said.status == 0
    assert "\\x0a" not in said.out
    for name in COMMANDS:
        assert f"  {name.split()[0]}" in said.out


def test_the_version_is_printed(agent: Callable[..., Said]) -> None:
    assert agent("--version") == Said(0, f"agent {__version__}\n", "")


@pytest.mark.parametrize("name", [name for name, one in COMMANDS.items() if one.root])
def test_a_user_who_is_not_root_is_told_to_use_sudo(
    agent: Callable[..., Said], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    said = agent(*COMMANDS[name].words)
    one_sentence(said, f"`agent {name}` needs root", f"Run `sudo agent {name}`")
    assert said.status == 3


@pytest.mark.parametrize("what", BROKEN)
@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {"doctor"}))
def test_a_broken_configuration_is_named(
    agent: Callable[..., Said], name: str, what: str, tmp_path: Path
) -> None:
    text, word = BROKEN[what]
    path = tmp_path / "agent.toml"
    path.write_text(text)
    said = agent(*COMMANDS[name].words, "--config", str(path))
    one_sentence(said, word, str(path))
    assert said.status == 2
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {"doctor"}))
def test_a_named_file_that_is_absent_is_named(
    agent: Callable[..., Said], name: str, tmp_path: Path
) -> None:
    said = agent(*COMMANDS[name].words, "--config", str(tmp_path / "none.toml"))
    one_sentence(said, str(tmp_path / "none.toml"), "does not exist")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("start", "--interval", "-5"), "interval_s"),
        (("start", "--interval", "0.5"), "interval_s"),
        (("start", "--interval", "nan"), "interval_s"),
        (("start", "--interval", "soon"), "soon"),
        (("start", "--scope", "everything"), "everything"),
        (("start", "--source", "proc"), "proc"),
        (("start", "--database", ""), "a path is empty"),
        (("start", "--database", "/a\nb"), "paths.database"),
        (("start", "--bogus"), "--bogus"),
        (("start", "extra\x1b[2J"), "extra"),
        (("bogus",), "bogus"),
        (("status", "--interval", "5"), "--interval"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_command_line_that_is_not_ours_is_named(
    agent: Callable[..., Said], words: tuple[str, ...], named: str
) -> None:
    said = agent(*words)
    one_sentence(said, named)
    assert said.status == 2
    assert "\x1b" not in said.err


@pytest.mark.allow_subprocess
@pytest.mark.parametrize("missing", ["docker", "msgspec", "agent.daemon.lock"])
def test_an_installation_that_is_not_whole_is_a_sentence(missing: str) -> None:
    # A command that changes nothing, should the import succeed after all.
    code = f"import sys; sys.modules[{missing!r}] = None; sys.argv = ['agent', 'status']; "
    done = subprocess.run(
        [sys.executable, "-c", code + "from agent.__main__ import main; main()"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=PROJECT,
        timeout=120,
        check=False,
    )
    one_sentence(Said(done.returncode, done.stdout, done.stderr), "not whole", "start.sh")


@pytest.mark.allow_subprocess
def test_the_module_ends_as_the_function_does() -> None:
    said = python_m_agent("start", "--interval", "-5")
    one_sentence(said, "interval_s")
    assert said.status == 2


@pytest.mark.allow_subprocess
@pytest.mark.parametrize("name", [name for name, one in COMMANDS.items() if one.root])
def test_a_real_user_without_rights_is_told_so(name: str) -> None:
    user = NOBODY if os.geteuid() == 0 else None
    if user is not None:
        need_readable_checkout()
    one_sentence(python_m_agent(*COMMANDS[name].words, user=user), "needs root")


@pytest.mark.allow_subprocess
def test_a_full_disk_behind_the_output_is_a_sentence() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "agent", "--version"],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
            timeout=120,
            check=False,
        )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "No space left" in done.stderr


@pytest.mark.allow_subprocess
@pytest.mark.parametrize("gone", ["stdout", "stderr", "both"])
def test_an_output_that_is_closed_is_no_traceback(gone: str) -> None:
    closing = {"stdout": "exec >&-", "stderr": "exec 2>&-", "both": "exec >&- 2>&-"}[gone]
    done = subprocess.run(
        ["sh", "-c", f'{closing}; exec "$@"', "sh", sys.executable, "-m", "agent", "--help"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=PROJECT,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.allow_subprocess
def test_the_doctor_tells_of_a_broken_configuration_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text("intervall_s = 20")
    said = python_m_agent("doctor", "--json", "--config", str(path))
    value = json.loads(said.out)
    (found,) = (one for one in value["checks"] if one["name"] == "configuration")
    assert found["state"] == "missing"
    assert "intervall_s" in found["finding"]
    assert (said.status, value["can_run"]) == (1, False)
    assert len(value["checks"]) > 15


@pytest.mark.allow_subprocess
def test_the_doctor_needs_no_rights_and_says_what_it_could_not_look_at() -> None:
    user = NOBODY if os.geteuid() == 0 else None
    if user is not None:
        need_readable_checkout()
    said = python_m_agent("doctor", user=user)
    assert said.status in (0, 1)
    assert "Traceback" not in said.err
    assert "sudo agent doctor" in said.out


@pytest.mark.parametrize("given", ["fork,nonsense", "FORK", "lost"])
def test_an_event_that_is_none_is_named_with_those_that_there_are(
    agent: Callable[..., Said], given: str
) -> None:
    said = agent("bpf", "trace", "--event", given)
    one_sentence(said, "is no kind of event", "fork, exec, exit, attach, mkdir, rmdir, oom")
    assert said.status == 2


def test_there_is_a_command_for_each_thing_that_is_done_at_a_centre() -> None:
    named = {one.callback.__name__ for one in fleet.app.registered_commands if one.callback}
    assert named == {"init", "enroll", "rotate", "forget", "ship", "hub", "status", "top"}
