"""Where this code is installed, for paths that people are told and for defaults of settings.

A clone's installation is `/opt/so1`, a package's `/usr/lib/so1-agent`; both have the code in `src`
and its interpreter in `venv`. It imports nothing that may be missing.
"""

from __future__ import annotations

from pathlib import Path

CLONE = "/opt/so1"
PACKAGE = "/usr/lib/so1-agent"


def prefix_of(code: Path) -> str:
    """The prefix of an installation whose package `agent` is `code`; CLONE for a checkout."""
    source = code.parent
    is_installed = source.name == "src" and (source.parent / "venv").is_dir()
    return str(source.parent) if is_installed else CLONE


PREFIX = prefix_of(Path(__file__).resolve().parent)
SCRIPTS = f"{PREFIX}/src/bash"
INSTALL = (
    "sudo apt-get install --reinstall so1-agent"
    if PREFIX == PACKAGE
    else "./bash/start.sh --install-only"
)
"""The command that makes an installation whole again."""
SETTINGS = "/etc/so1/agent.toml (or the file of --config)"
"""Where people set something, for sentences that do not know which file was read."""
