"""What is in the packages, that two builds are the same, and what lintian says of them."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.packages.conftest import PROJECT, Packages, build

if TYPE_CHECKING:
    from collections.abc import Callable

SUITES = {"bookworm": ("3.11", "3.12"), "trixie": ("3.13", "3.14")}
"""The Python of each, and the first that is too new."""


def output(*words: str | Path) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=300).stdout


def field(package: Path, name: str) -> str:
    return output("dpkg-deb", "-f", package, name).strip()


def listing(package: Path) -> dict[str, str]:
    """Path → mode and owner of everything in it."""
    found = {}
    for line in output("dpkg-deb", "-c", package).splitlines():
        mode, owner, *_, path = line.split(" -> ")[0].split(maxsplit=5)
        found[path.removeprefix("./")] = f"{mode} {owner}"
    return found


@pytest.fixture(params=SUITES)
def suite(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def packages(packages_of: Callable[[str], Packages], suite: str) -> Packages:
    return packages_of(suite)


def test_a_package_takes_the_python_of_its_suite_and_no_other(
    packages: Packages, suite: str
) -> None:
    python, next_python = SUITES[suite]
    depends = field(packages.agent, "Depends")
    assert f"python3 (>= {python}~), python3 (<< {next_python}~)" in depends
    assert "python3-bpfcc" in depends
    assert field(packages.modules, "Depends") == "dkms (>= 3.0)"
    extensions = {name for name in listing(packages.agent) if ".cpython-" in name}
    assert len(extensions) >= 3
    tag = f".cpython-{python.replace('.', '')}-x86_64-linux-gnu.so"
    assert all(name.endswith(tag) for name in extensions)


def test_a_newer_suite_upgrades_an_older_one(packages_of: Callable[[str], Packages]) -> None:
    old, new = (field(packages_of(suite).agent, "Version") for suite in SUITES)
    subprocess.run(["dpkg", "--compare-versions", old, "lt", new], check=True)
    project = re.search(r'^version = "(.*)"$', (PROJECT / "pyproject.toml").read_text(), re.M)
    assert project is not None
    subprocess.run(["dpkg", "--compare-versions", project[1], "lt", old], check=True)


def test_all_of_it_is_roots_and_nobody_elses_to_write(packages: Packages) -> None:
    for package in (packages.agent, packages.modules):
        for path, about in listing(package).items():
            mode, owner = about.split()
            assert owner == "root/root", path
            assert mode[0] in "d-l", path
            assert mode[0] == "l" or (mode[5], mode[8]) == ("-", "-"), path


def test_what_runs_is_in_it_and_nothing_compiled_or_of_the_checkout(packages: Packages) -> None:
    found = set(listing(packages.agent))
    for path in (
        *(
            "usr/bin/agent",
            "lib/systemd/system/so1-agent.service",
            "usr/share/so1-agent/agent.toml",
        ),
        *("usr/share/man/man1/agent-bpf-trace.1.gz", "usr/share/doc/so1-agent/copyright"),
        *("usr/share/bash-completion/completions/agent", "usr/lib/so1-agent/venv/bin/python"),
        *("usr/share/zsh/vendor-completions/_agent", "usr/lib/so1-agent/src/bash/load_modules.sh"),
        "usr/lib/so1-agent/src/grafana/dashboards/monitor-de-sistema.json",
        *("usr/lib/so1-agent/cri/bin/python", "usr/lib/so1-agent/fleet/bin/python"),
    ):
        assert path in found
    for path in found:
        assert not path.endswith((".pyc", ".ko", ".o", ".gitignore"))
        assert "__pycache__" not in path
    assert not [path for path in found if path.startswith(("usr/local", "opt", "home"))]
    sources = {
        f"usr/src/so1-1.0.0/{path.name}" for path in (PROJECT / "kernel/modules").glob("*.[ch]")
    }
    assert sources < set(listing(packages.modules))


def test_the_files_are_those_that_start_sh_lays_out(packages: Packages, tmp_path: Path) -> None:
    """The clone's way, by the same functions: one tree, but for its prefix."""
    (tmp_path / "opt/so1/venv/lib/python3/site-packages").mkdir(parents=True)
    script = (
        'source "$1/bash/lib/install.sh"; install_tree "$1" /opt/so1 /usr/local/bin/agent "$2"; '
        'service_unit "$1" /usr/local/bin/agent >"$2/unit"'
    )
    subprocess.run(["bash", "-euc", script, "bash", PROJECT, tmp_path], check=True)
    subprocess.run(["dpkg-deb", "-x", packages.agent, tmp_path / "package"], check=True)

    def tree(root: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(root)): path.read_bytes()
            for path in root.rglob("*")
            if path.is_file() and path.name != ".gitignore" and "kernel" not in path.parts
        }

    assert tree(tmp_path / "opt/so1/src") == tree(tmp_path / "package/usr/lib/so1-agent/src")
    for clone, package in (
        ("usr/local/bin/agent", "usr/bin/agent"),
        ("unit", "lib/systemd/system/so1-agent.service"),
    ):
        text = (tmp_path / clone).read_text()
        text = text.replace("/usr/local/bin/agent", "/usr/bin/agent")
        text = text.replace("/opt/so1", "/usr/lib/so1-agent")
        assert text == (tmp_path / "package" / package).read_text()
    assert (
        "ExecStart=/usr/bin/agent start\n"
        in (tmp_path / "package/lib/systemd/system/so1-agent.service").read_text()
    )


def test_a_second_build_elsewhere_gives_the_same_bytes(
    packages_of: Callable[[str], Packages], tmp_path: Path
) -> None:
    first = packages_of("bookworm")
    elsewhere = tmp_path / "a longer name of a directory"
    shutil.copytree(
        PROJECT,
        elsewhere,
        # Not every `build`: the dashboards' is a source.
        ignore=shutil.ignore_patterns(".git", "__pycache__", "*.deb", ".*_cache"),
    )
    moment = output("git", "-C", PROJECT, "log", "-1", "--format=%ct").strip()
    second = build(
        *(tmp_path / "out", "-s", "bookworm"),
        checkout=elsewhere,
        TZ="Asia/Tokyo",
        LANG="es_GT.UTF-8",
        SOURCE_DATE_EPOCH=moment,
    )
    for one, other in ((first.agent, second.agent), (first.modules, second.modules)):
        assert one.name == other.name
        digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (one, other)]
        assert digests[0] == digests[1]


def test_lintian_finds_nothing_but_what_is_overridden_by_name(packages: Packages) -> None:
    if shutil.which("lintian") is None:
        pytest.skip("lintian is not installed")
    done = subprocess.run(
        ["lintian", "--allow-root", "--fail-on=error,warning", packages.agent, packages.modules],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert (done.returncode, done.stdout) == (0, "")
    overrides = (PROJECT / "packaging/so1-agent/lintian-overrides").read_text().splitlines()
    assert sum(not line.startswith("#") for line in overrides) <= 5
    assert overrides[0].startswith("#")


def test_a_wheel_that_is_not_what_its_hash_says_ends_the_build(
    packages_of: Callable[[str], Packages], tmp_path: Path
) -> None:
    packages_of("bookworm")  # everything is in the cache by then
    kept = Path("/var/cache/so1/packages")
    copy = tmp_path / "cache"
    shutil.copytree(kept, copy, symlinks=True)
    (wheels,) = copy.glob("wheels-*-run-3.11-x86_64")
    (wheel,) = wheels.glob("peewee-*.whl")
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("sitecustomize.py", "print('planted')\n")
    done = subprocess.run(
        ["bash", PROJECT / "packaging/build.sh", "-s", "bookworm", "-o", tmp_path / "out"],
        env={"PATH": "/usr/bin:/bin", "HOME": "/root", "SO1_PACKAGE_CACHE": str(copy)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert not list((tmp_path / "out").glob("*.deb"))


def test_for_arm64_every_compiled_file_is_arm64s(tmp_path: Path) -> None:
    made = build(tmp_path, "-s", "trixie", "-a", "arm64")
    assert field(made.agent, "Architecture") == "arm64"
    subprocess.run(["dpkg-deb", "-x", made.agent, tmp_path / "tree"], check=True)
    compiled = list((tmp_path / "tree").rglob("*.so*"))
    assert len(compiled) >= 5
    # e_machine of an ELF file (elf.h): EM_AARCH64 is 183.
    assert {path.read_bytes()[18:20] for path in compiled} == {(183).to_bytes(2, "little")}


@pytest.mark.parametrize(
    ("options", "named"),
    [(("-s", "buster"), "buster"), (("-a", "mips"), "mips"), (("extra",), "extra")],
)
def test_what_no_package_is_made_for_is_a_sentence(options: tuple[str, ...], named: str) -> None:
    done = subprocess.run(
        ["bash", PROJECT / "packaging/build.sh", *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert named in done.stderr
    assert len(done.stderr.splitlines()) == 1
