"""The adversarial table natively: the fallback source, on whatever cgroups this machine has.

On the shared engine, and with --full on Docker 26.1, 28.5 and 29, each an engine of its own.
"""

from __future__ import annotations

import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.clock import SystemClock
from agent.sources import psutil_source
from agent.sources.cgroup import reader
from tests import containers
from tests.attribution_support import Host, host_cgroup, identifying_root
from tests.attribution_table import AttributionTable
from tests.docker.cgroups_left import no_cgroup_left
from tests.docker.engine_tree import INSTALLED
from tests.docker.private_engine import DOCKERS, private_engine

BUSYBOX = Path("/bin/busybox")


@pytest.fixture(scope="module", params=DOCKERS)
def engine_host(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where all of the table's commands and the agent's parts find their engine."""
    if request.param == INSTALLED:
        yield containers.HOST
        return
    with private_engine(request.param) as engine, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", engine.host)
        patch.setattr(containers, "HOST", engine.host)
        yield engine.host


@pytest.fixture(scope="module")
def image(engine_host: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A busybox image of this module's own."""
    if not BUSYBOX.exists():
        pytest.skip("needs /bin/busybox (busybox-static)")
    if not containers.engine_answers():
        pytest.skip("needs a Docker engine")
    if not identifying_root().is_dir():
        pytest.skip("needs cgroups at /sys/fs/cgroup")
    archive = tmp_path_factory.mktemp("image") / "busybox.tar"
    applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True)
    with tarfile.open(archive, "w") as tar:
        tar.add(BUSYBOX, "bin/busybox")
        for name in ("proc", "sys", "dev", "tmp", "host"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        for applet in applets.stdout.split():
            if applet != "busybox":
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
    print(f"\n{containers.docker('version', '--format', '{{.Server.Version}}')} at {engine_host}")
    name = f"so1-test-table-alpine:{uuid.uuid4().hex[:8]}"
    containers.import_image(name, archive)
    yield name
    containers.docker("image", "rm", name)


@pytest.fixture(scope="module")
def boxes(image: str) -> Iterator[containers.Containers]:
    """All containers of the table stay up to its end."""
    mine = containers.Containers()
    with no_cgroup_left("so1test"):
        yield mine
        mine.close()


@pytest.fixture(scope="module")
def host(image: str) -> Iterator[Host]:
    layout = reader.detect()
    made = Host({"psutil": lambda: psutil_source.read(SystemClock(), layout)}, layout=layout)
    yield made
    print(f"\n{made.looks} looks, {made.rows} rows, Docker asked again {made.asked_again} times")
    made.close()


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A cgroup of the host's."""
    with host_cgroup() as directory:
        yield directory


class TestAttributionByThePsutilSource(AttributionTable):
    pass
