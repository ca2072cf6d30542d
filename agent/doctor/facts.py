"""What `agent doctor` found out about one host, before anything is concluded from it.

Probed once by `agent.doctor.probe` and judged by `agent.doctor`. `None` says that it could not be
looked at (another user's, not mounted), which is never the same as no.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModuleFacts:
    """Whether this kernel takes our modules, and how far they are."""

    release: str
    takes_modules: bool
    """`/proc/modules` is there (CONFIG_MODULES)."""
    disabled: bool | None
    """`kernel.modules_disabled`: no module can be loaded until the next boot."""
    headers: bool
    missing_tools: tuple[str, ...]
    """Of make, the compiler that the kernel's headers name, insmod, rmmod and modinfo."""
    built: bool | None
    """For this kernel, from the sources that are installed."""
    loaded: tuple[str, ...]
    ours: bool | None
    """What is loaded was built from the sources that are installed."""
    entry_problem: str | None
    """Why a loaded module's /proc entry cannot be read, "" where it can, None if not loaded."""


@dataclass(frozen=True, slots=True)
class SigningFacts:
    """What the kernel asks of a module's signature."""

    secure_boot: bool | None
    lockdown: str | None
    """`none`, `integrity` or `confidentiality` (kernel_lockdown(7))."""
    enforced: bool | None
    """`module.sig_enforce`."""
    key: bool | None
    """There is a key to sign with."""
    enrolled: bool | None
    """The firmware's list knows that key."""
    certificate: str = "/var/lib/dkms/mok.pub"
    """Of that key, or of the one that would be made."""

    @property
    def required(self) -> bool:
        return self.lockdown in ("integrity", "confidentiality") or bool(self.enforced)


@dataclass(frozen=True, slots=True)
class OomFacts:
    """What tells of OOM kills, beside BPF's own record."""

    has_log: bool | None
    """Whether `/dev/kmsg` can be read; None where only root could tell."""
    has_symbols: bool | None
    """Whether the kernel shows where its functions are; None as above."""


@dataclass(frozen=True, slots=True)
class BpfFacts:
    problem: str
    """Why the probes cannot work here (types, lockdown, programs), BCC aside; "" where they can."""
    hint: str
    events: bool | None
    """CONFIG_BPF_EVENTS: programs can be attached to tracepoints."""
    bcc: str
    """BCC's version, "" where it cannot be used."""
    bcc_problem: str
    partial: str = ""
    """What the running agent's probes go without on this kernel, "" where nothing or none runs."""


@dataclass(frozen=True, slots=True)
class CgroupFacts:
    mode: str
    """`v2`, `v1`, `hybrid`, "" where no hierarchy tells containers apart."""
    identifying: str
    """The hierarchy whose ids name containers."""
    memory: bool | None
    """The memory controller accounts there."""
    problem: str = ""
    hint: str = ""
    io_problem: str = ""
    """Why nothing tells what a container reads and writes, "" where something does."""
    has_psi: bool = True
    """Whether the kernel tells memory pressure."""


@dataclass(frozen=True, slots=True)
class PressureFacts:
    """Memory pressure (PSI) and triggers on it."""

    missing: str = ""
    """Why the kernel tells none, "" where it does."""
    remedy: str = ""
    no_trigger: str | None = None
    """Why nobody can be woken by it, "" where one can, None where it was not tried (not root)."""


@dataclass(frozen=True, slots=True)
class DockerFacts:
    version: str
    """The engine's, "" where it does not answer."""
    api: str
    driver: str
    """Its cgroup driver, "" unknown."""
    problem: str
    hint: str
    images: Mapping[str, bool] | None
    """Whether each image of the generated load is on this host; None unknown."""
    missing_stand_in: tuple[str, ...]
    """Packages that a local stand-in for an image would be built from and that are missing."""
    compose: str
    """The command, "" where there is none."""
    grafana_image: bool | None
    other_host: str = ""
    """A sentence where DOCKER_HOST names another engine than the agent's, "" where not."""
    events_refused: str = ""
    """Why the engine gives no events though it answers, "" where it gives them."""


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """One `[[engine]]`, beside that of `docker_host`."""

    name: str
    kind: str
    governed: bool
    version: str
    """"" where it does not answer."""
    api: str
    driver: str
    """Its cgroup driver, "" unknown."""
    problem: str
    hint: str


@dataclass(frozen=True, slots=True)
class StoreFacts:
    kind: str | None
    """What lies at the database's path: `absent`, `empty`, `ours`, `damaged`, `foreign`."""
    path_problem: str
    """Why the path cannot be used, "" where it can as far as it was looked at."""
    path_hint: str
    writable: bool | None
    journal: str
    """`wal` while an agent runs or was killed, `delete` after a clean stop, "" unknown."""
    schema: str | None
    """`current`, `older` (is migrated at start), `newer` (is refused)."""
    read_problem: str
    newest_row_ms: int | None
    size_mb: int
    free_mb: int | None
    free_inodes: int | None
    """None where the file system does not count them."""


@dataclass(frozen=True, slots=True)
class ClockFacts:
    synchronised: bool | None
    """adjtimex(2): the kernel's clock is steered by a time service."""
    wall_ms: int
    installed_ms: int
    """When the agent's own files were written: now cannot be before."""


@dataclass(frozen=True, slots=True)
class PythonFacts:
    version: tuple[int, int, int]
    interpreter: str
    distribution: bool
    """Whether it is (an environment of) /usr/bin/python3, which the distribution's BCC is for."""
    missing: tuple[str, ...]
    """Packages that the agent imports and that are not there, or too old."""
    untrusted: str
    """Why root and cron must not run what is installed here, "" where they may."""


@dataclass(frozen=True, slots=True)
class LeftoverFacts:
    """What an agent that was killed leaves behind."""

    agent_pid: int | None
    """Of a running agent; 0 where none runs."""
    cron_file: bool
    containers: int | None
    """With this installation's label, as Docker filters (an image may carry it too)."""
    grafana: bool | None


@dataclass(frozen=True, slots=True)
class Facts:
    root: bool
    config_problem: str
    modules: ModuleFacts
    signing: SigningFacts
    bpf: BpfFacts
    cgroups: CgroupFacts
    docker: DockerFacts
    cron_problem: str | None
    """Why cron does not read our file, "" where it does."""
    cron_hint: str
    store: StoreFacts
    clock: ClockFacts
    python: PythonFacts
    leftovers: LeftoverFacts
    oom: OomFacts = OomFacts(None, None)
    pressure: PressureFacts = PressureFacts()
    proc_problem: str = ""
    """Why `/proc` does not show what the agent reads there, "" where it does."""
    proc_hint: str = ""
    notify_problem: str = ""
    """Why a receiver's secret or the journal cannot be used, "" where they can."""
    notify_hint: str = ""
    disarmed: str = ""
    """Why the policy touches nothing, "" where it does."""
    fleet_problem: str = ""
    """Why nothing can be shipped or was not, "" where it can or no centre is set."""
    fleet_hint: str = ""
    engines: tuple[EngineFacts, ...] = ()
    """Those beside `docker_host`, in the order of the settings."""
    metrics_problem: str = ""
    """Why `metrics.listen` is not available or does not answer, "" where it can or none is set."""
