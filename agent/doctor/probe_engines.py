"""Looks at the engines beside Docker's for `agent doctor`. Raises nothing for what is missing."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from agent.config import Config, EngineKind, EngineSettings
from agent.doctor.facts import EngineFacts
from agent.errors import AgentError

_TIMEOUT_S = 5.0


def engine_facts(config: Config) -> tuple[EngineFacts, ...]:
    """One for each `[[engine]]`, in the order of the settings."""
    return tuple(_look(one) for one in config.engine)


def _look(settings: EngineSettings) -> EngineFacts:
    if settings.kind is EngineKind.CRI:
        return _look_by_cri(settings)
    version = api = driver = problem = hint = ""
    try:
        import docker.errors

        from agent.daemon.engines import address_of
        from agent.engine_api.client import answering, connect_briefly
    except ImportError as error:
        problem, hint = f"It cannot be asked: {error}.", "See python."
    else:
        address = address_of(settings)
        try:
            with connect_briefly(address, _TIMEOUT_S) as client, answering(address):
                about, info = _table(client.version()), _table(client.info())
            version = str(about.get("Version", "")) or "of unknown version"
            api, driver = str(about.get("ApiVersion", "")), str(info.get("CgroupDriver", ""))
        except AgentError as error:
            problem, hint = error.message, error.hint
        except docker.errors.DockerException as error:
            problem = f"It refuses to be asked: {str(error)[:200]}"
            hint = f"Look at who may use {settings.socket}."
    return EngineFacts(
        settings.name, str(settings.kind), settings.governed, version, api, driver, problem, hint
    )


def _look_by_cri(settings: EngineSettings) -> EngineFacts:
    """The runtime by a helper of its own, ended after the answer."""
    version = api = problem = hint = ""
    try:
        from agent.clock import SystemClock
        from agent.daemon.engines import cri_helper
        from agent.sources.engine.cri import cri_version
    except ImportError as error:
        problem, hint = f"It cannot be asked: {error}.", "See python."
    else:
        with closing(cri_helper(settings, SystemClock())) as helper:
            try:
                version, api = cri_version(helper, _TIMEOUT_S)
                version = version or "of unknown version"
            except AgentError as error:
                problem, hint = error.message, error.hint
    return EngineFacts(settings.name, str(settings.kind), False, version, api, "", problem, hint)


def _table(answer: Any) -> dict[str, Any]:
    return answer if isinstance(answer, dict) else {}
