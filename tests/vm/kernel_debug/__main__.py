"""Builds the debug kernel, runs the module tests on it and the planted mistakes, and reports.

For whoever changes `kernel/modules/`. The kernel is Debian's 6.12 source with `debug.config`, kept
in the lab's cache; the guest is Debian 13's image.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from tests.lab import cache
from tests.lab.bootstrap import APT_NETWORK, guest_apt_settings, in_tree
from tests.lab.errors import LabError
from tests.lab.guests import find_guest
from tests.lab.image import PROJECT, obtain_image
from tests.lab.process import need, run, say, step
from tests.lab.session import checkout_files

from .planted import PLANTED, Planted, plant

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).parent
CONFIG = HERE / "debug.config"
REPORT = PROJECT / "docs/reports/kernel-debug.md"
GUEST = "debian13"
SOURCE_PACKAGE = "linux-source-6.12"

TESTS = (
    *("tests/vm/test_modules_figures.py", "tests/vm/test_modules_names.py"),
    *("tests/vm/test_modules_snapshot.py", "tests/vm/test_modules_scale.py"),
    *("tests/vm/test_modules_readers.py", "tests/vm/test_modules_sharing.py"),
    "tests/vm/test_load_modules.py",
    "tests/vm/kernel_debug",
)
# What asks for Debian's own kernel: its headers, its lockdown, its package of this release.
NOT_ON_IT = "not lock and not firmware and not missing_program and not missing_headers"
BPF_TESTS = ("tests/vm/test_bpf_witness.py",)
_MINUTES = 60


@dataclass(frozen=True, slots=True)
class Run:
    """One boot: its name, whether it went as it has to, and a line of what was seen."""

    name: str
    passed: bool
    seen: str
    took_s: float


def kernel_tree() -> Path:
    """The built tree, from the cache or made now (over an hour of one CPU); one that was cut off
    is gone on with."""
    parent = cache.directory() / "kernel-debug"
    key = cache.key([SOURCE_PACKAGE, CONFIG])
    tree = parent / f"tree-{key}"
    if (tree / "built").exists():
        return tree
    for program, package in (
        ("bc", "bc"),
        ("flex", "flex"),
        ("bison", "bison"),
        ("pahole", "dwarves"),
        ("cpio", "cpio"),
    ):
        need(program, package)
    need_header("gelf.h", "libelf-dev")
    if not (tree / "unpacked").exists():
        shutil.rmtree(tree, ignore_errors=True)
        tree.mkdir(parents=True)
        with step(f"source {SOURCE_PACKAGE}"):
            unpack_source(tree)
        (tree / "unpacked").touch()
    log = parent / "build.log"
    log.unlink(missing_ok=True)
    make = ["nice", "-n", "19", "make", "-C", str(tree), f"-j{os.environ.get('SO1_JOBS', '1')}"]
    run([*make, f"KCONFIG_ALLCONFIG={CONFIG}", "allnoconfig"], timeout_s=10 * _MINUTES, log=log)
    with step("debug kernel"):
        run([*make, "bzImage", "modules"], timeout_s=180 * _MINUTES, log=log)
    (tree / "built").touch()
    return tree


def need_header(header: str, package: str) -> None:
    if not Path("/usr/include", header).exists():
        raise LabError(f"{header} is missing", f"apt-get install {package}")


def unpack_source(tree: Path) -> None:
    """Fetch Debian's source package through the guest's own apt, and unpack it into `tree`."""
    image = obtain_image(find_guest(GUEST))
    with tempfile.TemporaryDirectory(prefix="so1-debug-source-") as name:
        place = Path(name)
        (place / "settings").write_text(guest_apt_settings(image.guest), encoding="utf-8")
        script = (
            "mkdir -p /run/apt/lists/partial && cd /run/source && APT_CONFIG=/run/source/settings "
            "&& export APT_CONFIG && apt-get -q -o Dir::State::Lists=/run/apt/lists update "
            f"&& apt-get -q -o Dir::State::Lists=/run/apt/lists download {SOURCE_PACKAGE}"
        )
        in_tree(
            image.tree,
            ["/bin/sh", "-c", script],
            timeout_s=20 * _MINUTES,
            network=APT_NETWORK,
            writable_binds={place: "/run/source"},
        )
        (package,) = place.glob("*.deb")
        run(["dpkg-deb", "-x", package, place / "unpacked"], timeout_s=10 * _MINUTES)
        archive = place / f"unpacked/usr/src/{SOURCE_PACKAGE}.tar.xz"
        run(["tar", "-C", tree, "--strip-components=1", "-xf", archive], timeout_s=20 * _MINUTES)


def lab(
    checkout: Path, results: Path, verb: str, *words: str, timeout_s: int = 90 * _MINUTES
) -> int:
    """Run the lab of `checkout`; its exit status. What it says goes to lab.log in `results`."""
    results.mkdir(parents=True, exist_ok=True)
    options = ["--memory", "6144", "--timeout", str(timeout_s), "--results", str(results)]
    with (results / "lab.log").open("wb") as log:
        return subprocess.run(
            [sys.executable, "-m", "tests.lab", verb, GUEST, *options, *words],
            cwd=checkout,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode


def clean(tree: Path, results: Path) -> Run:
    """The module tests, of which none may fail and during which the kernel may not complain."""
    words = ("-k", NOT_ON_IT, *TESTS, "--", "-q")
    return without_mistake("the modules as they are", "clean", tree, results, *words)


def clean_with_bpf(tree: Path, results: Path) -> Run:
    """The tests of the BPF programs likewise, with the modules loaded."""
    words = (*BPF_TESTS, "--", "--full", "-q")
    return without_mistake("the BPF programs beside them", "bpf", tree, results, *words)


def without_mistake(name: str, place_name: str, tree: Path, results: Path, *words: str) -> Run:
    begun = time.monotonic()
    place = results / place_name
    status = lab(PROJECT, place, "pytest", "--kernel-tree", str(tree), *words)
    seen = f"status {status}: {summary(place / 'junit.xml')}"
    return Run(name, status == 0, seen, time.monotonic() - begun)


def summary(junit: Path) -> str:
    if not junit.exists():
        return "no report"
    suite = ElementTree.parse(junit).getroot().find("testsuite")
    if suite is None:
        return "an empty report"
    return ", ".join(
        f"{suite.get(key, '?')} {key}" for key in ("tests", "failures", "errors", "skipped")
    )


def with_mistake(mistake: Planted, tree: Path, results: Path) -> Run:
    """One boot with one mistake, since the first report turns the kernel's checks off."""
    begun = time.monotonic()
    place = results / re.sub(r"\W+", "-", mistake.name)
    with tempfile.TemporaryDirectory(prefix="so1-planted-") as name:
        copy = Path(name)
        for file in checkout_files():
            if (PROJECT / file).is_file():
                (copy / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(PROJECT / file, copy / file)
        plant(mistake, copy)
        lab(
            copy,
            place,
            "run",
            "--no-install",
            *("--kernel-tree", str(tree), "--", "bash", "tests/vm/kernel_debug/exercise.sh"),
            timeout_s=15 * _MINUTES,  # a lock taken twice is reported, and then hangs for good
        )
    lines = kernel_lines(place)
    found = next((line for line in lines if re.search(mistake.report, line)), None)
    return Run(mistake.name, found is not None, found or "not reported", time.monotonic() - begun)


def kernel_lines(place: Path) -> list[str]:
    """The kernel's log of a boot, without levels and time stamps."""
    text = "\n".join(
        path.read_text(encoding="utf-8", errors="replace")
        for path in (place / "kernel.log", place / "console.log")
        if path.exists()
    )
    return [re.sub(r"^(<\d+>)?\s*(\[[^]]*\]\s*)?", "", line) for line in text.splitlines()]


def report(runs: Sequence[Run], release: str) -> str:
    rows = [
        f"| {run.name} | {'as it has to be' if run.passed else '**NOT**'} | `{run.seen}` "
        f"| {run.took_s:.0f} |"
        for run in runs
    ]
    return "\n".join(
        [
            "# The modules on a debug kernel",
            "",
            f"Linux {release}: KASAN, UBSAN, lockdep (locks and RCU), sleeping in atomic context,",
            "kmemleak, list and object debugging, fault injection; preemptible; under QEMU TCG.",
            f"Made by `python3 -m tests.vm.kernel_debug` on {time.strftime('%Y-%m-%d')}.",
            "",
            "In the first two rows tests pass while the kernel has nothing to say. Each other row",
            "is the control: a boot with one mistake planted, which has to be reported.",
            "",
            "| what | outcome | seen | s |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests.vm.kernel_debug", description=__doc__)
    parser.add_argument(
        "what",
        nargs="?",
        choices=["build", "clean", "bpf", "planted", "all"],
        default="all",
        help="all also writes the report",
    )
    parser.add_argument("--only", metavar="TEXT", default="", help="mistakes with TEXT in the name")
    parser.add_argument("--results", type=Path, help="default: kernel-debug/results in the cache")
    options = parser.parse_args()
    try:
        return work(options.what, options.only, options.results)
    except LabError as error:
        say(str(error))
        return 120


def work(what: str, only: str, results: Path | None) -> int:
    tree = kernel_tree()
    if what == "build":
        print(tree)
        return 0
    results = results or cache.directory() / "kernel-debug" / "results"
    runs = []
    if what in ("clean", "all"):
        runs.append(clean(tree, results))
        say(f"{runs[-1].name}: {runs[-1].seen}")
    if what in ("bpf", "all"):
        runs.append(clean_with_bpf(tree, results))
        say(f"{runs[-1].name}: {runs[-1].seen}")
    if what in ("planted", "all"):
        for mistake in PLANTED:
            if only in mistake.name:
                runs.append(with_mistake(mistake, tree, results))
                say(f"{runs[-1].name}: {runs[-1].seen}")
    if what == "all":
        release = (tree / "include/config/kernel.release").read_text(encoding="utf-8").strip()
        REPORT.parent.mkdir(parents=True, exist_ok=True)
        REPORT.write_text(report(runs, release), encoding="utf-8")
    return 0 if runs and all(run.passed for run in runs) else 1


if __name__ == "__main__":
    sys.exit(main())
