"""How one container is removed: looked up again by full id and creation time, stopped, deleted.

An id may have become another container's name since it was decided on, and an exited container may
run again; what is not exactly the one decided on is left alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from http import HTTPStatus

import docker
import docker.errors

from agent.engine_api import schema
from agent.engine_api.client import answering, connect
from agent.engine_api.schema import Inspected
from agent.errors import EngineUnavailableError
from agent.model.container import Container
from agent.model.removal import Action, Decision, Outcome, Reason
from agent.util.terminal import printable

CALL_TIMEOUT_S = 30.0
"""One call of Docker; a loaded host takes some seconds to delete a container."""
GONE_TIMEOUT_S = 15.0
"""How long a removal that Docker has begun is waited for."""
MAX_ERROR = 300

POLL_S = 0.05
POLL_TIMEOUT_S = 5.0

StillAllowed = Callable[[Decision, Container], bool]
"""Whether the container, as it is this moment, may still go. It knows no `own_installation`."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How one attempt ended."""

    outcome: Outcome
    error: str = ""


Instead = Callable[[Decision], Ending | None]
"""Asked immediately before the action: how the decision ends without it, None where it is done."""


def look_up(api: docker.APIClient, container_id: str) -> Inspected | None:
    """The container with this full id, None where there is none.

    Docker takes a name or the beginning of an id as well: only an answer with the very id counts.
    """
    try:
        seen = schema.inspected(api.inspect_container(container_id))
    except docker.errors.NotFound:
        return None
    return seen if seen.Id == container_id else None


def labels_of_image(api: docker.APIClient, image_id: str) -> Mapping[str, str]:
    """The labels that containers of this image inherit. Raises docker.errors.NotFound."""
    return schema.image_labels(api.inspect_image(image_id))  # type: ignore[no-untyped-call]


def attempt(
    docker_host: str,
    decision: Decision,
    grace_s: int,
    still_allowed: StillAllowed | None = None,
    last_word: Instead = lambda _: None,
) -> Ending:
    """Carries out one decision. Every call of Docker has a time limit; its failures are FAILED.

    `grace_s` is what a decision without a grace of its own has.
    """
    if decision.grace_s is not None:
        grace_s = decision.grace_s
    try:
        with answering(docker_host), closing(connect(docker_host, CALL_TIMEOUT_S)) as api:
            seen = look_up(api, decision.container_id)
            if seen is None:
                return Ending(Outcome.GONE)
            if other := _another(decision, seen, still_allowed):
                return Ending(Outcome.GONE, other)
            if instead := last_word(decision):
                return instead
            if decision.action is not Action.REMOVE:
                return act(docker_host, api, decision, seen, grace_s)
            if seen.State.Status == "removing":
                return _await_removal(docker_host, decision, Outcome.GONE, "is being removed")
            # A rule that gives no time: its deletion kills it as well, and is one request less.
            if seen.State.Running and decision.grace_s != 0:
                _stop(api, decision.container_id, grace_s)
            return _delete(docker_host, api, decision)
    except docker.errors.APIError as error:
        return Ending(Outcome.FAILED, _words(error))
    except EngineUnavailableError as error:
        return Ending(Outcome.FAILED, error.message[:MAX_ERROR])


def _another(decision: Decision, seen: Inspected, still_allowed: StillAllowed | None) -> str:
    """Why what Docker has under this id is not what was decided on any more, "" where it is."""
    now = seen.container()
    if now.created_ns != decision.created_ns:
        return "created at another time than the one decided on"
    if decision.reason is Reason.EXITED and seen.State.Running:
        return "it runs again"
    if still_allowed is not None and not still_allowed(decision, now):
        return "not governed any more"
    return ""


def act(
    docker_host: str, api: docker.APIClient, decision: Decision, seen: Inspected, grace_s: int
) -> Ending:
    """Stops, restarts or pauses one that was looked up. One that is so already is left alone.

    Raises docker.errors.APIError where Docker refuses.
    """
    if decision.action is Action.NOTIFY:
        return Ending(Outcome.NOTIFIED)
    restarts_ended = decision.action is Action.RESTART and decision.reason is Reason.EXITED
    if not seen.State.Running and not restarts_ended:
        return Ending(Outcome.GONE, "it does not run any more")
    if decision.action is Action.PAUSE and seen.State.Status == "paused":
        return Ending(Outcome.GONE, "it is paused already")
    done = _DONE[decision.action]
    try:
        with answering(docker_host):
            if decision.action is Action.STOP:
                api.stop(decision.container_id, timeout=grace_s)
            elif decision.action is Action.RESTART:
                api.restart(decision.container_id, timeout=grace_s)
            else:
                api.pause(decision.container_id)
    except EngineUnavailableError as error:
        # It was asked for and may well happen: only a look tells.
        return _await_change(docker_host, decision, seen, done, error.message)
    return Ending(done)


_DONE: Mapping[Action, Outcome] = {
    Action.STOP: Outcome.STOPPED,
    Action.RESTART: Outcome.RESTARTED,
    Action.PAUSE: Outcome.PAUSED,
}


def _await_change(
    docker_host: str, decision: Decision, before: Inspected, outcome: Outcome, problem: str
) -> Ending:
    """`outcome` once the container is as the action makes it, FAILED with `problem` after a while.

    A restart shows by another first process.
    """

    def changed(now: Inspected) -> bool:
        if decision.action is Action.RESTART:
            return now.State.Running and now.State.Pid != before.State.Pid
        wanted = "paused" if decision.action is Action.PAUSE else "exited"
        return now.State.Status == wanted

    def ending(now: Inspected | None) -> Ending | None:
        if now is None:
            return Ending(Outcome.GONE)
        return Ending(outcome) if changed(now) else None

    return _await(docker_host, decision, ending, problem)


def _stop(api: docker.APIClient, container_id: str, grace_s: int) -> None:
    """Its stop signal, the grace, then SIGKILL, all by Docker. A failure shows at deletion."""
    with suppress(docker.errors.APIError):
        api.stop(container_id, timeout=grace_s)


def _delete(docker_host: str, api: docker.APIClient, decision: Decision) -> Ending:
    """Deletes it; its anonymous volumes stay. One that had exited is never killed for it."""
    had_exited = decision.reason is Reason.EXITED
    try:
        with answering(docker_host):
            try:
                api.remove_container(decision.container_id, v=False, force=not had_exited)
            except docker.errors.NotFound:
                return Ending(Outcome.GONE)
            except docker.errors.APIError as error:
                return _refused(docker_host, decision, error)
    except EngineUnavailableError as error:
        # It was asked for and may well happen: only its absence tells.
        return _await_removal(docker_host, decision, Outcome.REMOVED, error.message)
    return Ending(Outcome.REMOVED)


def _refused(docker_host: str, decision: Decision, error: docker.errors.APIError) -> Ending:
    """What a deletion that Docker did not carry out comes to."""
    said = _words(error)
    if error.response is not None and error.response.status_code == HTTPStatus.CONFLICT:
        if "in progress" in said:
            return _await_removal(docker_host, decision, Outcome.GONE, said)
        if decision.reason is Reason.EXITED:
            return Ending(Outcome.GONE, "it runs again")
    return Ending(Outcome.FAILED, said)


def _await_removal(docker_host: str, decision: Decision, outcome: Outcome, problem: str) -> Ending:
    """`outcome` once Docker has no container of this id, FAILED with `problem` after a while."""
    return _await(
        docker_host, decision, lambda now: Ending(outcome) if now is None else None, problem
    )


def _await(
    docker_host: str,
    decision: Decision,
    ending: Callable[[Inspected | None], Ending | None],
    problem: str,
) -> Ending:
    """What `ending` makes of the container, None where there is none, once it makes anything of it;
    FAILED with `problem` after a while.

    Each look is a connection of its own, so that one broken by a restart of Docker tells nothing.
    """
    deadline = time.monotonic() + GONE_TIMEOUT_S
    while True:
        with (
            suppress(EngineUnavailableError),
            answering(docker_host),
            closing(connect(docker_host, POLL_TIMEOUT_S)) as api,
        ):
            found = ending(look_up(api, decision.container_id))
            if found is not None:
                return found
        if time.monotonic() >= deadline:
            return Ending(Outcome.FAILED, problem[:MAX_ERROR])
        time.sleep(POLL_S)


def _words(error: docker.errors.APIError) -> str:
    """What Docker said, safe to print and short; it may repeat names that a workload chose."""
    return printable(str(error.explanation or error)[:MAX_ERROR])
