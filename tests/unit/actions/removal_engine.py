"""An engine for the tests of removals: the shared fake one, asked by kind of request."""

from __future__ import annotations

import json
import socket
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.model.container import Tier
from agent.model.removal import Decision, Reason
from tests.unit.sources.engine.fake_engine import VERSION, FakeEngine, reply

ID = "ab" * 32
CREATED = "2026-11-24T15:35:10.000000001Z"
CREATED_NS = 1_795_534_510_000_000_001
Answer = tuple[int, Any]


def about(state: str = "running", **changes: object) -> dict[str, object]:
    return {
        "Id": ID,
        "Created": CREATED,
        "Name": "/so1_contenedor_1",
        "Image": "sha256:" + "0" * 64,
        "State": {"Status": state, "Running": state == "running", "Pid": 7},
        "Config": {"Image": "alpine", "Labels": None},
        **changes,
    }


class RemovalEngine(FakeEngine):
    """`kinds[kind]` gives (status, body) for the n-th request of its kind; text is sent raw."""

    def __init__(self, directory: Path) -> None:
        self.kinds: dict[str, Callable[[int], Answer]] = {
            "look": lambda n: (200, about()),
            "stop": lambda n: (204, None),
            "restart": lambda n: (204, None),
            "pause": lambda n: (204, None),
            "delete": lambda n: (204, None),
            "list": lambda n: (200, []),
            "image": lambda n: (200, {"Config": {"Labels": None}}),
        }
        self.order: list[str] = []
        """The kinds that were requested, in their order."""
        self._guard = threading.Lock()
        super().__init__(directory)

    def count(self, kind: str) -> int:
        return Counter(self.order)[kind]

    def _answer(self, connection: socket.socket, method: str, target: str) -> None:
        path = target.partition("?")[0]
        if path.endswith("/version"):
            connection.sendall(reply(VERSION))
            return
        ends = {"/stop": "stop", "/containers/json": "list"}
        ends |= {"/restart": "restart", "/pause": "pause"}
        kind = next((word for end, word in ends.items() if path.endswith(end)), "look")
        kind = "delete" if method == "DELETE" else kind
        kind = "image" if "/images/" in path else kind
        with self._guard:
            number = self.count(kind)
            self.order.append(kind)
        status, body = self.kinds[kind](number)
        text = body if isinstance(body, str) else "" if body is None else json.dumps(body)
        connection.sendall(reply(text.encode(), f"{status} Said"))


def decision(container_id: str = ID, reason: Reason = Reason.EXCESS_LOW, rank: int = 1) -> Decision:
    return Decision(
        "d",
        container_id,
        "so1_contenedor_1",
        "alpine",
        CREATED_NS,
        Tier.LOW,
        rank,
        reason,
        1.0,
        0.0,
    )
