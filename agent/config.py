"""What a host's administrator may set, checked before anything on the host changes.

`/etc/so1/agent.toml` is optional; a file named by `--config` is not. Unknown keys, wrong types and
values out of range are refused with the key's path, so that a typing error never becomes a default.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec

from agent.config_forms import AbsolutePath, EngineName, ImageName, Section, SocketAddress
from agent.config_outlets import (
    FleetSettings,
    MetricsSettings,
    NotifySettings,
    ProofSettings,
)
from agent.errors import ConfigError
from agent.model.cgroup_names import RUNTIMES
from agent.model.container import DOCKER
from agent.place import PREFIX
from agent.policy import meaning
from agent.policy.rules import Rule, Rules
from agent.util import files

DEFAULT_CONFIG = Path("/etc/so1/agent.toml")

Positive = Annotated[int, msgspec.Meta(ge=1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=10_000)]
_SOCKET_FORM = "unix:// and an absolute path, as in unix:///var/run/docker.sock"
_FORMS = {
    "docker_host": _SOCKET_FORM + ', or "" for none beside an [[engine]]',
    "engine[...].socket": _SOCKET_FORM,
    "engine[...].name": "a letter and at most 31 of a-z, 0-9, dot, dash and underscore",
    "images.": "an image's name, as in alpine:latest",
    "notify.webhook.url": "a URL that begins with http:// or https://, without user and password",
    "notify.alertmanager": "http:// or https:// and where it is, without user and password",
    "": "an absolute path without control characters",
}
"""What a text has to be, by its key or the beginning of it, where a pattern refuses it."""


class Scope(StrEnum):
    """Which containers the policy governs."""

    MANAGED = "managed"
    ALL = "all"


class SourceChoice(StrEnum):
    AUTO = "auto"
    MODULES = "modules"
    PSUTIL = "psutil"


class EngineKind(StrEnum):
    """What listens at an engine's socket."""

    DOCKER = "docker"
    PODMAN = "podman"
    CRI = "cri"
    """containerd or CRI-O under Kubernetes."""


class GrafanaLanguage(StrEnum):
    SPANISH = "es"
    ENGLISH = "en"


class PolicySettings(Section, frozen=True):
    """How many containers may run, and how many a pass leaves of each tier."""

    max_containers: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 10
    keep_low: Count = 3
    keep_high: Count = 2
    scope: Scope = Scope.MANAGED
    stop_grace_s: Annotated[int, msgspec.Meta(ge=0, le=60)] = 1
    """How long a container may take to end by itself before it is killed."""
    rules: Rules | None = None
    """Whether the built-in set comes after one's own rules; None: it does, and nobody wrote so."""
    rule: Annotated[tuple[Rule, ...], msgspec.Meta(max_length=256)] = ()
    """One's own rules; the first that matches a container claims it."""

    def __post_init__(self) -> None:
        kept = self.keep_low + self.keep_high
        if kept > self.max_containers:
            raise ValueError(
                f"keep_low and keep_high leave {kept} ({self.keep_low} and {self.keep_high}), "
                f"more than max_containers allows ({self.max_containers})"
            )


class RetentionSettings(Section, frozen=True):
    """How long rows stay."""

    raw_hours: Annotated[int, msgspec.Meta(ge=1, le=24 * 366)] = 24
    """Rows a process: `process_stats`, `container_stats`."""
    history_days: Annotated[int, msgspec.Meta(ge=1, le=366 * 20)] = 30
    """All other rows of ticks, and removals."""
    rollup_5min_days: Annotated[int, msgspec.Meta(ge=1, le=366 * 20)] = 90
    """Buckets of 5 minutes."""
    rollup_days: Annotated[int, msgspec.Meta(ge=1, le=366 * 20)] = 400
    """Buckets of an hour and a day, and when the agent did not run."""
    max_database_mb: Annotated[int, msgspec.Meta(ge=16, le=1024 * 1024)] = 2048
    """Above this the oldest rows go early, per-process rows first."""


class ImageSettings(Section, frozen=True):
    """Images of the generated load."""

    low: ImageName = "alpine:latest"
    high: ImageName = "polinux/stress"


class GrafanaSettings(Section, frozen=True):
    enabled: bool = True
    keep: bool = False
    """Leave Grafana up at stop."""
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 3000
    language: GrafanaLanguage = GrafanaLanguage.SPANISH
    """Of the dashboards."""
    admin_password: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] = "admin"  # noqa: S105 - the original's; a warning is said


class ModulesSettings(Section, frozen=True):
    keep: bool = False
    """Leave the modules loaded at stop."""
    sysinfo_path: AbsolutePath = "/proc/sysinfo_so1_202300539"
    continfo_path: AbsolutePath = "/proc/continfo_so1_202300539"


class CronSettings(Section, frozen=True):
    enabled: bool = True
    directory: AbsolutePath = "/etc/cron.d"


class BpfSettings(Section, frozen=True):
    enabled: bool = True


class EngineSettings(Section, frozen=True):
    """One more container engine beside that of `docker_host`."""

    name: EngineName
    """Of the engine in rows, rules and messages; `docker` is that of `docker_host`."""
    socket: SocketAddress
    kind: EngineKind = EngineKind.DOCKER
    govern: bool | None = None
    """Whether the policy may act on its containers. None: on Docker's, on no other's."""
    environment: AbsolutePath = f"{PREFIX}/cri"
    """Of kind cri: the Python environment that has gRPC."""

    def __post_init__(self) -> None:
        if self.kind is EngineKind.CRI and self.govern:
            raise ValueError(
                f"govern = true cannot be used for the engine {self.name}: the containers of an "
                "engine of kind cri are Kubernetes' and observed only"
            )

    @property
    def governed(self) -> bool:
        return self.kind is EngineKind.DOCKER if self.govern is None else self.govern


class PathSettings(Section, frozen=True):
    """Directories, all root's and writable by nobody else."""

    install: AbsolutePath = PREFIX
    database: AbsolutePath = "/var/lib/so1/metrics.db"
    build: AbsolutePath = "/var/lib/so1/build"
    bpf: AbsolutePath = "/var/lib/so1/bpf"
    """What BCC compiled for this kernel, kept for the next start."""
    run: AbsolutePath = "/run/so1"
    log: AbsolutePath = "/var/log/so1"

    def __post_init__(self) -> None:
        if Path(self.database).name in ("", ".."):
            raise ValueError(f"database {self.database} names a directory")


class Config(Section, frozen=True):
    """Everything that can be set, with its defaults."""

    interval_s: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 20.0
    source: SourceChoice = SourceChoice.AUTO
    docker_host: Annotated[
        str, msgspec.Meta(pattern=r"^(|unix:///[^\x00-\x1f\x7f]+)\Z", max_length=4096)
    ] = "unix:///var/run/docker.sock"
    """The engine `docker`, which has the generated load and Grafana; "" where there is none."""
    engine: Annotated[tuple[EngineSettings, ...], msgspec.Meta(max_length=16)] = ()
    """More engines."""
    policy: PolicySettings = PolicySettings()
    retention: RetentionSettings = RetentionSettings()
    images: ImageSettings = ImageSettings()
    grafana: GrafanaSettings = GrafanaSettings()
    modules: ModulesSettings = ModulesSettings()
    cron: CronSettings = CronSettings()
    bpf: BpfSettings = BpfSettings()
    metrics: MetricsSettings = MetricsSettings()
    fleet: FleetSettings = FleetSettings()
    notify: NotifySettings = NotifySettings()
    proof: ProofSettings = ProofSettings()
    paths: PathSettings = PathSettings()

    def __post_init__(self) -> None:
        names = [one.name for one in self.engine]
        for name in names:
            if name in _TAKEN_NAMES or names.count(name) > 1:
                why = _TAKEN_NAMES.get(name, "two engines have it")
                raise ValueError(f"the engine name {name} cannot be used: {why}")
        sockets: dict[str, str] = {}
        for one in self.engines:
            path = os.path.realpath(one.socket.removeprefix("unix://"))
            if (other := sockets.setdefault(path, one.name)) != one.name:
                raise ValueError(f"the engines {other} and {one.name} have the same socket")
        if not sockets:
            raise ValueError("docker_host is empty and there is no [[engine]]")

    @property
    def engines(self) -> tuple[EngineSettings, ...]:
        """Every engine, that of `docker_host` first."""
        docker = (EngineSettings(name=DOCKER, socket=self.docker_host),) if self.docker_host else ()
        return (*docker, *self.engine)


_TAKEN_NAMES = {
    **dict.fromkeys(RUNTIMES, "a cgroup of that runtime which no engine lists has it"),
    DOCKER: "it is that of docker_host",
}


def decode_config(text: str, origin: str) -> Config:
    """The configuration in `text` (TOML). `origin` names it in an error.

    Raises ConfigError for what is not TOML, an unknown key, a wrong type or a value out of range.
    """
    hint = f"Correct it, or start without it: see `agent start --help`. ({origin})"
    try:
        data: dict[str, Any] = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: a number of thousands of digits
        raise ConfigError(f"{origin} is not valid TOML: {error}.", hint) from error
    odd = meaning.rules_of(text, data)
    if odd.problems:
        raise ConfigError(f"{origin} cannot be used: {'; '.join(odd.problems)}.", hint)
    try:
        return msgspec.convert(data, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{origin} cannot be used: {_words(error)}.", hint) from error


def _words(error: msgspec.ValidationError) -> str:
    """The error without a regular expression, which tells nobody what to write."""
    found = re.fullmatch(
        r"Expected `str` matching regex .* - at `\$\.([\w.[\]]+)`", str(error), re.S
    )
    if found is None:
        return str(error)
    key = found[1]
    key = re.sub(r"\[\d+\]", "[...]", key)
    form = next(form for name, form in _FORMS.items() if key.startswith(name))
    return f"Expected {form} - at `$.{key}`"


def load_config(path: Path | None) -> Config:
    """The configuration at `path`, or the default file's, or the defaults where there is none.

    Raises ConfigError, also where a named file is absent or cannot be read.
    """
    file = path or DEFAULT_CONFIG
    try:
        # Editors of another system put a mark of the byte order first.
        with open(file, encoding="utf-8-sig", opener=files.open_regular) as opened:
            _check_trusted(file, os.fstat(opened.fileno()), named=path is not None)
            text = opened.read()
    except FileNotFoundError:
        if path is None:
            return Config()
        raise ConfigError(
            f"The configuration file {file} does not exist.", "Name an existing file with --config."
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8 text: {error.reason}.", "Correct it.") from error
    except OSError as error:
        raise ConfigError(
            f"The configuration file {file} cannot be read: {error.strerror}.",
            "Check its path and its mode.",
        ) from error
    return decode_config(text, str(file))


def _check_trusted(file: Path, about: os.stat_result, *, named: bool) -> None:
    """Refuses settings that another user could write: root acts on them.

    Whoever names a file answers for its owner and group; the default one has to be root's alone.
    """
    forbidden = stat.S_IWOTH if named else stat.S_IWOTH | stat.S_IWGRP
    strange = not named and about.st_uid not in (0, os.geteuid())
    if about.st_mode & forbidden or strange:
        raise ConfigError(
            f"The configuration file {file} can be written by others than root.",
            f"Look at it, then `sudo chown root: {file} && sudo chmod go-w {file}`.",
        )


def with_overrides(config: Config, **overrides: object) -> Config:
    """`config` with top-level or dotted (`policy__scope`) values replaced, checked as a file's are.

    None leaves a value as it is; a relative path of `paths` is one from the working directory.
    Raises ConfigError.
    """
    data: dict[str, Any] = msgspec.to_builtins(config)
    for name, value in overrides.items():
        if value is None:
            continue
        if name.startswith("paths__"):
            value = _from_here(str(value))  # noqa: PLW2901
        target = data
        *sections, key = name.split("__")
        for section in sections:
            target = target[section]
        target[key] = value
    try:
        return msgspec.convert(data, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"The command line cannot be used: {_words(error)}.", "See `agent start --help`."
        ) from error


def _from_here(path: str) -> str:
    """A path of the command line, absolute. Links are kept: the store refuses them by name."""
    if not path:
        raise ConfigError(
            "The command line cannot be used: a path is empty.", "See `agent start --help`."
        )
    try:
        return os.path.abspath(path)
    except OSError as error:
        raise ConfigError(
            f"{path} is relative, and the working directory is gone: {error.strerror}.",
            "Name an absolute path.",
        ) from error
