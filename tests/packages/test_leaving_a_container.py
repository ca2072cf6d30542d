"""What docs/install.md says of running and leaving the container, done word by word.

The engine and the host's directories before and after; what is compared is Docker's and the
kernel's word.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from tests.agent_process import rows
from tests.containers import wait_until
from tests.packages.conftest import IMAGE, PROJECT

if TYPE_CHECKING:
    from tests.docker.private_engine import PrivateEngine

DOCUMENT = PROJECT / "docs/install.md"
PLACES = ("etc/so1", "var/lib/so1", "var/log/so1", "run/so1", "opt/so1", "etc/cron.d")
_LISTS = {
    "containers": ("ps", "-a", "--no-trunc", "--format", "{{.Names}} {{.ID}}"),
    "volumes": ("volume", "ls", "-q"),
    "networks": ("network", "ls", "--no-trunc", "-q"),
    "images": ("images", "-a", "--no-trunc", "-q"),
}


def documented_start() -> list[str]:
    (command,) = re.findall(
        r"^docker (run -d .*?) so1-agent\n```", DOCUMENT.read_text(), re.S | re.M
    )
    return shlex.split(str(command).replace("\\\n", " "))


def row_of_the_container() -> tuple[list[str], str]:
    """The commands that leave it, and what stays."""
    (row,) = re.findall(
        r"^\| a container \| `(docker .*?)` \| (.*) \|$", DOCUMENT.read_text(), re.M
    )
    return str(row[0]).split(" && "), str(row[1])


def hosts_files() -> set[str]:
    """What a clone or the package has on a host, which is this machine."""
    roots = [Path("/") / place for place in PLACES]
    return {str(path) for root in roots if root.exists() for path in [root, *root.rglob("*")]}


def engines(engine: PrivateEngine) -> dict[str, set[str]]:
    return {name: set(engine.docker(*words).splitlines()) for name, words in _LISTS.items()}


def test_the_documented_way_out_of_a_container_leaves_the_image_alone(
    engine: PrivateEngine,
) -> None:
    engine.run("--name", "job")
    try:
        before = engines(engine), hosts_files()
        words = [
            word.replace("/var/run/docker.sock:", f"{engine.directory}/docker.sock:")
            for word in documented_start()
        ]
        engine.docker(*words, IMAGE)
        assert engines(engine)["volumes"] == before[0]["volumes"] | {"so1-history"}
        place = engine.docker("volume", "inspect", "-f", "{{.Mountpoint}}", "so1-history")
        database = Path(place) / "metrics.db"

        def stored() -> bool:
            made = "SELECT name FROM sqlite_master WHERE name = 'container_stats'"
            if not database.exists() or not rows(database, made):
                return False
            named = "SELECT 1 FROM container_stats WHERE container_name = 'job'"
            return bool(rows(database, named))

        wait_until(stored, "a tick of it", timeout_s=300)
        commands, stays = row_of_the_container()
        for command in commands:
            assert command.startswith("docker ")
            engine.docker(*shlex.split(command)[1:])
        assert (engines(engine), hosts_files()) == before
        # The image was there before it was started, so it is what is left of the whole.
        (remove_image,) = re.findall(r"`docker (rmi \S+)`", stays)
        assert remove_image.split()[1] == IMAGE.split(":")[0]
    finally:
        engine.clear()
