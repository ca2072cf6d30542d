"""An agent's exporter as a process of its own, fed with ticks that only a test could choose.

Reads one JSON object a line from standard input (`{"living_ns": …, "cpu_ns": …}`), stores it as a
tick as the service does, and answers each with the port it listens on. Killed like an agent.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

from agent.config import Config, PathSettings, RetentionSettings
from agent.config_outlets import MetricsSettings
from agent.daemon.metrics import Metrics
from agent.model.accounts import ContainerShare
from agent.model.bpf import CgroupEvents
from agent.model.container import ContainerCgroup
from agent.store.store import Store
from tests.unit.store.builders import FakeClock, a_container, a_tick, totals


def main() -> None:
    database, port, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    config = Config(
        metrics=MetricsSettings(listen=f"127.0.0.1:{port}"),
        paths=PathSettings(database=str(database)),
    )
    clock = FakeClock(time.time_ns())
    store = Store.open(database, clock=clock, retention=RetentionSettings())
    metrics = Metrics.start(config, store)
    for line in sys.stdin:
        tick = json.loads(line)
        containers = [
            replace(a_container(name, f"{number:064x}"), started_ns=clock.wall)
            for number, name in enumerate(
                tick.get("names") or (f"so1_contenedor_{number}" for number in range(count))
            )
        ]
        record = a_tick(
            wall_ns=time.time_ns(),
            totals=tuple(totals(one, held_kb=number + 1) for number, one in enumerate(containers)),
            container_count=len(containers),
            cgroups={
                one.key: ContainerCgroup(
                    one.key, f"/docker/{one.id}", frozenset(), cpu_ns=tick["cpu_ns"]
                )
                for one in containers
            },
            shares={
                one.key: ContainerShare(
                    tick["living_ns"], tick["living_ns"], 0, 0, 0, CgroupEvents(forks=1)
                )
                for one in containers
            },
        )
        metrics.ticked(record)
        store.write_tick(record)
        metrics.show(record, armed=True, stored=True)
        print(metrics.port, flush=True)


if __name__ == "__main__":
    main()
