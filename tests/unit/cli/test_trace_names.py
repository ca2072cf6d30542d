"""`agent bpf trace` names every engine's containers; one that is away costs its own names alone."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from agent.cli.commands.bpf_trace import _NameKeeper
from agent.cli.views.trace import Names
from agent.config import decode_config
from tests.unit.sources.engine.fake_engine import Clock, FakeEngine, inspected, listed, offer


class Noted(Names):
    """Says when it has learnt something."""

    def __init__(self) -> None:
        super().__init__()
        self.learnt = threading.Event()

    def learn_names(self, name_by_id: Mapping[str, str], asked: Iterable[str] = ()) -> None:
        super().learn_names(name_by_id, asked)
        self.learnt.set()


def test_every_engine_is_asked_and_one_that_is_away_is_said_once(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = FakeEngine(tmp_path / "one"), FakeEngine(tmp_path / "two")
    offer(one, (listed("a"), inspected("a")))
    offer(two, (listed("b"), inspected("b")))
    config = decode_config(
        f'docker_host = "{one.host}"\n[[engine]]\nname = "two"\nsocket = "{two.host}"\n'
        f'[[engine]]\nname = "away"\nsocket = "unix://{tmp_path}/none.sock"\n',
        "x",
    )
    names, said = Noted(), list[str]()
    say: Any = said.append
    names.learn_cgroup(5, 1, f"docker-{'a' * 64}.scope")
    names.learn_cgroup(6, 1, f"docker-{'b' * 64}.scope")
    try:
        with closing(_NameKeeper(config.engines, Clock(), names, say)) as keeper:
            keeper.start()
            assert names.learnt.wait(10)
            for events in keeper._events:
                events.close()
    finally:
        one.stop()
        two.stop()
    assert [names.of(number)[1] for number in (5, 6)] == ["name-a", "name-b"]
    assert len([line for line in said if "none.sock" in line]) == 1
