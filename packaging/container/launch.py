"""Keeps the agent's container running beside a Swarm task, which cannot have the host's processes.

Swarm services have no `--pid=host`. So the service's task is this program: through the engine's
socket it starts the agent from its own image, with the rights of docs/install.md, and takes it down
when the task ends. Its arguments are the agent's.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Any, NoReturn

import docker
from docker.errors import APIError, DockerException, NotFound

from agent.engine_api.own_container import own_ids

NAME = os.environ.get("SO1_NAME", "so1-agent")
_SOCKET = "unix:///var/run/docker.sock"
_STOP_S = 60
# Host's path → the container's, and whether it may write there.
_MOUNTS = {
    os.environ.get("SO1_SOCKET", "/var/run/docker.sock"): "/var/run/docker.sock:rw",
    "/sys/fs/cgroup": "/sys/fs/cgroup:ro",
    os.environ.get("SO1_HISTORY", "/var/lib/so1"): "/var/lib/so1:rw",
    os.environ.get("SO1_SETTINGS", "/etc/so1"): "/etc/so1:ro",
}


class StopRequestedError(Exception):
    """The task is to end."""


def own_image(client: Any) -> str:
    """The image that this very container was made from. Raises StopIteration outside one."""
    return str(client.inspect_container(next(iter(own_ids())))["Image"])


def remove(client: Any) -> None:
    """Stops and removes the agent's container; nothing where it is gone."""
    try:
        client.stop(NAME, timeout=_STOP_S)
        client.remove_container(NAME, force=True)
    except NotFound:
        pass


def create(client: Any, words: list[str]) -> None:
    """Makes the agent's container and starts it. Raises APIError."""
    binds = [f"{host}:{inside}" for host, inside in _MOUNTS.items()]
    settings = client.create_host_config(
        binds=binds,
        pid_mode="host",
        network_mode=os.environ.get("SO1_NETWORK", "host"),
        cap_drop=["ALL"],
        cap_add=["SYS_PTRACE"],
        security_opt=["apparmor=unconfined"],
    )
    settings["CgroupnsMode"] = "host"
    client.create_container(own_image(client), command=words, name=NAME, host_config=settings)
    client.start(NAME)


def main() -> NoReturn:
    """Ends with the agent's status, or 0 after a stop."""

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise StopRequestedError

    client = docker.APIClient(base_url=_SOCKET, version="auto", timeout=3600)
    try:
        signal.signal(signal.SIGTERM, stop)
        remove(client)
        create(client, sys.argv[1:])
        status = int(client.wait(NAME)["StatusCode"])
        sys.stderr.write(client.logs(NAME, tail=20).decode(errors="replace"))
    except StopRequestedError:
        status = 0
    except (APIError, DockerException, StopIteration) as error:
        sys.stderr.write(f"launch.py: the agent's container cannot be run: {error}\n")
        status = 1
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        remove(client)
    sys.exit(status)


if __name__ == "__main__":
    main()
