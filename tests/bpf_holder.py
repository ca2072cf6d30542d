"""A process that holds the witness's probes as the agent does, for tests that end it.

Says one line of JSON when the probes are ready, and ends at the first line of its input.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from agent.clock import SystemClock
from agent.sources.bpf import witness as bpf
from agent.sources.cgroup import reader

KEPT = Path("/var/lib/so1-test/bpf")


def resident_kb() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def main() -> int:
    bare = resident_kb()
    witness = bpf.Witness.start(reader.detect().hierarchy, SystemClock(), directory=KEPT)
    while witness.poll().status == "starting":
        time.sleep(0.05)
    if witness.state.status == "ready":
        witness.witness()
    said = {
        "status": witness.state.status,
        "reason": witness.state.reason,
        "bare_kb": bare,
        "rss_kb": resident_kb(),
    }
    print(json.dumps(said), flush=True)
    sys.stdin.readline()
    witness.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
