"""What a stop and a clean-up do alike: hold the generator still, then remove its containers.

One place, so that what a killed agent left ends as what a stopping one had.
"""

from __future__ import annotations

from collections.abc import Callable

from agent.actions.remover import remove_installation
from agent.daemon.lock import GeneratorLock
from agent.errors import AgentError, EngineUnavailableError
from agent.util.terminal import Say

_LAST_TRY_S = 1.0


def hold_generator(
    generator: GeneratorLock,
    *,
    give_up: Callable[[], bool] = lambda: False,
    at_last: Callable[[], None] = lambda: None,
) -> None:
    """Takes the generator's lock, to be kept, so that no container is born behind the removal.

    `at_last` is called once it has the lock or has waited in vain, before the last try. Raises
    AgentError where a generator still runs.
    """
    taken = generator.acquire(give_up=give_up)
    at_last()
    if not taken and not generator.acquire(_LAST_TRY_S):
        raise AgentError("A generator of load is still running.", "Run `sudo agent cleanup`.")


def remove_containers(docker_host: str, installation: str, say: Say) -> None:
    """Removes this installation's containers. Raises AgentError naming those that stay."""
    try:
        removals = remove_installation(docker_host, installation, progress=say)
    except EngineUnavailableError as error:
        raise AgentError(
            f"Docker is away, so this installation's containers stay: {error.message}",
            "Run `sudo agent cleanup` when it is back.",
        ) from error
    for one in removals:
        if one.outcome == "gone" and one.error:
            say(f"{one.decision.container_name} is left alone: {one.error}.")
    failed = [one for one in removals if one.outcome == "failed"]
    if failed:
        names = ", ".join(one.decision.container_name for one in failed)
        raise AgentError(f"{names} could not be removed: {failed[0].error}")
