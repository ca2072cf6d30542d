"""The forms in which engines name the cgroups of their containers.

A full id alone proves nothing: a host's unit may be called `ci-job-<64 digits>.service`, and podman
runs a container's health check as `<id>.service`. Pure.
"""

from __future__ import annotations

import re

from agent.model import container_id

RUNTIMES = ("docker", "libpod", "libpod-payload", "cri-containerd", "crio", "nerdctl")

_FORM = re.compile(
    # containerd's `slice:cri-containerd:<id>`, where it was given systemd's path and no systemd.
    rf"^(?:(?:[^:]+:)?(?P<runtime>{'|'.join(RUNTIMES)})[-:])?"
    rf"(?P<id>{container_id.PATTERN})"
    r"(?:\.scope)?$"
)


def container_like(name: str) -> tuple[str, str] | None:
    """(runtime, full id) of a directory's name: of a known engine's form, or the id alone.

    None for everything else, monitors and pods of podman and CRI-O among them.
    """
    match = _FORM.match(name) if len(name) >= container_id.LENGTH else None
    return (match["runtime"] or "", match["id"]) if match else None


def holds_pods(name: str) -> bool:
    """Whether what lies in a directory of this name may be podman's pods, by their bare ids.

    Its cgroupfs manager makes `/libpod_parent/<pod>/libpod-<container>`; systemd's has slices.
    """
    return name == "libpod_parent"


def is_monitors(name: str) -> bool:
    """Whether it is of the process that watches a container: conmon, podman's and CRI-O's."""
    return "-conmon-" in name
