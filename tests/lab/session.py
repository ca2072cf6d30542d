"""One run in a guest, from the checkout as it is now to a verdict and a directory of results.

Composes the other parts: image, modules, the share that tells the guest what to do, the boot, and
the look at its kernel log.
"""

from __future__ import annotations

import shlex
import shutil
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import cache
from .errors import KernelComplaintError, LabError, LostGuestError
from .image import PROJECT
from .images import obtain_image
from .kernel_log import complaints, emulators_fault
from .modules import obtain_modules
from .network import network_share
from .process import run, say
from .vm import Machine, boot, terminal_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .guests import Guest
    from .image import Image

_RESULTS_KEPT = 30
_NOT_CHECKED_OUT = frozenset({".git", "__pycache__", ".mypy_cache", ".ruff_cache", ".hypothesis"})


@dataclass(frozen=True, slots=True)
class Request:
    """What to run and how. `command` is run as root in the guest's copy of the checkout."""

    guest: Guest
    command: tuple[str, ...]
    machine: Machine
    results: Path | None = None
    allowed_log: tuple[str, ...] = ()
    docker_opt: str = ""
    dockerd: Path | None = None
    """An engine to run in place of the guest's own."""
    # The agent installed, and modules for it that were built outside.
    install: bool = True
    seed_modules: bool = True
    kernel_tree: Path | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The command's own status, the kernel's complaints, and where everything lies."""

    status: int
    complaints: tuple[str, ...]
    results: Path


def run_in_guest(request: Request, write: Callable[[bytes], None]) -> Outcome:
    """Run it; the output goes to `write` live.

    LostGuestError when the guest ends first, GuestTimeoutError when its time is over.
    """
    # What takes long is made before the lock is taken; inside it both are only looked up again,
    # for another run may have replaced them while this one waited.
    modules_for(request, obtain_image(request.guest))
    results = results_directory(request)
    purpose = f"{request.guest.name}: {shlex.join(request.command)[:100]}"
    with cache.lock("guest", purpose), tempfile.TemporaryDirectory(prefix="so1-lab-") as share:
        image = obtain_image(request.guest)
        fill_share(Path(share), request, modules_for(request, image))
        say(f"{request.guest.name}: booting; results in {results}")
        try:
            status = boot_again_if_the_emulator_failed(
                lambda: boot(image, request.machine, Path(share), results, write),
                results,
                request.guest.name,
            )
        finally:
            found = read_complaints(results, request.allowed_log)
            for line in found:
                say(f"{request.guest.name}: kernel: {line}")
    return Outcome(status, tuple(found), results)


def modules_for(request: Request, image: Image) -> Path | None:
    """The modules to seed the guest with, unless it is to build its own."""
    if request.guest.fresh or not request.seed_modules:
        return None
    return obtain_modules(image, request.kernel_tree)


def boot_again_if_the_emulator_failed(
    attempt: Callable[[], int], results: Path, name: str, attempts: int = 3
) -> int:
    """The status of `attempt`, made again when a known fault of QEMU itself lost the guest.

    Only for an oops that no code in the guest can cause, and never silently; the console of the
    lost one stays as console.log.N. Any other lost guest is lost.
    """
    for number in range(1, attempts + 1):
        try:
            return attempt()
        except LostGuestError:
            console = results / "console.log"
            if number == attempts or not console.exists():
                raise
            lines = console.read_text(encoding="utf-8", errors="replace").splitlines()
            if not emulators_fault(lines):
                raise
            console.rename(results / f"console.log.{number}")
            say(
                f"{name}: lost to a known fault of QEMU before 8.1 (a stale int3 under "
                f"multi-threaded TCG); once more, attempt {number + 1} of {attempts}"
            )
    raise LabError(f"{attempts} attempts are none")


def verdict(outcome: Outcome, guest: Guest) -> int:
    """The status to exit with; KernelComplaintError when only the kernel was unhappy."""
    if outcome.complaints and outcome.status == 0:
        raise KernelComplaintError(
            f"the kernel of {guest.name} complained: {outcome.complaints[0]}",
            f"{outcome.results}/kernel.log; allow a line that is meant with --allow-log REGEX",
        )
    return outcome.status


def results_directory(request: Request) -> Path:
    """The directory asked for, or a fresh one in the cache, of which the newest are kept."""
    if request.results is not None:
        request.results.mkdir(parents=True, exist_ok=True)
        for name in ("kernel.log", "console.log", "journal.log", "junit.xml", "qemu.log"):
            (request.results / name).unlink(missing_ok=True)
        return request.results.resolve()
    parent = cache.directory() / "results"
    parent.mkdir(exist_ok=True)
    old = sorted(parent.iterdir(), key=lambda path: path.name)
    for path in old[: max(0, len(old) - _RESULTS_KEPT)]:
        shutil.rmtree(path, ignore_errors=True)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return Path(tempfile.mkdtemp(prefix=f"{stamp}-{request.guest.name}-", dir=parent))


def read_complaints(results: Path, allowed: Sequence[str]) -> list[str]:
    """Complaints from the console (which a lost guest leaves too) and the whole kernel log."""
    lines: list[str] = []
    for name in ("console.log", "kernel.log"):
        path = results / name
        if path.exists():
            lines += path.read_text(encoding="utf-8", errors="replace").splitlines()
    return complaints(lines, allowed)


def fill_share(lab: Path, request: Request, modules: Path | None) -> None:
    """Write what guest.sh reads: the command, settings, the checkout as it is now, modules."""
    lab.chmod(0o755)
    shutil.copy(Path(__file__).parent / "guest" / "guest.sh", lab / "guest.sh")
    (lab / "command").write_bytes(b"".join(word.encode() + b"\0" for word in request.command))
    settings = {
        "LAB_DOCKER_OPT": request.docker_opt,
        "LAB_INSTALL": str(int(request.install and not request.guest.fresh)),
        "LAB_NET": str(int(request.machine.network)),
        "LAB_INTERACTIVE": str(int(request.machine.interactive)),
    }
    if request.machine.interactive:
        settings |= terminal_settings()
    if request.machine.network:
        network_share(lab, request.guest)
    lines = [f"{name}={shlex.quote(value)}\n" for name, value in settings.items()]
    (lab / "settings").write_text("".join(lines), encoding="utf-8")
    pack_checkout(lab / "checkout.tar")
    if request.dockerd is not None:
        copy_engine(request.dockerd, lab / "engine")
    if modules is not None:
        shutil.copytree(modules, lab / "build", ignore=shutil.ignore_patterns("build.log"))


def copy_engine(program: Path, directory: Path) -> None:
    """Copy an engine and what it links to, for a guest to take what it has not got itself."""
    directory.mkdir()
    shutil.copy(program, directory / "dockerd")
    for line in run(["ldd", program], timeout_s=60).splitlines():
        name, _, rest = line.strip().partition(" => ")
        if rest:
            shutil.copy(rest.split()[0], directory / name)


def pack_checkout(target: Path) -> None:
    """The files of the checkout, committed or not, without what git ignores; all root's."""

    def as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        return member

    with tarfile.open(target, "w") as archive:
        for name in checkout_files():
            path = PROJECT / name
            if path.is_symlink() or path.is_file():
                archive.add(path, name, recursive=False, filter=as_root)


def checkout_files() -> list[str]:
    """Relative names; by git where there is one, else everything but caches."""
    if (PROJECT / ".git").exists() and shutil.which("git"):
        try:
            listed = run(
                # The checkout may be another user's: git refuses that unless told.
                [
                    *("git", "-c", f"safe.directory={PROJECT}", "-C", PROJECT),
                    *("ls-files", "-z", "--cached", "--others", "--exclude-standard"),
                ],
                timeout_s=60,
            )
            return sorted({name for name in listed.split("\0") if name})
        except LabError as error:
            say(f"git does not list the checkout, taking all of it: {error}")
    return sorted(
        str(path.relative_to(PROJECT))
        for path in PROJECT.rglob("*")
        if not _NOT_CHECKED_OUT.intersection(path.relative_to(PROJECT).parts)
    )
