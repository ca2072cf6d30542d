"""The command line of the lab: list, build, run, pytest, shell and modules.

Exit status: the command's own; 120 when the lab could not do its part, 121 for a lost guest, 122
when its time was over, 123 when the command passed and the guest's kernel complained.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from . import cache
from .bootstrap import base_key
from .closing import closing, parse_layer
from .errors import LabError
from .guests import GUESTS, Guest, find_guest
from .image import VENV
from .images import image_key, obtain_image
from .modules import obtain_modules
from .process import say
from .report import read_report, summary_lines
from .session import Outcome, Request, run_in_guest, verdict
from .vm import CGROUPS, Machine, write_to_stdout

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

_EPILOG = """\
examples:
  python3 -m tests.lab run debian12 -- uname -r
  python3 -m tests.lab pytest debian13 -k modules tests/vm
  python3 -m tests.lab pytest debian12 --cgroup hybrid tests/vm -- -x -s
  python3 -m tests.lab shell debian12

A command runs as root in the guest's copy of this checkout. What it writes to /results is found in
the results directory afterwards, beside kernel.log, console.log and, of a failure, journal.log.
The cache is /var/cache/so1-lab or SO1_LAB_CACHE.
"""


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python3 -m tests.lab",
        description="Boot real kernels under QEMU and run commands and tests inside them.",
        epilog=_EPILOG + "\n" + (__doc__ or "").split("\n", 2)[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("list", help="the guests and whether their images are in the cache")
    summary = verbs.add_parser("summary", help="the closing lines of a run of several layers")
    summary.add_argument("--strict", action="store_true", help="a vm layer that did not run fails")
    summary.add_argument("layers", nargs="+", metavar="NAME,SECONDS,STATUS,REPORT[,WHY]")
    for name, text in (
        ("build", "build images that are not in the cache"),
        ("modules", "build the kernel modules for guests"),
    ):
        verb = verbs.add_parser(name, help=text)
        verb.add_argument("guests", nargs="+", metavar="GUEST")
        if name == "modules":
            verb.add_argument("--kernel-tree", type=Path, metavar="DIR")
    run = verbs.add_parser("run", help="run a command in a guest: run GUEST -- CMD ARG…")
    _boot_options(run)
    pytest = verbs.add_parser("pytest", help="run tests in a guest; after -- more for pytest")
    _boot_options(pytest)
    pytest.add_argument("-k", dest="expression", metavar="EXPR", help="as pytest's")
    pytest.add_argument("-m", dest="markers", metavar="MARK", help="as pytest's")
    pytest.add_argument("paths", nargs="*", default=[], help="default: tests/vm")
    shell = verbs.add_parser("shell", help="a shell in a guest, or an interactive command after --")
    _boot_options(shell)
    return top


def _boot_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("guest", metavar="GUEST")
    verb.add_argument("--cgroup", choices=CGROUPS, default="v2")
    verb.add_argument("--memory", type=int, default=4096, metavar="MB")
    verb.add_argument("--smp", type=int, default=2, metavar="CPUS")
    verb.add_argument("--timeout", type=float, metavar="S", help="default 1800, shell none")
    verb.add_argument("--results", type=Path, metavar="DIR", help="default a fresh one, printed")
    verb.add_argument(
        "--allow-log",
        action="append",
        default=[],
        metavar="REGEX",
        help="kernel log lines that are meant; repeatable",
    )
    verb.add_argument("--append", default="", metavar="TEXT", help="more kernel command line")
    verb.add_argument(
        "--docker-opt", default="", metavar="OPT", help="e.g. native.cgroupdriver=cgroupfs"
    )
    verb.add_argument(
        "--dockerd", type=Path, metavar="PATH", help="an engine in place of the guest's own"
    )
    verb.add_argument(
        "--share",
        action="append",
        default=[],
        metavar="DIR:TAG",
        help="a read-only 9p share that the command mounts itself; repeatable",
    )
    verb.add_argument(
        "--net", action="store_true", help="user networking, with this machine's settings"
    )
    verb.add_argument(
        "--no-install", action="store_true", help="do not install the agent in the guest"
    )
    verb.add_argument(
        "--no-modules", action="store_true", help="do not seed the guest with built modules"
    )
    verb.add_argument("--kernel", type=Path, metavar="PATH", help="another kernel, without initrd")
    verb.add_argument(
        "--kernel-tree",
        type=Path,
        metavar="DIR",
        help="a built kernel tree: boots its bzImage and builds the modules for it",
    )


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The options; paths of `pytest` may stand after options too, which argparse alone refuses."""
    top = parser()
    options, more = top.parse_known_args(words)
    if more and (options.verb != "pytest" or any(word.startswith("-") for word in more)):
        top.error(f"unrecognized arguments: {shlex.join(more)}")
    if options.verb == "pytest":
        options.paths = [*options.paths, *more]
    return options


def request_of(options: argparse.Namespace, command: Sequence[str]) -> Request:
    """The request that the options of run, pytest and shell describe."""
    interactive = options.verb == "shell"
    kernel = options.kernel
    if options.kernel_tree is not None and kernel is None:
        kernel = options.kernel_tree / "arch/x86/boot/bzImage"
    shares = []
    for share in options.share:
        path, _, tag = share.rpartition(":")
        if not path or not tag or not Path(path).is_dir():
            raise LabError(f"--share {share}: not DIR:TAG with a directory")
        shares.append((tag, Path(path).resolve()))
    return Request(
        guest=find_guest(options.guest),
        command=tuple(command),
        machine=Machine(
            cgroup=options.cgroup,
            memory_mb=options.memory,
            cpus=options.smp,
            timeout_s=options.timeout or (7 * 86400 if interactive else 1800),
            append=options.append,
            kernel=kernel,
            network=options.net,
            interactive=interactive,
            shares=tuple(shares),
        ),
        results=options.results,
        allowed_log=tuple(options.allow_log),
        docker_opt=options.docker_opt,
        dockerd=options.dockerd,
        install=not options.no_install,
        seed_modules=not options.no_modules,
        kernel_tree=options.kernel_tree,
    )


def pytest_command(options: argparse.Namespace, more: Sequence[str]) -> list[str]:
    """What runs pytest in the guest; its report comes out as junit.xml."""
    command = [f"{VENV}/bin/python", "-m", "pytest", "-p", "no:cacheprovider"]
    command += ["--junit-xml=/results/junit.xml", "-o", "junit_family=xunit1", "-rs"]
    # Where time goes, and where a test hangs that the guest's own time-out would end unexplained.
    command += ["--durations=10", "--durations-min=5", "-o", "faulthandler_timeout=600"]
    if options.expression is not None:
        command += ["-k", options.expression]
    if options.markers is not None:
        command += ["-m", options.markers]
    return [*command, *more, *(options.paths or ["tests/vm"])]


def main(arguments: Sequence[str]) -> int:
    words = list(arguments)
    split = words.index("--") if "--" in words else len(words)
    options = parse(words[:split])
    rest = words[split + 1 :]
    match options.verb:
        case "list":
            return list_guests()
        case "summary":
            layers = [parse_layer(text) for text in options.layers]
            lines, well = closing(layers, strict=options.strict)
            print("\n".join(lines))
            return 0 if well else 1
        case "build" | "modules":
            for name in options.guests:
                image = obtain_image(find_guest(name))
                if options.verb == "modules":
                    print(obtain_modules(image, options.kernel_tree))
                else:
                    print(image.directory)
            return 0
        case "run" if not rest:
            raise LabError("no command", "run GUEST -- CMD ARG…")
        case "pytest":
            request = request_of(options, pytest_command(options, rest))
        case _:
            request = request_of(options, rest or ["/bin/bash", "-il"])
    outcome = run_in_guest(request, write_to_stdout)
    if options.verb == "pytest":
        tell_report(request.guest, outcome)
    return verdict(outcome, request.guest)


def tell_report(guest: Guest, outcome: Outcome) -> None:
    """Say what pytest reported; LabError when it passed without a report."""
    path = outcome.results / "junit.xml"
    if not path.exists():
        if outcome.status == 0:
            raise LabError(f"pytest in {guest.name} left no report", str(outcome.results))
        return
    for line in summary_lines(read_report(path)):
        say(f"{guest.name}: {line}")


def list_guests() -> int:
    for guest in GUESTS.values():
        parent = cache.directory() / guest.name
        if (parent / f"image-{image_key(guest)}").is_dir():
            state = "image in the cache"
        elif (parent.with_name(guest.like or guest.name) / f"base-{base_key(guest)}").is_dir():
            state = "tree in the cache, image to be made"
        else:
            state = "not built"
        layouts = "v2, v1, hybrid" if guest.cgroup_v1 else "v2"
        print(f"{guest.name:18} Linux {guest.linux:5} {guest.suite:9} {layouts:15} {state}")
    return 0


def _end_on(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end_on)
    try:
        sys.exit(main(sys.argv[1:]))
    except LabError as error:
        say(f"error: {error.message}")
        if error.hint:
            print(error.hint, file=sys.stderr)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        say(f"interrupted: {shlex.join(sys.argv[1:])}")
        sys.exit(130)
