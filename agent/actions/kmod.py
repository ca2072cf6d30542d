"""Loads and unloads the two kernel modules through `bash/load_modules.sh`.

The script builds what is not built yet, verifies what it loaded and undoes its own failure; this
module gives its last words to people and knows which modules are loaded.
"""

from __future__ import annotations

from pathlib import Path

from agent.errors import ModulesError
from agent.run import CommandError, run

MODULES = ("sysinfo", "continfo")

_BUILD_TIMEOUT_S = 900.0
_UNLOAD_TIMEOUT_S = 60.0


def script() -> Path:
    """The loader beside this package: `/opt/so1/src/bash/load_modules.sh` where it is installed."""
    return Path(__file__).resolve().parents[2] / "bash" / "load_modules.sh"


def loaded(sys_module: Path = Path("/sys/module")) -> tuple[str, ...]:
    """Those of our modules that the kernel has now."""
    return tuple(name for name in MODULES if (sys_module / name).is_dir())


def load(build_root: Path) -> None:
    """Builds if need be, loads and verifies both. Raises ModulesError with the script's reason."""
    try:
        done = run(
            ["bash", str(script())],
            timeout_s=_BUILD_TIMEOUT_S,
            check=False,
            env={"SO1_BUILD_ROOT": str(build_root)},
        )
    except CommandError as error:
        raise ModulesError(error.message, error.hint) from error
    if done.status != 0:
        raise ModulesError(
            f"The kernel modules could not be loaded: {done.last_line or 'no reason given'}",
            f"`sudo {script()}` shows all of it.",
        )


def unload() -> tuple[str, ...]:
    """Removes both modules, whoever loaded them, and names those that were there.

    Raises ModulesError where one stays, naming it.
    """
    before = loaded()
    if not before:
        return ()
    try:
        done = run(["bash", str(script()), "--unload"], timeout_s=_UNLOAD_TIMEOUT_S, check=False)
        said = done.last_line
    except CommandError as error:
        said = error.message
    left = loaded()
    if left:
        raise ModulesError(
            f"The kernel module {' and '.join(left)} stays loaded: {said}",
            f"Run `sudo rmmod {' '.join(reversed(left))}`.",
        )
    return before
