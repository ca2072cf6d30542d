"""The agent's own file in `/etc/cron.d`, by which cron generates load once a minute.

Never a user's crontab. The file is written aside under a name that cron ignores and renamed, and
only a file that carries our first line is ever replaced or removed. Nothing in it needs quoting:
what cron or the shell would read as more than a word is refused.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from agent.config import Config, CronSettings
from agent.errors import AgentError
from agent.place import INSTALL, PREFIX
from agent.util import files
from agent.util.subprocess import PATH

FILE_NAME = "so1-agent"
"""No dot in it: Debian's cron reads only names of letters, digits, `_` and `-`."""
MARKER = "# so1-agent: made by `agent start`, removed by `agent stop`; changes are lost."
DEFAULT_PROC = Path("/proc")

_PLAIN_PATH = re.compile(r"/[A-Za-z0-9._/+@:,=-]*")
_PLAIN_VALUE = re.compile(r"[A-Za-z0-9._/+@:,=-]+")
_NAME = re.compile(r"[A-Z][A-Z0-9_]*")
_DAEMONS = ("cron", "crond", "fcron", "systemd-cron")
_PID_FILES = ("run/crond.pid", "run/cron.pid", "var/run/crond.pid")


class CronError(AgentError):
    """The cron file cannot be put in place or taken away, or no cron daemon runs."""


def generator_environment(config: Config) -> dict[str, str]:
    """What `generar_contenedores.sh` is told, by cron and by the agent's own first call alike."""
    return {
        "DOCKER_HOST": config.docker_host,
        "SO1_IMAGE_LOW": config.images.low,
        "SO1_IMAGE_HIGH": config.images.high,
        "SO1_MAX_CONTAINERS": str(config.policy.max_containers),
        "SO1_RUN_DIR": config.paths.run,
        "SO1_LOG_DIR": config.paths.log,
        "SO1_INSTALLATION_FILE": str(Path(config.paths.database).parent / "installation"),
    }


def install(config: Config, script: Path) -> Path:
    """Puts our file in place, whatever an earlier run left there, and gives its path.

    Raises CronError where cron is not installed, another's file has our name, `script` is not
    root's alone, or a path or value holds a character that cron or the shell would read.
    """
    directory = Path(config.cron.directory)
    text = cron_text(script, generator_environment(config))
    check_trusted(script)
    if not directory.is_dir():
        raise CronError(
            f"{directory} does not exist, so cron cannot be told to generate containers.",
            "Install cron: `sudo apt-get install cron`.",
        )
    check_trusted(directory)
    target = directory / FILE_NAME
    if _exists(target) and not _is_ours(target):
        raise CronError(
            f"{target} is there and is not ours.", f"Look at it, then `sudo rm {target}`."
        )
    try:
        files.replace(target, text.encode("ascii"), 0o644, durable=True)
    except OSError as error:
        raise CronError(
            f"{target} cannot be written: {error.strerror}.", "Check the disk and the directory."
        ) from error
    return target


def remove(settings: CronSettings) -> bool:
    """Takes our file away and says whether it was there. Another's file of that name stays.

    Raises CronError where it cannot be removed.
    """
    directory = Path(settings.directory)
    target = directory / FILE_NAME
    try:
        files.aside_of(target).unlink(missing_ok=True)
        if not _is_ours(target):
            return False
        files.remove(target, durable=True)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise CronError(
            f"{target} cannot be removed: {error.strerror}.", f"Remove it: `sudo rm {target}`."
        ) from error
    return True


def is_installed(settings: CronSettings) -> bool:
    """Whether our file is in place."""
    return _is_ours(Path(settings.directory) / FILE_NAME)


def cron_text(script: Path, environment: Mapping[str, str]) -> str:
    """The file's text. Raises CronError for what would not survive cron and the shell unquoted.

    `%` is cron's newline, and an environment line takes everything up to the end of its line.
    """
    if not _PLAIN_PATH.fullmatch(str(script)):
        raise CronError(
            f"The path {str(script)!r} has characters that cron or the shell would read.",
            "Install the agent below a path of letters, digits and . _ / + @ : , = -.",
        )
    lines = [MARKER, "SHELL=/bin/sh", f"PATH={PATH}", 'MAILTO=""']
    for name, value in sorted(environment.items()):
        if not _NAME.fullmatch(name) or not _PLAIN_VALUE.fullmatch(value):
            raise CronError(
                f"{name}={value!r} has characters that cron would read.",
                "Use letters, digits and . _ / + @ : , = - in that setting.",
            )
        lines.append(f"{name}={value}")
    lines.append(f"* * * * * root /bin/bash {script} >/dev/null 2>&1")
    return "\n".join(lines) + "\n"


def daemon_problem(
    proc: Path = DEFAULT_PROC, root: Path = Path("/"), systemd: Path = Path("/run/systemd/system")
) -> CronError | None:
    """What keeps the file from being read, with its remedy; None if a cron runs."""
    if _daemon_runs(proc, root):
        return None
    installed = any((root / place).exists() for place in ("usr/sbin/cron", "usr/sbin/crond"))
    if not installed:
        return CronError(
            "cron is not installed, so no containers are generated each minute.",
            "Install it: `sudo apt-get install cron`.",
        )
    command = "sudo systemctl enable --now cron" if systemd.is_dir() else "sudo service cron start"
    return CronError(
        "No cron daemon runs, so no containers are generated each minute.",
        f"Start it: `{command}`.",
    )


def _daemon_runs(proc: Path, root: Path) -> bool:
    """By pid file first, else by a look at all processes of our own PID namespace.

    A container's cron is in the host's /proc too and reads the container's files, not ours.
    """
    pids = [pid for name in _PID_FILES if (pid := _pid_in(root / name))]
    pids += [int(entry.name) for entry in proc.iterdir() if entry.name.isdigit()]
    own_namespace = _link(proc / "self/ns/pid")
    for pid in pids:
        try:
            comm = (proc / str(pid) / "comm").read_text(errors="replace").strip()
        except OSError:  # ended meanwhile
            continue
        if comm in _DAEMONS and _link(proc / str(pid) / "ns/pid") == own_namespace:
            return True
    return False


def _pid_in(path: Path) -> int:
    try:
        text = path.read_text(errors="replace").strip()
    except OSError:
        return 0
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def _exists(path: Path) -> bool:
    return path.is_symlink() or path.exists()


def _is_ours(path: Path) -> bool:
    """A regular file of its owner's alone that begins with our line; never through a link."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid():
            return False
        wanted = (MARKER + "\n").encode("ascii")
        return os.pread(fd, len(wanted), 0) == wanted
    finally:
        os.close(fd)


def check_trusted(path: Path) -> None:
    """Refuses what somebody other than root could change before cron, as root, comes to it."""
    for place in (path, *path.parents):
        try:
            about = place.lstat()
        except OSError as error:
            raise CronError(
                f"{place} cannot be read: {error.strerror}.",
                f"Install the agent: `{INSTALL}`.",
            ) from error
        others_write = about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        # In a sticky directory nobody can replace what is root's.
        sticky = stat.S_ISDIR(about.st_mode) and about.st_mode & stat.S_ISVTX
        if (
            stat.S_ISLNK(about.st_mode)
            or about.st_uid not in (0, os.geteuid())
            or (others_write and not sticky)
        ):
            raise CronError(
                f"{place} can be changed by others than root, so cron must not run what is there.",
                f"Install the agent below {PREFIX}: `{INSTALL}`.",
            )
