"""The checks on everything around the kernel: rights, Docker, cron, disk, database, clock."""

from __future__ import annotations

from agent.config import Config, EngineKind
from agent.doctor.check import AS_ROOT, Check, State, look_again
from agent.doctor.facts import EngineFacts, Facts
from agent.place import INSTALL, SETTINGS
from agent.policy.notes import notes

_MIN_FREE_MB = 64
_CLOCK_SLACK_MS = 3600 * 1000
_NO_DOCKER = "not wanted (docker_host is empty)"
_V1_ENDS = (
    "; cgroup v1 ends: systemd has dropped it in 258 and starts on it before only when forced to, "
    "Docker calls it deprecated since 29 and drops it by May 2029"
)
"""systemd's NEWS for 256 and 258, Docker's release notes for 29 and its daemon's warning."""


def privileges(facts: Facts) -> Check:
    if facts.root:
        return Check("privileges", State.OK, "root")
    return Check(
        "privileges",
        State.UNKNOWN,
        "not root: what others may not see is left out",
        AS_ROOT,
    )


def configuration(facts: Facts, config: Config) -> Check:
    if facts.config_problem and not facts.root and "ermission" in facts.config_problem:
        finding = f"{facts.config_problem} (judged by the defaults)"
        return Check("configuration", State.UNKNOWN, finding, AS_ROOT)
    if facts.config_problem:
        return Check(
            "configuration",
            State.MISSING,
            f"{facts.config_problem} (judged by the defaults)",
            "correct it, then: agent doctor",
        )
    source = f"source {config.source}, scope {config.policy.scope}, every {config.interval_s:g} s"
    if noted := notes(
        config.policy, has_psi=facts.cgroups.has_psi, io_problem=facts.cgroups.io_problem
    ):
        finding = f"{source}; {' '.join(noted)}"
        return Check("configuration", State.DEGRADED, finding, "agent policy check")
    return Check("configuration", State.OK, source)


def python(facts: Facts) -> Check:
    python = facts.python
    version = ".".join(str(number) for number in python.version)
    if python.version < (3, 11):
        finding = f"{version} is too old, 3.11 is the oldest"
        return Check("python", State.MISSING, finding, INSTALL)
    if python.missing:
        finding = f"{version}, without {', '.join(python.missing)}"
        return Check("python", State.MISSING, finding, INSTALL)
    if not python.distribution:
        finding = f"{version} ({python.interpreter}) is not the distribution's, which BCC is for"
        return Check("python", State.DEGRADED, finding, INSTALL)
    return Check("python", State.OK, f"{version} ({python.interpreter})")


def installation(facts: Facts) -> Check:
    if facts.python.untrusted:
        return Check("installation", State.DEGRADED, facts.python.untrusted, INSTALL)
    return Check("installation", State.OK, "only root can change what root and cron run")


def proc(facts: Facts) -> Check:
    if facts.proc_problem:
        return Check("/proc", State.MISSING, facts.proc_problem, facts.proc_hint)
    return Check("/proc", State.OK, "shows processes and the host's figures")


def cgroups(facts: Facts) -> Check:
    cgroups = facts.cgroups
    if not cgroups.mode:
        return Check("cgroups", State.MISSING, cgroups.problem, cgroups.hint)
    finding = f"{cgroups.mode}, by the {cgroups.identifying} hierarchy"
    return Check("cgroups", State.OK, finding + ("" if cgroups.mode == "v2" else _V1_ENDS))


def memory(facts: Facts) -> Check:
    name = "memory controller"
    if facts.cgroups.memory is None:
        return Check(name, State.UNKNOWN, "could not be looked at", "see cgroups")
    if facts.cgroups.memory:
        return Check(name, State.OK, "accounts what containers hold")
    return Check(
        name,
        State.DEGRADED,
        "off: held memory is the sum of the processes' own pages",
        "add cgroup_enable=memory to the kernel's command line, then reboot",
    )


def pressure(facts: Facts, config: Config) -> Check:
    name = "memory pressure"
    asking = [
        rule.name
        for rule in config.policy.rule
        if rule.when is not None and rule.when.pressure is not None
    ]
    found = facts.pressure
    if not asking:
        return Check(name, State.OK, f"no rule asks for it{found.missing and f'; {found.missing}'}")
    if found.missing:
        finding = f"{found.missing}: {', '.join(asking)} never acts on it"
        return Check(name, State.DEGRADED, finding, found.remedy)
    if found.no_trigger:
        finding = f"{found.no_trigger}; it is read each second instead"
        return Check(name, State.DEGRADED, finding, "give the agent CAP_SYS_RESOURCE")
    # /proc/pressure is the whole host's whatever the cgroups are; only v2 has each cgroup's own,
    # which nobody here asks for.
    whose = "the whole host's"
    if facts.cgroups.mode not in ("", "v2"):
        whose += f", as everywhere: no container has its own on cgroup {facts.cgroups.mode}"
    if found.no_trigger is None:
        return Check(name, State.UNKNOWN, f"{whose}; whether it can wake the agent", AS_ROOT)
    return Check(name, State.OK, f"{whose}; a trigger wakes the agent")


def docker(facts: Facts, config: Config) -> Check:
    docker = facts.docker
    if not config.docker_host:
        return Check("Docker", State.OK, _NO_DOCKER)
    if docker.version:
        driver = f", cgroup driver {docker.driver}" if docker.driver else ""
        finding = f"{docker.version}, API {docker.api}{driver}"
        if docker.events_refused:
            finding += f"; {docker.events_refused} The limit is looked at with each tick instead"
            remedy = "let the proxy in front of it pass GET /events"
            return Check("Docker", State.DEGRADED, finding, remedy)
        if docker.other_host:
            remedy = f"if that engine is meant: docker_host in {SETTINGS}"
            return Check("Docker", State.DEGRADED, f"{finding}; {docker.other_host}", remedy)
        return Check("Docker", State.OK, finding)
    if not facts.root and "ermission" in docker.problem:
        return Check("Docker", State.UNKNOWN, docker.problem, AS_ROOT)
    return Check("Docker", State.MISSING, docker.problem, docker.hint)


def engines(facts: Facts) -> tuple[Check, ...]:
    """A row for each engine beside Docker's; the main job runs without it."""
    return tuple(_engine(one, root=facts.root) for one in facts.engines)


def _engine(engine: EngineFacts, *, root: bool) -> Check:
    name = f"engine {engine.name}"
    if engine.version:
        driver = f", cgroup driver {engine.driver}" if engine.driver else ""
        reach = "governed" if engine.governed else "observed only"
        # By CRI the version names the runtime too: containerd 1.6.20.
        what = (
            engine.version if engine.kind == EngineKind.CRI else f"{engine.kind} {engine.version}"
        )
        api = f"CRI {engine.api}" if engine.kind == EngineKind.CRI else f"API {engine.api}"
        finding = f"{what}, {api}{driver}, {reach}"
        return Check(name, State.OK, finding)
    if not root and "ermission" in engine.problem:
        return Check(name, State.UNKNOWN, engine.problem, AS_ROOT)
    return Check(name, State.DEGRADED, engine.problem, engine.hint)


def images(facts: Facts, config: Config) -> Check:
    docker = facts.docker
    if not config.docker_host:
        return Check("images", State.OK, _NO_DOCKER)
    if not config.cron.enabled:
        return Check("images", State.OK, "not needed (cron.enabled = false)")
    if docker.images is None:
        return Check("images", State.UNKNOWN, "Docker was not asked", "see Docker")
    absent = [name for name, here in docker.images.items() if not here]
    if not absent:
        return Check("images", State.OK, ", ".join(docker.images))
    finding = f"{', '.join(absent)} not here: pulled when first needed"
    if docker.missing_stand_in:
        packages = " ".join(docker.missing_stand_in)
        return Check(
            "images",
            State.DEGRADED,
            f"{finding}, and nothing to build a stand-in from",
            f"docker pull {absent[0]}, or sudo apt-get install -y {packages}",
        )
    return Check("images", State.OK, f"{finding}, else a stand-in is built here")


def compose(facts: Facts, config: Config) -> Check:
    if not config.docker_host:
        return Check("compose", State.OK, _NO_DOCKER)
    if not config.grafana.enabled:
        return Check("compose", State.OK, "not wanted (grafana.enabled = false)")
    docker = facts.docker
    if not docker.compose:
        return Check(
            "compose",
            State.DEGRADED,
            "neither `docker compose` nor `docker-compose` is there",
            "sudo apt-get install -y docker-compose",
        )
    image = {True: "image here", False: "image not here: pulled at start", None: "image unknown"}
    return Check("compose", State.OK, f"{docker.compose}, {image[docker.grafana_image]}")


def cron(facts: Facts, config: Config) -> Check:
    if not config.cron.enabled:
        return Check("cron", State.OK, "not wanted (cron.enabled = false)")
    if facts.cron_problem is None:
        remedy = look_again(root=facts.root, else_by="ps -C cron,crond")
        return Check("cron", State.UNKNOWN, "whether its daemon runs", remedy)
    if facts.cron_problem:
        return Check("cron", State.DEGRADED, facts.cron_problem, facts.cron_hint)
    return Check("cron", State.OK, "a daemon runs")


def disk(facts: Facts, config: Config) -> Check:
    store = facts.store
    if store.free_mb is None:
        remedy = look_again(root=facts.root, else_by=f"findmnt -T {config.paths.database}")
        return Check("disk", State.UNKNOWN, "the free space could not be read", remedy)
    room = f"{store.free_mb} MB free for {config.paths.database}"
    remedy = f"make room (df -h {config.paths.database}), or lower retention.max_database_mb"
    if store.free_mb < _MIN_FREE_MB or store.free_inodes == 0:
        return Check("disk", State.MISSING, room if store.free_inodes != 0 else "no inodes", remedy)
    wanted_mb = max(0, config.retention.max_database_mb - store.size_mb)
    if store.free_mb < wanted_mb:
        finding = f"{room}, and the database may grow by {wanted_mb} MB"
        return Check("disk", State.DEGRADED, finding, remedy)
    return Check("disk", State.OK, room)


def database(facts: Facts, config: Config) -> Check:
    name, store, path = "database", facts.store, config.paths.database
    if store.path_problem:
        return Check(name, State.MISSING, store.path_problem, store.path_hint)
    if store.kind is None:
        remedy = look_again(root=facts.root, else_by=f"namei -l {path}")
        return Check(name, State.UNKNOWN, f"{path} could not be looked at", remedy)
    if store.kind == "foreign":
        finding = f"{path} is a file of something else"
        return Check(name, State.MISSING, finding, "name another path: paths.database, --database")
    if store.writable is False:
        return Check(name, State.MISSING, f"{path} cannot be written", f"findmnt -T {path}")
    if store.schema == "newer":
        finding = f"{path} was written by a newer agent"
        return Check(name, State.MISSING, finding, f"sudo mv {path} {path}.newer, or update")
    if store.kind in ("absent", "empty"):
        return Check(name, State.OK, f"{path} is not there yet: the first start makes it")
    if store.kind == "damaged" or store.read_problem:
        problem = store.read_problem or "not a database any more"
        finding = f"{path}: {problem}; a start quarantines a damaged one and begins a new one"
        return Check(name, State.DEGRADED, finding, f"sqlite3 {path} 'PRAGMA integrity_check'")
    about = [f"{store.size_mb} MB", f"journal {store.journal or 'unknown'}"]
    if store.schema == "older":
        about.append("an older schema, migrated at start")
    return Check(name, State.OK, f"{path}, {', '.join(about)}")


def clock(facts: Facts) -> Check:
    clock, newest_ms = facts.clock, facts.store.newest_row_ms
    remedy = "sudo timedatectl set-ntp true"
    if clock.wall_ms + _CLOCK_SLACK_MS < clock.installed_ms:
        return Check("clock", State.DEGRADED, "before this agent was installed", remedy)
    if newest_ms is not None and clock.wall_ms + _CLOCK_SLACK_MS < newest_ms:
        hours = (newest_ms - clock.wall_ms) / _CLOCK_SLACK_MS
        finding = f"{hours:.1f} h behind the newest row of the database: nothing old is erased"
        return Check("clock", State.DEGRADED, finding, remedy)
    if clock.synchronised is None:
        return Check("clock", State.OK, "sane; whether it is synchronised is not known")
    if not clock.synchronised:
        return Check("clock", State.DEGRADED, "no time service steers it", remedy)
    return Check("clock", State.OK, "synchronised")


def metrics(facts: Facts, config: Config) -> Check:
    listen = config.metrics.listen
    if facts.metrics_problem:
        finding = f"{listen or 'metrics.listen'}: {facts.metrics_problem}"
        return Check("metrics", State.DEGRADED, finding, "see who has the port: sudo ss -ltnp")
    if not listen:
        return Check("metrics", State.OK, "not wanted (metrics.listen is not set)")
    return Check("metrics", State.OK, f"http://{listen}/metrics")


def fleet(facts: Facts, config: Config) -> Check:
    if facts.fleet_problem:
        return Check("fleet", State.DEGRADED, facts.fleet_problem, facts.fleet_hint)
    if not config.fleet.dsn:
        return Check("fleet", State.OK, "not wanted (fleet.dsn is not set)")
    return Check("fleet", State.OK, f"ships every {config.fleet.flush_s} s")


def notify(facts: Facts, config: Config) -> Check:
    if facts.notify_problem:
        return Check("notify", State.DEGRADED, facts.notify_problem, facts.notify_hint)
    chosen = config.notify
    if not chosen.wanted:
        return Check("notify", State.OK, "not wanted (no receiver is set below [notify])")
    receivers = [
        *(["journal"] if chosen.journal else []),
        *(["webhook"] if chosen.webhook.url else []),
        *([f"{len(chosen.alertmanager.urls)} Alertmanager"] if chosen.alertmanager.urls else []),
    ]
    return Check("notify", State.OK, f"{', '.join(receivers)}; try: sudo agent notify test")


def proof(facts: Facts, config: Config) -> Check:
    if facts.disarmed:
        return Check("proof", State.DEGRADED, facts.disarmed, "sudo agent policy arm")
    if not config.bpf.enabled:
        return Check("proof", State.OK, "BPF is not wanted: no budget can be spent")
    if not config.proof.canary_hours:
        return Check("proof", State.OK, "armed; recommended: canary_hours = 24 below [proof]")
    return Check("proof", State.OK, f"armed; a canary every {config.proof.canary_hours} h")


def leftovers(facts: Facts, config: Config) -> Check:
    left = facts.leftovers
    if left.agent_pid:
        return Check("agent", State.OK, f"running, pid {left.agent_pid}")
    found = [
        *(f"module {name}" for name in facts.modules.loaded if not config.modules.keep),
        *(["the cron file"] if left.cron_file else []),
        *([f"{left.containers} containers"] if left.containers else []),
        *(["Grafana"] if left.grafana and not config.grafana.keep else []),
    ]
    if left.agent_pid is None:
        finding = f"running or not; there is {', '.join(found)}" if found else "running or not"
        remedy = look_again(root=facts.root, else_by=f"namei -l {config.paths.run}")
        return Check("agent", State.UNKNOWN, finding, remedy)
    if found:
        finding = f"not running, and left behind: {', '.join(found)}"
        return Check("agent", State.DEGRADED, finding, "sudo agent cleanup, or sudo agent start")
    return Check("agent", State.OK, "not running, nothing left behind")
