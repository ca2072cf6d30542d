"""Loads and unloads the two kernel modules through `bash/load_modules.sh`.

The script builds what is not built yet, verifies what it loaded and undoes its own failure; this
module gives its last words to people and knows which modules are loaded.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from agent.config import ModulesSettings
from agent.errors import ModulesError
from agent.util.flock import try_flock
from agent.util.subprocess import CommandError, Running, run

MODULES = ("sysinfo", "continfo")

_BUILD_TIMEOUT_S = 900.0
_UNLOAD_TIMEOUT_S = 60.0
_TURN = Path("/run/so1/modules.lock")
"""Held by the script while it loads or unloads, and by what it runs."""


def script() -> Path:
    """The loader beside this package: `bash/load_modules.sh` of the installation."""
    return Path(__file__).resolve().parents[2] / "bash" / "load_modules.sh"


def loaded(sys_module: Path = Path("/sys/module")) -> tuple[str, ...]:
    """Those of our modules that the kernel has now."""
    return tuple(name for name in MODULES if (sys_module / name).is_dir())


def entries(settings: ModulesSettings) -> dict[str, str]:
    """What tells the script the names of the /proc files that are going to be read.

    A path elsewhere than directly in /proc is no module's to make, and changes no name.
    """
    paths = {
        "SO1_SYSINFO_ENTRY": Path(settings.sysinfo_path),
        "SO1_CONTINFO_ENTRY": Path(settings.continfo_path),
    }
    return {name: path.name for name, path in paths.items() if path.parent == Path("/proc")}


class ScriptAtWork:
    """The script at work: it builds if need be, which may take minutes, loads and verifies both."""

    def __init__(self, script_at_work: Running) -> None:
        self._script = script_at_work

    def fileno(self) -> int:
        """Readable once it has ended; valid until `poll` has said so."""
        return self._script.fileno()

    def poll(self) -> bool:
        """Whether the modules are loaded. Raises ModulesError, with the script's reason."""
        try:
            done = self._script.poll()
        except CommandError as error:
            raise ModulesError(
                f"The kernel modules could not be loaded: {error.message}",
                f"`sudo {script()}` shows why.",
            ) from error
        if done is not None and done.status != 0:
            raise ModulesError(
                f"The kernel modules could not be loaded: {done.last_line or 'no reason given'}",
                f"`sudo {script()}` shows all of it.",
            )
        return done is not None

    def cancel(self) -> None:
        """Ends the script and what it runs, wherever it is. A second call does nothing."""
        self._script.close()


def begin_loading(build_root: Path, settings: ModulesSettings) -> ScriptAtWork:
    """Starts the script in the background, for the names that `settings` has for /proc.

    Raises ModulesError where it cannot be started.
    """
    try:
        return ScriptAtWork(
            Running(
                ["bash", str(script())],
                timeout_s=_BUILD_TIMEOUT_S,
                env={
                    "SO1_BUILD_ROOT": str(build_root),
                    "SO1_PARENT": str(os.getpid()),
                    **entries(settings),
                },
            )
        )
    except CommandError as error:
        raise ModulesError(error.message, error.hint) from error


def unload() -> tuple[str, ...]:
    """Removes both modules, whoever loaded them, and names those that were there.

    Waits for a script that an agent killed meanwhile has left at work. Raises ModulesError where
    one stays, naming it.
    """
    at_work = _is_at_work()
    before = loaded()
    if not before and not at_work:
        return ()
    done_with_a_reason = False
    try:
        done = run(["bash", str(script()), "--unload"], timeout_s=_UNLOAD_TIMEOUT_S, check=False)
        said = done.last_line
        done_with_a_reason = done.status != 0 and bool(said)
        before = tuple(name for name in MODULES if f"unloaded {name}" in done.stderr) or before
    except CommandError as error:
        said = error.message
        if not loaded():
            raise ModulesError(error.message, error.hint) from error
    left = loaded()
    if left:
        # The script's last line has the remedy; where it never came to one, this is it.
        remedy = "" if done_with_a_reason else f"Run `sudo rmmod {' '.join(reversed(left))}`."
        raise ModulesError(f"The kernel module {' and '.join(left)} stays loaded: {said}", remedy)
    return before


def _is_at_work(turn: Path = _TURN) -> bool:
    """Whether a script loads or unloads at this moment."""
    try:
        descriptor = os.open(turn, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # none ever ran
        return False
    try:
        return not try_flock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)
