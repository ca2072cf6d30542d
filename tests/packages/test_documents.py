"""Man pages and completions in the programs that read them: man, mandoc, bash, zsh, fish."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


def need(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def said(*words: str, data: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, input=data, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("share")
    done = subprocess.run(
        [sys.executable, "-m", "agent.cli.documents", str(made)],
        cwd=PROJECT,
        env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return made


def pages(share: Path) -> list[str]:
    found = sorted(str(path) for path in (share / "man/man1").iterdir())
    assert len(found) > 12
    return found


def test_mandoc_finds_nothing_to_warn_of(share: Path) -> None:
    done = said(need("mandoc"), "-T", "lint", "-W", "warning", *pages(share))
    assert (done.returncode, done.stdout) == (0, "")


def test_man_formats_each_page_without_a_warning(share: Path) -> None:
    program = need("man")
    for page in pages(share):
        done = subprocess.run(
            [program, "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page],
            env={**os.environ, "MANROFFSEQ": "", "MANWIDTH": "80"},
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b""), page


def test_mandoc_would_warn_of_a_broken_page(tmp_path: Path) -> None:
    page = tmp_path / "x.1"
    page.write_text(".SH NAME\nx\n.XX\n")
    assert said(need("mandoc"), "-T", "lint", "-W", "warning", str(page)).stdout != ""


COMPLETED = [
    ("agent ", {"start", "stop", "doctor", "bpf", "fleet", "--version"}, {"trace", "--once"}),
    ("agent st", {"start", "stop", "status"}, {"doctor"}),
    ("agent start --no", {"--no-cron", "--no-bpf", "--no-grafana"}, {"--once"}),
    ("agent start --scope ", {"managed", "all"}, {"--once"}),
    ("agent start --scope=a", {"all"}, {"managed"}),
    ("agent start --once --source p", {"psutil"}, {"auto"}),
    ("agent start --interval ", set(), {"--once"}),
    ("agent bpf ", {"trace", "check"}, {"start"}),
    ("agent bpf check --c", {"--canary", "--config"}, {"--container"}),
    ("agent fleet top --", {"--dsn", "--json"}, {"--once"}),
]
"""A line before the cursor, what has to be offered and what must not."""


@pytest.mark.parametrize(("line", "offered", "kept"), COMPLETED, ids=lambda value: str(value)[:30])
def test_bash_offers_what_fits(share: Path, line: str, offered: set[str], kept: set[str]) -> None:
    # bash itself splits the line, as for a Tab: `=` is a word of its own (COMP_WORDBREAKS).
    script = share / "bash-completion/completions/agent"
    words = line.replace("=", " = ").split(" ")
    array = " ".join(f"'{word}'" for word in words)
    program = (
        f"source '{script}'\nCOMP_WORDS=({array})\nCOMP_CWORD={len(words) - 1}\n"
        'COMP_LINE="$1"\n"$(complete -p agent | sed -E "s/.*-F ([^ ]+).*/\\1/")" agent\n'
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = said("bash", "-euc", program, "bash", line)
    assert done.stderr == ""
    found = set(done.stdout.split())
    assert offered <= found
    assert not kept & found


def test_bash_completes_the_name_of_a_file(share: Path, tmp_path: Path) -> None:
    (tmp_path / "agent.toml").touch()
    script = share / "bash-completion/completions/agent"
    program = (
        f"cd '{tmp_path}'; source '{script}'; COMP_WORDS=(agent start --config ag); COMP_CWORD=3; "
        '_so1_agent; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    assert said("bash", "-euc", program).stdout.split() == ["agent.toml"]


def test_an_interactive_bash_completes_at_a_tab(share: Path) -> None:
    """A real terminal: what is typed before Tab comes back whole."""
    script = share / "bash-completion/completions/agent"
    need("script")
    typed = f"source {script}\necho agent doct\t --js\t.\nexit\n"
    done = said(
        "script", "-qec", "env TERM=dumb bash --norc --noprofile -i", "/dev/null", data=typed
    )
    # `echo agent …` is not completed by ours; a command line of `agent` itself is.
    assert "doctor" not in done.stdout
    typed = f'agent() {{ echo "<$*>"; }}\nsource {script}\nagent doct\t --js\t\nexit\n'
    done = said(
        "script", "-qec", "env TERM=dumb bash --norc --noprofile -i", "/dev/null", data=typed
    )
    assert "<doctor --json>" in done.stdout


@pytest.mark.parametrize(("line", "offered", "kept"), COMPLETED, ids=lambda value: str(value)[:30])
def test_fish_offers_what_fits(share: Path, line: str, offered: set[str], kept: set[str]) -> None:
    script = share / "fish/vendor_completions.d/agent.fish"
    done = said(need("fish"), "-N", "-c", f"source {script}; complete -C '{line}'")
    found = {one.split("\t")[0] for one in done.stdout.splitlines()}
    # fish offers options where a dash was typed, and gives --option=value whole.
    typed = line.rpartition(" ")[2]
    wanted = {one for one in offered if "-" in typed or not one.startswith("-")}
    begin = typed.rpartition("=")[0]
    assert {f"{begin}={one}" if begin else one for one in wanted} <= found
    assert not kept & found


@pytest.mark.parametrize(
    ("line", "offered", "kept"),
    # zsh completes the value of --option=value by itself or not at all: the function has no part.
    [one for one in COMPLETED if "=" not in one[0]],
    ids=lambda value: str(value)[:30],
)
def test_zsh_offers_what_fits(share: Path, line: str, offered: set[str], kept: set[str]) -> None:
    """The function as zsh calls it, with what it hands to the completion system printed."""
    words = line.split(" ")
    array = " ".join(f"'{word}'" for word in words)
    program = (
        '_describe() { print -l -- "${(@P)2%%:*}"; }; compadd() { shift; print -l -- "$@"; }; '
        "_message() { }; _files() { }; "
        f"autoload -Uz +X _agent; words=({array}); CURRENT={len(words)}; _agent"
    )
    path = share / "zsh/vendor-completions"
    done = said(need("zsh"), "-fc", f"fpath=({path} $fpath); {program}")
    assert done.stderr == ""
    found = {one for one in done.stdout.split() if one.startswith(words[-1])}
    assert offered <= found
    assert not kept & found
