"""Nothing of a test's engine stays, also where the engine forgets a mount of its own."""

from __future__ import annotations

from tests.containers import ALPINE, wait_until
from tests.docker.left_mounts import mounts_below
from tests.docker.private_engine import private_engine


def test_an_engine_that_had_the_hosts_network_leaves_no_directory() -> None:
    with private_engine() as engine:
        directory = engine.directory
        box = engine.docker("run", "-d", "--network=host", ALPINE, "sleep", "9")
        default = str(directory / "exec/netns/default")
        wait_until(lambda: default in mounts_below(directory), "the network's mount")
        engine.docker("rm", "-f", box)
        assert default in mounts_below(directory)
    assert mounts_below(directory) == []
    assert not directory.exists()
