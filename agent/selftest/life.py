"""The known life that `agent bpf check --canary` starts: it does what it is asked and no more.

Runs inside the container, by the host's own interpreter, with nothing but the standard library. It
reads requests from one FIFO and answers on another, a line of JSON each.
"""

import json
import mmap
import os
import signal
import sys
import time

_PAGE = mmap.PAGESIZE
_LIFE_S = 600
"""It ends by itself: whoever started it may have been killed."""


def _sleeper() -> int:
    """A child that does nothing until it is killed; its pid as the container has it."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    return pid


def _children(count: int) -> dict[str, int]:
    """`count` children, one after the other, that end at once."""
    began = time.monotonic_ns()
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    return {"count": count, "elapsed_ns": time.monotonic_ns() - began}


def _burn(cpu_ns: int) -> dict[str, int]:
    """A child that computes for `cpu_ns` of CPU time and ends.

    What it took is the kernel's word to whoever waits for it: its own birth and end are in that,
    which on a slow host are more than the two of a hundred that are allowed.
    """
    pid = os.fork()
    if pid == 0:
        while time.process_time_ns() < cpu_ns:
            sum(range(1000))
        os._exit(0)
    used = os.wait4(pid, 0)[2]
    return {"cpu_ns": int((used.ru_utime + used.ru_stime) * 1e9)}


def _hold(anonymous: int, tmpfs: int, cached: int, kept: list[mmap.mmap]) -> dict[str, int]:
    """Bytes of anonymous memory, of a tmpfs file and of a cached file on disk."""
    area = mmap.mmap(-1, anonymous)
    for offset in range(0, anonymous, _PAGE):
        area[offset] = 1
    kept.append(area)
    for path, size in (("/canary-tmpfs/held", tmpfs), ("/canary-cached", cached)):
        with open(path, "wb") as file:
            for _ in range(size // _PAGE):
                file.write(b"\1" * _PAGE)
    return {"anonymous": anonymous, "tmpfs": tmpfs, "cached": cached}


def main(directory: str) -> int:
    """Serves requests from `directory` until it is told to end."""
    signal.alarm(_LIFE_S)
    kept: list[mmap.mmap] = []
    with open(f"{directory}/ask") as asked, open(f"{directory}/done", "w") as done:
        for line in asked:
            request = json.loads(line)
            name = request.pop("do")
            if name == "sleeper":
                answer = {"pid": _sleeper()}
            elif name == "children":
                answer = _children(**request)
            elif name == "burn":
                answer = _burn(**request)
            elif name == "hold":
                answer = _hold(**request, kept=kept)
            else:
                return 0
            done.write(json.dumps(answer) + "\n")
            done.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
