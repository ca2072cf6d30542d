"""What bash/load_modules.sh does without a kernel to load into: settings, building once, refusing.

The kernel tree is a stand-in whose Makefile makes files with the right names; the real one is
under tests/vm.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.allow_subprocess

PROJECT = Path(__file__).resolve().parents[2]
RELEASE = "6.0-standin"
USAGE, ROOT, KERNEL, TOOLS, HEADERS, BUILD, UNLOAD = 2, 3, 4, 5, 6, 8, 11

STANDIN_MAKEFILE = """
modules:
\t@test ! -e $(FAIL) || { echo "sysinfo.c:1: error: it was to fail"; exit 1; }
\t@echo once >> $(COUNT)
\t@for m in sysinfo continfo; do \\
\t  cat $(M)/$$m.c > $(M)/$$m.ko; \\
\t  echo 'MODULE_INFO(srcversion, "00112233445566778899AAB");' > $(M)/$$m.mod.c; done
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the script needs, free to be changed."""
    for part in ("bash", "kernel/modules"):
        source, target = PROJECT / part, tmp_path / "checkout" / part
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    return tmp_path / "checkout"


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """A stand-in for a built kernel tree; `count` in it has a line for each build."""
    tree = tmp_path / "kernel-tree"
    (tree / "include/config").mkdir(parents=True)
    (tree / "include/config/auto.conf").write_text("CONFIG_MODULES=y\n")
    (tree / "scripts/mod").mkdir(parents=True)
    (tree / "scripts/mod/modpost").write_text("")
    (tree / "scripts/mod/modpost").chmod(0o755)
    names = f"FAIL = {tree}/fail\nCOUNT = {tree}/count\n"
    (tree / "Makefile").write_text(names + STANDIN_MAKEFILE)
    return tree


def script(checkout: Path, *options: str, **settings: object) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SO1_")}
    environment |= {"KERNEL_RELEASE": RELEASE} | {
        key: str(value) for key, value in settings.items()
    }
    return subprocess.run(
        ["bash", str(checkout / "bash/load_modules.sh"), *options],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def build(checkout: Path, kernel: Path, **settings: object) -> subprocess.CompletedProcess[str]:
    root = kernel.parent / "build"
    return script(checkout, "--build-only", KDIR=kernel, SO1_BUILD_ROOT=root, **settings)


def builds(kernel: Path) -> int:
    count = kernel / "count"
    return len(count.read_text().splitlines()) if count.exists() else 0


def last_words(done: subprocess.CompletedProcess[str], status: int) -> str:
    assert done.returncode == status, done.stderr
    return done.stderr.splitlines()[-1]


def test_help_names_every_exit_status(checkout: Path) -> None:
    done = script(checkout, "-h")
    assert done.returncode == 0
    text = (checkout / "bash/load_modules.sh").read_text()
    statuses = {int(word.split("=")[1]) for word in text.split() if word.startswith("E_")}
    assert len(statuses) == 10
    for status in statuses:
        assert f" {status} " in done.stdout.replace("\n", " ")


@pytest.mark.parametrize("options", [("--nonsense",), ("--unload", "--unload"), ("load",)])
def test_wrong_options_are_refused(checkout: Path, options: tuple[str, ...]) -> None:
    assert "--help" in last_words(script(checkout, *options), USAGE)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("SO1_SYSINFO_ENTRY", "stat"),
        ("SO1_SYSINFO_ENTRY", "sysinfo/../x"),
        ("SO1_CONTINFO_ENTRY", "sysinfo"),
        ("SO1_CONTINFO_ENTRY", "continfo x"),
        ("SO1_MODULE_MODE", "0666"),
        ("SO1_MODULE_MODE", "444"),
        ("SO1_MAX_SNAPSHOTS", "0"),
        ("SO1_MAX_SNAPSHOTS", "many"),
    ],
)
def test_settings_that_make_no_sense_are_refused(checkout: Path, setting: str, value: str) -> None:
    assert setting in last_words(script(checkout, "--print-dir", **{setting: value}), USAGE)


def test_it_builds_once_and_prints_where(checkout: Path, kernel: Path) -> None:
    first, second = build(checkout, kernel), build(checkout, kernel)
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    assert second.stderr == ""
    assert builds(kernel) == 1
    directory = Path(first.stdout.strip())
    assert directory.parent == kernel.parent / "build" / RELEASE
    assert {path.name for path in directory.iterdir()} == {
        *("sysinfo.ko", "continfo.ko", "sysinfo.srcversion", "continfo.srcversion"),
        *("build.log", "SHA256SUMS"),
    }
    assert (directory / "sysinfo.srcversion").read_text() == "00112233445566778899AAB\n"
    assert not list((checkout / "kernel/modules").glob("*.ko"))


def test_the_directory_follows_the_sources_and_nothing_else(checkout: Path, kernel: Path) -> None:
    def directory() -> str:
        return script(checkout, "--print-dir").stdout

    before = directory()
    (checkout / "kernel/modules/sysinfo.o").write_text("what a build leaves")
    (checkout / "kernel/modules/sysinfo.mod").write_text("what a build leaves")
    assert directory() == before
    with (checkout / "kernel/modules/probe/control.c").open("a") as file:
        file.write("/* changed */\n")
    assert directory() != before


def test_a_damaged_build_is_made_again(checkout: Path, kernel: Path) -> None:
    directory = Path(build(checkout, kernel).stdout.strip())
    (directory / "continfo.ko").write_bytes(b"")
    assert build(checkout, kernel).returncode == 0
    (directory / "SHA256SUMS").unlink()
    assert build(checkout, kernel).returncode == 0
    assert builds(kernel) == 3


def test_a_failed_build_says_why_and_leaves_nothing_half(checkout: Path, kernel: Path) -> None:
    (kernel / "fail").write_text("")
    line = last_words(build(checkout, kernel), BUILD)
    log = kernel.parent / "build" / RELEASE / "failed.log"
    assert "sysinfo.c:1: error: it was to fail" in line
    assert str(log) in line
    assert {path.name for path in log.parent.iterdir()} == {".lock", "failed.log"}
    (kernel / "fail").unlink()
    assert build(checkout, kernel).returncode == 0
    assert not log.exists()


def test_what_a_killed_build_left_is_cleared_away(checkout: Path, kernel: Path) -> None:
    left = kernel.parent / "build" / RELEASE / ".aside-killed"
    left.mkdir(parents=True)
    assert build(checkout, kernel).returncode == 0
    assert not left.exists()


def test_builds_at_once_are_one(checkout: Path, kernel: Path) -> None:
    environment = os.environ | {
        "KERNEL_RELEASE": RELEASE,
        "KDIR": str(kernel),
        "SO1_BUILD_ROOT": str(kernel.parent / "build"),
    }
    calls = [
        subprocess.Popen(
            ["bash", checkout / "bash/load_modules.sh", "--build-only"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(4)
    ]
    assert [call.wait(timeout=60) for call in calls] == [0] * 4
    assert builds(kernel) == 1


def test_missing_headers_are_said_with_their_package(checkout: Path, kernel: Path) -> None:
    line = last_words(build(checkout, kernel / "none"), HEADERS)
    assert RELEASE in line
    assert str(kernel / "none") in line
    (kernel / "scripts/mod/modpost").unlink()
    assert "only in part" in last_words(build(checkout, kernel), HEADERS)


def test_a_missing_compiler_is_the_one_that_the_headers_name(checkout: Path, kernel: Path) -> None:
    (kernel / ".kernelvariables").write_text(
        "override CC = $(if $(DEBIAN_KERNEL_USE_CCACHE),ccache) none-gcc-99\n"
    )
    assert "none-gcc-99" in last_words(build(checkout, kernel), TOOLS)


def test_a_directory_that_cannot_be_made_is_said(checkout: Path, kernel: Path) -> None:
    (kernel.parent / "build").write_text("a file")
    assert "SO1_BUILD_ROOT" in last_words(build(checkout, kernel), BUILD)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
def test_a_user_is_told_to_use_sudo(checkout: Path) -> None:
    checkout.parent.chmod(0o755)
    for parent in checkout.parents[1:4]:  # one more where a worker has its own
        if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 0o1000:
            parent.chmod(0o755)
    for options in ([], ["--unload"]):
        done = subprocess.run(
            ["bash", checkout / "bash/load_modules.sh", *options],
            user=65534,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "sudo" in last_words(done, ROOT)


@pytest.mark.parametrize(
    ("parent", "status"),
    [("", 0), (str(os.getpid()), 0), ("1", 9), (f"{os.getpid()}1", 9)],
    ids=["nobody", "this process", "init", "another one"],
)
def test_nothing_is_loaded_for_an_agent_that_has_ended(
    checkout: Path, parent: str, status: int
) -> None:
    text = (checkout / "bash/load_modules.sh").read_text()
    assert "    take_turn 120\n    require_parent\n" in text
    function = text[text.index("require_parent() {") :].partition("\n}\n")[0]
    code = f"fail() {{ exit $1; }}; E_LOAD=9; {function}\n}}; require_parent; exit 0"
    done = subprocess.run(["bash", "-c", code], env={"SO1_PARENT": parent, "PATH": os.defpath})
    assert done.returncode == status


STANDIN_KERNEL = """
REMOVAL_S=%(removal_s)s REMOVAL_TRIES=2
take_turn() { exec {turn}>"%(directory)s/lock"; flock -w "$1" "$turn"; }
require_root() { :; }
is_loaded() { [[ -e "%(directory)s/$1" ]]; }
is_going() { grep -qsx going "%(directory)s/$1"; }
files_of() { printf '%%s\\n' "%(directory)s/$1"; }
rmmod() {
    if [[ -e "%(directory)s/$1.used" ]]; then
        echo "rmmod: ERROR: Module $1 is in use" >&2
        [[ ! -e "%(directory)s/$1.once" ]] || rm "%(directory)s/$1.used"
        return 1
    fi
    [[ -e "%(directory)s/$1.held" ]] || { rm "%(directory)s/$1"; return; }
    echo going >"%(directory)s/$1"
    # Like the kernel's, it waits for the reader, and no signal ends it.
    (trap '' TERM INT; while [[ -e "%(directory)s/$1.held" ]]; do sleep 0.05; done)
    rm "%(directory)s/$1"
}
"""


class Modules:
    """The script's own functions, on modules that are files: one with `NAME.held` beside it cannot
    be removed until that is gone."""

    def __init__(self, checkout: Path, directory: Path) -> None:
        self.directory = directory
        self._path = checkout / "bash" / "load_modules.sh"
        self._text = self._path.read_text().rstrip()
        assert self._text.endswith('main "$@"')
        removal = checkout / "bash" / "lib" / "modules_removal.sh"
        text = removal.read_text()
        assert "readonly REMOVAL_S=" in text
        assert text.count("/sys/module/$1/parameters/holders") == 1
        removal.write_text(
            text.replace("readonly REMOVAL_S=", "REMOVAL_S=").replace(
                "/sys/module/$1/parameters/holders", f"{directory}/$1.holders"
            )
        )
        for name in ("sysinfo", "continfo"):
            (directory / name).write_text("live\n")

    def unload(self, removal_s: int = 1) -> subprocess.CompletedProcess[str]:
        standin = STANDIN_KERNEL % {"directory": self.directory, "removal_s": removal_s}
        self._path.write_text(self._text.removesuffix('main "$@"') + standin + "unload_all\n")
        return subprocess.run(
            ["bash", str(self._path)], capture_output=True, text=True, timeout=60, check=False
        )

    def loaded(self) -> set[str]:
        return {name for name in ("sysinfo", "continfo") if (self.directory / name).exists()}


@pytest.fixture
def modules(checkout: Path, tmp_path: Path) -> Modules:
    directory = tmp_path / "loaded"
    directory.mkdir()
    return Modules(checkout, directory)


def test_both_are_unloaded_where_nobody_reads(modules: Modules) -> None:
    done = modules.unload(removal_s=30)
    assert done.returncode == 0, done.stderr
    assert modules.loaded() == set()


def test_a_reader_that_holds_a_removal_is_named_and_the_other_module_goes(
    modules: Modules,
) -> None:
    held = modules.directory / "continfo.held"
    held.touch()
    with (modules.directory / "continfo").open("rb") as file:
        reader = subprocess.Popen(["sleep", "600"], stdin=file)
    try:
        line = last_words(modules.unload(), UNLOAD)
        assert f"sleep ({reader.pid})" in line
        assert f"sudo kill -9 {reader.pid};" in line
        assert modules.loaded() == {"continfo"}
        # The removal that was left behind keeps neither our lock nor anybody's output: another run
        # is not held up by it, and says the same.
        assert f"sleep ({reader.pid})" in last_words(modules.unload(), UNLOAD)
    finally:
        reader.kill()
        reader.wait()
    held.unlink()
    done = modules.unload(removal_s=30)
    assert done.returncode == 0, done.stderr
    assert modules.loaded() == set()


def test_a_removal_that_is_refused_says_why_and_the_other_module_goes(modules: Modules) -> None:
    (modules.directory / "continfo.used").touch()
    line = last_words(modules.unload(removal_s=30), UNLOAD)
    assert "continfo cannot be unloaded (Module continfo is in use)" in line
    assert modules.loaded() == {"continfo"}


def test_who_reads_a_module_that_is_in_use_is_named(modules: Modules) -> None:
    reader = subprocess.Popen(["sleep", "600"])
    try:
        (modules.directory / "continfo.used").touch()
        (modules.directory / "continfo.holders").write_text(f"{reader.pid}\n")
        line = last_words(modules.unload(removal_s=30), UNLOAD)
    finally:
        reader.kill()
        reader.wait()
    assert f"a read of sleep ({reader.pid}) keeps it" in line
    assert modules.loaded() == {"continfo"}


def test_a_module_in_use_for_a_moment_only_is_tried_again(modules: Modules) -> None:
    used = modules.directory / "sysinfo.used"
    used.touch()
    # The reader has gone by the second attempt: the first one takes its mark away.
    modules.directory.joinpath("sysinfo.once").touch()
    done = modules.unload(removal_s=30)
    assert done.returncode == 0, done.stderr
    assert modules.loaded() == set()


def test_who_holds_the_lock_of_the_modules_is_named_and_who_waits_for_it_is_not(
    checkout: Path, tmp_path: Path
) -> None:
    lock = tmp_path / "modules.lock"
    path = checkout / "bash" / "load_modules.sh"
    text = path.read_text().rstrip().removesuffix('main "$@"')
    path.write_text(f'{text}\nusers -l "{lock}"\n')
    with lock.open("wb") as held, lock.open("rb") as waiting:
        fcntl.flock(held, fcntl.LOCK_EX)
        holder = subprocess.Popen(["sleep", "600"], stdin=held)
        waiter = subprocess.Popen(["sleep", "600"], stdin=waiting)
    try:
        done = subprocess.run(["bash", str(path)], capture_output=True, text=True, check=True)
        assert done.stdout == f"sleep ({holder.pid})"
    finally:
        for one in (holder, waiter):
            one.kill()
            one.wait()


@pytest.mark.skipif(Path("/proc/modules").exists(), reason="needs a kernel without modules")
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_kernel_without_modules_is_said(checkout: Path) -> None:
    done = script(checkout, KERNEL_RELEASE=os.uname().release)
    assert "without loadable modules" in last_words(done, KERNEL)
