"""What the rows of the adversarial table share: a container to arrange, and who runs in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.containers import Containers

SLEEP = ("sleep", "9999")

FAMILY = ("sh", "-c", "/bin/sleep 9999 & /bin/sleep 9999; true")
"""A shell and two children. With the path, or the shell would sleep by itself."""

ADMIN = (
    "--cap-add=SYS_ADMIN",
    "--security-opt=apparmor=unconfined",
    "--security-opt=seccomp=unconfined",
)


class AttributionRows:
    """Collected through a subclass, which gives `host`, `boxes` and `image`."""

    def run(
        self, boxes: Containers, image: str, *options: str, command: tuple[str, ...] = SLEEP
    ) -> str:
        # Without a network it is quicker, and other engines beside it cannot take the bridge away.
        network = () if any("--network" in one for one in options) else ("--network=none",)
        return boxes.run(image, command, options=(*network, *options))


def command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
