"""Our Grafana comes up and goes down on a real engine, and a Grafana that is not ours stays.

The image is a stand-in, busybox's web server answering at Grafana's health address: what is tested
is compose, the mounts, the limits and the words, not Grafana itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import shutil
import socket
import stat
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.errors import DockerException, NotFound
from docker.models.containers import Container

from agent.actions.grafana import CONTAINER, PROJECT, Grafana
from agent.config import GrafanaSettings
from agent.errors import AgentError, EngineUnavailableError
from tests.containers import HOST

GOOD = "so1-test-grafana-standin:good"
BROKEN = "so1-test-grafana-standin:broken"
COMPOSE_FILE = Path(__file__).resolve().parents[2] / "grafana" / "docker-compose.yml"
SERVE = (
    'CMD ["/bin/busybox", "sh", "-c", '
    "\"trap 'exit 0' TERM; /bin/busybox httpd -f -p 3000 -h /www & wait\"]"
)
FAIL = 'CMD ["/bin/busybox", "sh", "-c", "echo the plugin could not be fetched; exit 1"]'


def _compose_variants() -> list[list[str]]:
    found = []
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]):
            version = subprocess.run([*command, "version"], capture_output=True, check=False)
            if version.returncode == 0:
                found.append(command)
    return found


def run_in(container: Container, words: list[str]) -> str:
    output = container.exec_run(words).output
    assert isinstance(output, bytes)
    return output.decode()


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    if not Path("/bin/busybox").exists():
        pytest.skip("needs /bin/busybox (Debian's busybox-static)")
    if not _compose_variants():
        pytest.skip("needs `docker compose` or `docker-compose`")
    try:
        client = docker.DockerClient(base_url=HOST)
        client.ping()
    except DockerException as error:
        pytest.skip(f"needs a Docker engine at {HOST}: {error}")
    for name, change in ((GOOD, SERVE), (BROKEN, FAIL)):
        repository, tag = name.split(":")
        client.api.import_image_from_data(
            _rootfs(), repository=repository, tag=tag, changes=[change]
        )
    yield client
    client.images.remove(GOOD)
    client.images.remove(BROKEN)
    client.close()


def _rootfs() -> bytes:
    """busybox, the applet that the health check calls, and a page where Grafana has its health."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
        for name in ("wget", "sh", "id", "head", "touch"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "/bin/busybox"
            tar.addfile(link)
        for name in ("tmp", "var/lib/grafana", "www/api"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o777
            tar.addfile(folder)
        page = tarfile.TarInfo("www/api/health")
        page.size = 2
        tar.addfile(page, io.BytesIO(b"{}"))
    return out.getvalue()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    folder = tmp_path / "with a space"
    folder.mkdir(mode=0o750)
    file = folder / "metrics.db"
    file.write_bytes(b"SQLite format 3\0")
    file.chmod(0o640)
    return file


@pytest.fixture
def clean(engine: docker.DockerClient) -> Iterator[docker.DockerClient]:
    """The engine without a container of our name, before and after."""
    try:
        present = engine.containers.get(CONTAINER)
    except NotFound:
        present = None
    if present is not None and present.labels.get("so1.test") is None:
        image = present.attrs["Config"]["Image"]
        if not image.startswith("so1-test-grafana-standin"):
            pytest.skip(f"needs an engine without a container called {CONTAINER}")
    _sweep(engine)
    yield engine
    _sweep(engine)


def _sweep(engine: docker.DockerClient) -> None:
    with contextlib.suppress(NotFound):
        engine.containers.get(CONTAINER).remove(force=True)
    for network in engine.networks.list(filters={"label": f"com.docker.compose.project={PROJECT}"}):
        network.remove()
    with contextlib.suppress(NotFound):
        engine.volumes.get(f"{PROJECT}_data").remove()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _grafana(database: Path, image: str = GOOD, port: int | None = None) -> Grafana:
    settings = GrafanaSettings(port=port or _free_port(), admin_password="pa$$ ${HOME} 'x\"")
    return Grafana(settings, Path("/nonexistent"), database, HOST, image=image)


def test_grafana_comes_up_healthy_at_the_address_that_is_said_and_goes_again(
    clean: docker.DockerClient, database: Path
) -> None:
    port = _free_port()
    said: list[str] = []

    address = _grafana(database, port=port).up(said.append)

    assert address == f"http://localhost:{port}"
    assert clean.containers.get(CONTAINER).attrs["State"]["Health"]["Status"] == "healthy"
    assert any("starting" in line for line in said)
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        pass
    _grafana(database).down()
    with pytest.raises(NotFound):
        clean.containers.get(CONTAINER)


def test_the_volume_stays_when_grafana_goes(clean: docker.DockerClient, database: Path) -> None:
    _grafana(database).up(lambda _: None)

    _grafana(database).down()

    assert (
        clean.volumes.get(f"{PROJECT}_data").attrs["Labels"]["com.docker.compose.volume"] == "data"
    )
    assert not clean.networks.list(filters={"label": f"com.docker.compose.project={PROJECT}"})


def test_it_is_no_root_has_no_capability_and_listens_on_loopback_only(
    clean: docker.DockerClient, database: Path
) -> None:
    _grafana(database).up(lambda _: None)

    found = clean.containers.get(CONTAINER)
    limits = found.attrs["HostConfig"]
    status = run_in(found, ["/bin/busybox", "cat", "/proc/self/status"])
    assert run_in(found, ["id", "-u"]).strip() == "472"
    assert run_in(found, ["id", "-g"]).strip() == "0"
    assert "CapBnd:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert limits["Memory"] == 512 * 1024 * 1024
    assert {one["HostIp"] for one in limits["PortBindings"]["3000/tcp"]} == {"127.0.0.1"}


def test_it_reads_the_database_of_root_and_writes_nothing_there(
    clean: docker.DockerClient, database: Path
) -> None:
    assert stat.S_IMODE(database.stat().st_mode) == 0o640
    _grafana(database).up(lambda _: None)

    found = clean.containers.get(CONTAINER)
    read = found.exec_run(["head", "-c", "15", "/var/lib/so1/metrics.db"])
    written = found.exec_run(["touch", "/var/lib/so1/mine"])

    assert read.output == b"SQLite format 3"
    assert written.exit_code != 0
    assert b"Read-only file system" in written.output


def test_the_password_reaches_it_as_it_is_written(
    clean: docker.DockerClient, database: Path
) -> None:
    _grafana(database).up(lambda _: None)

    environment = clean.containers.get(CONTAINER).attrs["Config"]["Env"]

    assert "GF_SECURITY_ADMIN_PASSWORD=pa$$ ${HOME} 'x\"" in environment


def test_a_grafana_that_was_kept_is_brought_up_again(
    clean: docker.DockerClient, database: Path
) -> None:
    port = _free_port()
    _grafana(database, port=port).up(lambda _: None)
    first = clean.containers.get(CONTAINER).id

    _grafana(database, port=port).up(lambda _: None)

    assert clean.containers.get(CONTAINER).id != first
    assert _grafana(database).is_ours()


def test_a_container_of_that_name_that_is_not_ours_is_told_and_never_touched(
    clean: docker.DockerClient, database: Path
) -> None:
    theirs = clean.containers.run(
        GOOD, name=CONTAINER, detach=True, labels={"so1.test": "1"}, network_mode="none"
    )

    with pytest.raises(AgentError, match="not the agent's"):
        _grafana(database).up(lambda _: None)
    _grafana(database).down()

    theirs.reload()
    assert theirs.status == "running"
    assert not _grafana(database).is_ours()


def test_a_taken_port_is_one_sentence_and_starts_nothing(
    clean: docker.DockerClient, database: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(AgentError, match=f"Port {port} .* taken") as raised:
            _grafana(database, port=port).up(lambda _: None)

    assert "ss -ltnp" in raised.value.hint
    with pytest.raises(NotFound):
        clean.containers.get(CONTAINER)


def test_an_image_that_cannot_be_had_is_one_sentence_with_the_command(
    clean: docker.DockerClient, database: Path
) -> None:
    # Nothing listens on port 1: the registry is out of reach at once.
    image = "127.0.0.1:1/nobody/grafana:13"

    with pytest.raises(AgentError, match="cannot be pulled") as raised:
        _grafana(database, image=image).up(lambda _: None)

    assert f"docker pull {image}" in raised.value.hint


def test_a_grafana_that_ends_at_once_is_told_with_its_last_words(
    clean: docker.DockerClient, database: Path
) -> None:
    with pytest.raises(AgentError, match="the plugin could not be fetched"):
        _grafana(database, image=BROKEN).up(lambda _: None)


def test_down_makes_a_start_under_way_give_up(clean: docker.DockerClient, database: Path) -> None:
    grafana = _grafana(database)
    errors: list[str] = []
    begun = threading.Event()

    def bring_up() -> None:
        try:
            grafana.up(lambda _: begun.set())
        except AgentError as error:
            errors.append(error.message)

    thread = threading.Thread(target=bring_up)
    thread.start()
    assert begun.wait(30)
    grafana.down()
    thread.join(30)

    assert errors == ["Grafana's start was given up: the agent stops."]
    with pytest.raises(NotFound):
        clean.containers.get(CONTAINER)


def test_down_waits_for_the_compose_that_a_killed_agent_left_at_work(
    clean: docker.DockerClient, database: Path, tmp_path: Path
) -> None:
    def ours() -> Grafana:
        settings = GrafanaSettings(port=_free_port())
        return Grafana(settings, Path("/nonexistent"), database, HOST, image=GOOD, run_dir=tmp_path)

    ours().up(lambda _: None)
    # It has only the descriptor that it inherited.
    held = os.open(tmp_path / "compose.lock", os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    compose = subprocess.Popen(["sleep", "999"], pass_fds=[held])
    os.close(held)
    answers: list[bool] = []

    def take_down() -> None:
        answers.append(ours().is_ours())
        ours().down()

    thread = threading.Thread(target=take_down)
    thread.start()
    try:
        thread.join(1.0)
        assert thread.is_alive()
        assert answers == []
    finally:
        compose.kill()
        compose.wait()
    thread.join(60)
    assert answers == [True]
    with pytest.raises(NotFound):
        clean.containers.get(CONTAINER)


def test_without_an_engine_both_ways_say_so(tmp_path: Path, database: Path) -> None:
    away = Grafana(GrafanaSettings(), tmp_path, database, f"unix://{tmp_path}/no.sock", image=GOOD)

    for step in (lambda: away.up(lambda _: None), away.down, away.is_ours):
        with pytest.raises(EngineUnavailableError, match=r"Docker at .* does not answer"):
            step()


@pytest.mark.parametrize("command", (["docker", "compose"], ["docker-compose"]))
def test_both_variants_of_compose_accept_the_file(command: list[str]) -> None:
    if command not in _compose_variants():
        pytest.skip(f"needs `{' '.join(command)}`")

    done = subprocess.run(
        [*command, "-p", PROJECT, "-f", str(COMPOSE_FILE), "config", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
