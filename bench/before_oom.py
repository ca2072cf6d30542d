"""From a bound of the host's memory to the request of removal: `python -m bench.before_oom`.

Natively, with a Docker engine of its own and `/proc` as the source. Nothing is short: the bound of
each run is set a little below what this machine has at that moment, so who else uses its memory
makes runs odd, and those are left out and counted. Prints a table and, of guests' figures
(`before-oom.jsonl` of tests/vm/test_before_oom.py), one more.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.agent_process import AgentProcess
from tests.containers import wait_until
from tests.docker.private_engine import PrivateEngine, private_engine

BELOW_MB = 400
MOST_MB = 1200
_EATS = """
until [ -e /go/{run} ]; do usleep 20000; done
n=0
while [ $n -lt {steps} ]; do
    dd if=/dev/zero of=/dev/shm/$n bs={step}M count=1 2>/dev/null
    n=$((n + 1))
    usleep {pause_us}
done
sleep infinity
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.before_oom", description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--guest", type=Path, help="figures of a guest, before-oom.jsonl")
    options = parser.parse_args()
    if options.guest:
        lines = options.guest.read_text(encoding="utf-8").splitlines()
        print(guest_table([json.loads(line) for line in lines]))
        return 0
    print("| pace | runs | bound to request, ms: least, median, most | to gone, ms |")
    print("| --- | --- | --- | --- |")
    with private_engine() as engine:
        for mb_per_s in (100, 20):
            found = []
            for number in range(options.runs):
                one = run(engine, mb_per_s, number)
                print(f"{mb_per_s} MB/s, run {number + 1}: {one}", file=sys.stderr, flush=True)
                if one is not None:
                    found.append(one)
            request = [round(1000 * one[0]) for one in found]
            gone = [round(1000 * one[1]) for one in found]
            print(
                f"| {mb_per_s} MB/s | {len(found)} of {options.runs} | {spread(request)} "
                f"| {spread(gone)} |",
                flush=True,
            )
    return 0


def spread(values: list[int]) -> str:
    if not values:
        return "none"
    return f"{min(values)}, {statistics.median(values):.0f}, {max(values)}"


def run(engine: PrivateEngine, mb_per_s: int, number: int) -> tuple[float, float] | None:
    """Seconds from the bound to the request and to the end of the eater; None for an odd run."""
    with tempfile.TemporaryDirectory(prefix="so1-before-oom-", dir="/var/tmp") as name:
        directory = Path(name)
        (directory / "go").mkdir()
        step = 2
        script = _EATS.format(
            run="now", steps=MOST_MB // step, step=step, pause_us=max(1, 10**6 * step // mb_per_s)
        )
        options = ("--shm-size=2g", "-v", f"{directory}/go:/go:ro", "--name", f"job-{number}")
        eater = engine.run(*options, command=["sh", "-c", script])
        bound_mb = available_mb() - BELOW_MB
        try:
            with agent(engine, directory, bound_mb) as running:
                running.wait_for_tick(1)
                return measure(engine, directory / "go/now", eater, bound_mb)
        finally:
            engine.clear()


def measure(
    engine: PrivateEngine, go: Path, eater: str, bound_mb: float
) -> tuple[float, float] | None:
    since = engine.now()
    over = threading.Event()
    passed: list[float] = []

    def watch() -> None:
        while not over.wait(0.005):
            if available_mb() < bound_mb and not passed:
                passed.append(time.time())

    reader = threading.Thread(target=watch, daemon=True)
    reader.start()
    go.touch()
    wait_until(lambda: not engine.exists(eater), "the eater is gone", timeout_s=120)
    over.set()
    reader.join()
    moments = dict(event_moments(engine, since, eater))
    if not passed or "kill" not in moments or moments["kill"] < passed[0]:
        return None
    return moments["kill"] - passed[0], moments["die"] - passed[0]


def event_moments(engine: PrivateEngine, since: str, container: str) -> Iterable[tuple[str, float]]:
    told = engine.docker(
        *("events", "--since", since, "--until", engine.now()),
        *("--filter", f"container={container}", "--format", "{{json .}}"),
    )
    for line in told.splitlines():
        event: dict[str, Any] = json.loads(line)
        yield event["Action"], event["timeNano"] / 10**9


def agent(engine: PrivateEngine, directory: Path, bound_mb: float) -> AgentProcess:
    settings = directory / "agent.toml"
    settings.write_text(
        f"""
interval_s = 600
source = "psutil"
docker_host = "{engine.host}"
paths = {{ run = "{directory}/run", database = "{directory}/data/metrics.db" }}
cron.enabled = false
grafana.enabled = false
bpf.enabled = false
[[policy.rule]]
name = "before-oom"
match = {{ name = "job-*" }}
when = {{ available_mb = {bound_mb} }}
action = "remove"
""",
        encoding="utf-8",
    )
    return AgentProcess(("--config", str(settings)))


def available_mb() -> int:
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    found = re.search(r"^MemAvailable:\s*(\d+)", text, re.MULTILINE)
    if found is None:
        raise SystemExit("no MemAvailable in /proc/meminfo")
    return int(found[1]) // 1024


def guest_table(found: list[dict[str, Any]]) -> str:
    """One line for each host, setting and pace."""
    heads = ("host", "setting", "pace", "runs", "eater removed", "killed by the kernel")
    outcome = ("innocent alive", "agent alive", "bound to request, s", "least left, MB")
    columns = (*heads, *outcome)
    lines = [f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns)]
    keys = sorted({(one["total_mb"], one["setting"], one["mb_per_s"]) for one in found})
    for total, setting, pace in keys:
        mine = [
            one
            for one in found
            if (one["total_mb"], one["setting"], one["mb_per_s"]) == (total, setting, pace)
        ]
        count = len(mine)
        killed = sorted(name for one in mine for name in one["oom_killed"])
        requests = [one["request_s"] for one in mine if one["request_s"] is not None]
        if setting == "no rule":
            requests = []
        told = (
            f"{min(requests):.2f}, {statistics.median(requests):.2f}, {max(requests):.2f}"
            if requests
            else "none"
        )
        lines.append(
            f"| {total} MB | {setting} | {pace} MB/s | {count} "
            f"| {sum(one['eater'] == 'removed' for one in mine)} | {', '.join(killed) or 'nobody'} "
            f"| {sum(one['innocent_alive'] for one in mine)} "
            f"| {sum(one['agent_alive'] for one in mine)} | {told} "
            f"| {min(one['lowest_mb'] for one in mine):.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
