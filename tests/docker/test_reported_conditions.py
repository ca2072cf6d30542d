"""What a running agent reports of a proxy that refuses events and of an owner that never gives up.

The proxy is a few lines in front of the engine's socket, as people put one there.
"""

from __future__ import annotations

import signal
import socket
import socketserver
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.agent_process import AgentProcess, run_agent
from tests.containers import DockerCommandError, wait_until
from tests.docker.private_engine import PrivateEngine

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def proxy(module_engine: PrivateEngine, place: Path) -> Iterator[str]:
    """The address of a proxy that refuses `GET /events` and hands all else on."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with socket.socket(socket.AF_UNIX) as upstream:
                upstream.connect(str(module_engine.directory / "docker.sock"))
                answers = threading.Thread(target=self._answers, args=(upstream,), daemon=True)
                answers.start()
                with suppress(OSError):
                    while data := self.request.recv(65536):
                        if b"/events" in data.partition(b"\r\n")[0]:
                            self.request.sendall(
                                b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
                            )
                            continue
                        upstream.sendall(data)

        def _answers(self, upstream: socket.socket) -> None:
            with suppress(OSError):
                while data := upstream.recv(65536):
                    self.request.sendall(data)

    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that hung up."""

    path = place / "proxy.sock"
    with Server(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"unix://{path}"
        server.shutdown()
        thread.join()


def settings(place: Path, host: str, rest: str = "") -> str:
    file = place / "agent.toml"
    file.write_text(
        f'interval_s = 1\nsource = "psutil"\ndocker_host = "{host}"\n[bpf]\nenabled = false\n'
        "[grafana]\nenabled = false\n[cron]\nenabled = false\n[paths]\n"
        f'run = "{place}/run"\nlog = "{place}/log"\ndatabase = "{place}/metrics.db"\n{rest}'
    )
    return str(file)


def status(config: str) -> str:
    return run_agent("status", "--config", config).stdout


def test_refused_events_are_in_status_and_doctor_and_the_limit_still_holds(
    module_engine: PrivateEngine, place: Path, proxy: str
) -> None:
    config = settings(place, proxy)
    for number in range(5):
        module_engine.run("--name", f"so1_contenedor_{number}")
    with AgentProcess(["--config", config]) as agent:
        wait_until(lambda: "events: " in status(config), "status reports the refusal")
        assert "the limit is looked at with each tick only" in status(config)
        wait_until(lambda: len(module_engine.names()) == 3, "the tick leaves three")
        doctor = run_agent("doctor", "--config", config).stdout
        agent.signal(signal.SIGTERM)
        assert agent.wait_end(120) == 0, agent.output
    assert sum("events=refused" in line for line in agent.lines) == 1
    assert "let the proxy in front of it pass GET /events" in doctor


def test_an_owner_that_brings_its_container_back_is_reported_once_and_not_spared(
    module_engine: PrivateEngine, place: Path
) -> None:
    engine = module_engine
    config = settings(place, engine.host, "[policy]\nkeep_low = 0\n")
    ending = threading.Event()
    made: list[str] = []

    def owner() -> None:
        while not ending.wait(0.2):
            with suppress(DockerCommandError):  # it is there already
                made.append(engine.run("--name", "so1_contenedor_service"))

    thread = threading.Thread(target=owner)
    thread.start()
    try:
        with AgentProcess(["--config", config]) as agent:
            wait_until(lambda: "owner-recreates: " in status(config), "status reports the owner")
            seen = len(made)
            wait_until(lambda: len(made) > seen + 1, "it is removed as before")
            agent.signal(signal.SIGTERM)
            assert agent.wait_end(120) == 0, agent.output
    finally:
        ending.set()
        thread.join()
    reports = [line for line in agent.lines if "outcome=owner-recreates" in line]
    assert len(reports) == 1
    assert "whatever makes so1_contenedor_service" in reports[0]
