"""Finds the facts of `agent doctor`: looks, asks, and changes nothing on the host.

Every part stands alone: one that cannot be looked at, for want of rights or of a Python package,
leaves `None` in its place and the others as they are.
"""

from __future__ import annotations

import ctypes
import http.client
import os
import time
from pathlib import Path
from typing import Any

from agent.actions import cron
from agent.config import Config
from agent.daemon.lock import holder_pid
from agent.doctor.facts import (
    ClockFacts,
    DockerFacts,
    Facts,
    LeftoverFacts,
    StoreFacts,
)
from agent.doctor.probe_engines import engine_facts
from agent.doctor.probe_kernel import (
    bpf_facts,
    cgroup_facts,
    module_facts,
    oom_facts,
    signing_facts,
)
from agent.doctor.probe_policy import disarmed, notify_facts, pressure_facts
from agent.doctor.probe_python import python_facts
from agent.errors import AgentError
from agent.place import SCRIPTS
from agent.sources import procfs
from agent.util.subprocess import find

_DOCKER_TIMEOUT_S = 10.0
_METRICS_TIMEOUT_S = 2.0
_STAND_IN_PACKAGES = {"busybox": "busybox-static", "stress": "stress"}
_TIME_ERROR = 5
"""What adjtimex(2) gives while the clock is not synchronised."""


def probe(config: Config, config_problem: str = "") -> Facts:
    """Everything, once. Takes a second or two; Docker is waited for ten at most."""
    root = os.geteuid() == 0
    docker, containers, grafana = _docker(config)
    cron_problem, cron_hint = _cron(root=root)
    proc_problem, proc_hint = procfs.partial_problem("/proc")
    fleet_problem, fleet_hint = _fleet(config, root=root)
    notify_problem, notify_hint = notify_facts(config, root=root)
    return Facts(
        root=root,
        config_problem=config_problem,
        modules=module_facts(config),
        signing=signing_facts(),
        bpf=bpf_facts(config),
        cgroups=cgroup_facts(),
        oom=oom_facts(root=root),
        pressure=pressure_facts(root=root),
        docker=docker,
        engines=engine_facts(config),
        cron_problem=cron_problem,
        cron_hint=cron_hint,
        store=_store(Path(config.paths.database), root=root),
        clock=_clock(),
        python=python_facts(),
        leftovers=LeftoverFacts(_agent_pid(config), _cron_file(config), containers, grafana),
        proc_problem=proc_problem,
        proc_hint=proc_hint,
        metrics_problem=_metrics(config),
        notify_problem=notify_problem,
        notify_hint=notify_hint,
        disarmed=disarmed(config, root=root),
        fleet_problem=fleet_problem,
        fleet_hint=fleet_hint,
    )


def _docker(config: Config) -> tuple[DockerFacts, int | None, bool | None]:
    """The engine, and of its containers how many are this installation's and whether Grafana is."""
    compose = _compose()
    missing = tuple(package for tool, package in _STAND_IN_PACKAGES.items() if find(tool) is None)
    try:
        import docker.errors

        from agent.actions.grafana import IMAGE
        from agent.engine_api import ownership
        from agent.engine_api.client import (
            answering,
            connect_briefly,
            other_docker_host,
        )
    except ImportError as error:
        problem = f"Docker cannot be asked: {error}."
        nothing = DockerFacts("", "", "", problem, "See python.", None, missing, compose, None)
        return nothing, None, None
    try:
        with (
            connect_briefly(config.docker_host, _DOCKER_TIMEOUT_S) as client,
            answering(config.docker_host),
        ):
            about, info = _table(client.version()), _table(client.info())
            wanted = (config.images.low, config.images.high)
            images = {name: _has_image(client, name) for name in wanted}
            facts = DockerFacts(
                version=str(about.get("Version", "")) or "of unknown version",
                api=str(about.get("ApiVersion", "")),
                driver=str(info.get("CgroupDriver", "")),
                problem="",
                hint="",
                images=images,
                missing_stand_in=missing,
                compose=compose,
                grafana_image=_has_image(client, IMAGE),
                other_host=other_docker_host(config.docker_host),
                events_refused=_events_refused(config),
            )
            installation = _installation(config)
            containers = (
                _count(client, ownership.installation_filter(installation)) if installation else 0
            )
            grafana = _count(client, ownership.GRAFANA_FILTER) > 0
            return facts, None if installation is None else containers, grafana
    except AgentError as error:
        problem, hint = error.message, error.hint
    except docker.errors.DockerException as error:
        problem, hint = f"Docker refuses to be asked: {str(error)[:200]}", "See `docker info`."
    return DockerFacts("", "", "", problem, hint, None, missing, compose, None), None, None


def _table(answer: Any) -> dict[str, Any]:
    return answer if isinstance(answer, dict) else {}


def _events_refused(config: Config) -> str:
    """Why the engine refuses to be followed, "" where it does not or is not there at all."""
    from agent.engine_api.client import EventsRefusedError, EventStream

    stream = EventStream(config.docker_host, ("start",), _DOCKER_TIMEOUT_S)
    try:
        stream.open()
    except EventsRefusedError as error:
        return error.message
    except AgentError:
        return ""
    finally:
        stream.close()
    return ""


def _has_image(client: Any, name: str) -> bool:
    import docker.errors

    try:
        client.inspect_image(name)
    except docker.errors.NotFound:
        return False
    return True


def _count(client: Any, label: str) -> int:
    return len(client.containers(all=True, filters={"label": label}))


def _installation(config: Config) -> str | None:
    """This installation's id, "" where there is none yet, None where it cannot be read."""
    try:
        from agent.store.installation import existing_installation_id

        return existing_installation_id(Path(config.paths.database).parent) or ""
    except (AgentError, ImportError):
        return None


def _compose() -> str:
    try:
        from agent.actions.grafana import compose_command

        return " ".join(compose_command())
    except (AgentError, ImportError):
        return ""


def _agent_pid(config: Config) -> int | None:
    try:
        return holder_pid(Path(config.paths.run))
    except AgentError:
        return None


def _cron(*, root: bool) -> tuple[str | None, str]:
    """Another user cannot tell a daemon of the host from one of a container (namespaces)."""
    problem = cron.daemon_problem()
    if problem is None:
        return "", ""
    if not root and find("cron") is not None:
        return None, ""
    return problem.message, problem.hint


def _cron_file(config: Config) -> bool:
    if os.geteuid() == 0:
        return cron.is_installed(config.cron)
    return _there(Path(config.cron.directory) / cron.FILE_NAME)


def _metrics(config: Config) -> str:
    """Whether somebody answers there as the agent does, or the address is free for it."""
    if not config.metrics.listen:
        return ""
    host, port = config.metrics.address
    client = http.client.HTTPConnection(host, port, timeout=_METRICS_TIMEOUT_S)
    try:
        client.request("HEAD", "/metrics")
        status = client.getresponse().status
    except ConnectionRefusedError:
        return "nothing listens there though the agent runs" if _agent_pid(config) else ""
    except (OSError, http.client.HTTPException) as error:
        return f"something else than the agent listens there ({error or type(error).__name__})"
    finally:
        client.close()
    if not _agent_pid(config):
        return "another program answers there"
    return "" if status in (200, 503) else f"answers with status {status}"


def _fleet(config: Config, *, root: bool) -> tuple[str, str]:
    """Why this host does not ship, as far as it can be told without asking the centre."""
    # Another user may read neither the secret nor the state.
    if not config.fleet.dsn or not root:
        return "", ""
    from agent.fleet.local import read_state
    from agent.fleet.secret import read_secret

    environment = Path(config.fleet.environment)
    if not _there(environment / "bin/python"):
        make = f"sudo {SCRIPTS}/fleet_environment.sh"
        return f"its Python environment {environment} is not there", make
    try:
        read_secret(Path(config.fleet.secret_file))
        problem = read_state(Path(config.paths.database).parent).problem
    except AgentError as error:
        return error.message, error.hint
    return problem, "sudo agent fleet status" if problem else ""


def _store(path: Path, *, root: bool) -> StoreFacts:
    place = path if _there(path) else _nearest(path.parent)
    free_mb = free_inodes = None
    read_only = False
    try:
        about = os.statvfs(place)
    except OSError:
        pass
    else:
        free_mb = about.f_bavail * about.f_frsize >> 20
        free_inodes = about.f_favail if about.f_files else None
        read_only = bool(about.f_flag & os.ST_RDONLY)
    kind, problem, hint = _kind(path)
    journal, schema, newest_ms, read_problem = "", None, None, ""
    if kind == "ours":
        journal, schema, newest_ms, read_problem = _history(path)
    writable = os.access(place, os.W_OK) if root else None
    return StoreFacts(
        kind=kind,
        path_problem=problem,
        path_hint=hint,
        writable=False if read_only else writable,
        journal=journal,
        schema=schema,
        read_problem=read_problem,
        newest_row_ms=newest_ms,
        size_mb=_size_mb(path),
        free_mb=free_mb,
        free_inodes=free_inodes,
    )


def _kind(path: Path) -> tuple[str | None, str, str]:
    """What lies there, and what keeps it from being used with its remedy."""
    from agent.store import files

    if _there(path.parent):
        if not os.access(path.parent, os.X_OK):
            return None, "", ""
        try:
            # The directory is there, so nothing is made: this only looks.
            files.prepare_directory(path)
        except AgentError as error:
            return None, error.message, error.hint
    try:
        return files.kind(path).name.lower(), "", ""
    except AgentError as error:
        return (None, "", "") if os.geteuid() != 0 else (None, error.message, error.hint)


def _history(path: Path) -> tuple[str, str | None, int | None, str]:
    """Journal, schema, newest row's time, and why they could not be read."""
    try:
        from agent.store import database as sqlite
        from agent.store import failures
    except ImportError as error:
        return "", None, None, str(error)
    try:
        database = sqlite.connect_to_read(path)
        try:
            journal = str(database.pragma("journal_mode"))
            known, applied = (
                set(sqlite.known_migrations()),
                set(sqlite.applied_migrations(database)),
            )
            newest = sqlite.rows(database, "SELECT max(timestamp) FROM metrics")[0][0]
        finally:
            database.close()
    except failures.StorageError as error:
        return "", None, None, str(error)
    schema = "newer" if applied - known else "older" if known - applied else "current"
    return journal, schema, newest if isinstance(newest, int) else None, ""


def _nearest(directory: Path) -> Path:
    """The directory itself or the nearest one above it that is there."""
    return next((one for one in (directory, *directory.parents) if _there(one)), Path("/"))


def _there(path: Path) -> bool:
    """Whether it can be seen: `Path.exists` raises where a directory on the way is closed."""
    try:
        path.stat()
    except OSError:
        return False
    return True


def _size_mb(path: Path) -> int:
    try:
        return path.stat().st_size >> 20
    except OSError:
        return 0


def _clock() -> ClockFacts:
    return ClockFacts(
        synchronised=_synchronised(),
        wall_ms=time.time_ns() // 10**6,
        installed_ms=int(Path(__file__).stat().st_mtime * 1000),
    )


def _synchronised() -> bool | None:
    """adjtimex(2) with no mode set only reads; `struct timex` is below 256 bytes."""
    try:
        state = int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(256)))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR
