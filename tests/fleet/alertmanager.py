"""Debian's Alertmanager on a free port, and its own API as the oracle of what it holds."""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from tests.fleet.programs import fetch, free_port, program, running, wait_until

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

_CONFIG = "route: {receiver: nobody, group_wait: 0s}\nreceivers: [{name: nobody}]\n"


@dataclass(slots=True)
class Alertmanager:
    """One that can be killed and started again on the same port, with what it stored itself."""

    directory: Path
    port: int = field(default_factory=free_port)
    _stack: ExitStack = field(default_factory=ExitStack)
    process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.directory.mkdir(exist_ok=True)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        config = self.directory / "alertmanager.yml"
        config.write_text(_CONFIG, encoding="utf-8")
        self.process = self._stack.enter_context(
            running(
                [
                    program("prometheus-alertmanager"),
                    f"--config.file={config}",
                    f"--storage.path={self.directory}/data",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                    "--cluster.listen-address=",
                ],
                self.directory / "log",
            )
        )
        wait_until(lambda: fetch(f"{self.url}/-/ready"), "Alertmanager")

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(20)

    def alerts(self) -> list[dict[str, Any]]:
        """What it holds as active, by its API."""
        text = fetch(f"{self.url}/api/v2/alerts?active=true")
        found: list[dict[str, Any]] = json.loads(text) if text else []
        return found

    def one(self, what: str, timeout_s: float = 60) -> dict[str, Any]:
        """The one alert that it holds, once it does."""
        (alert,) = wait_until(self.alerts, what, timeout_s)
        return dict(alert)
