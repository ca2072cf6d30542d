"""Both modules under processes and readers that do at random what processes and readers can do."""

from __future__ import annotations

import json
import os
import random
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from tests.vm import modules_support as host
from tests.vm.modules_support import scene

# Minutes of a guest's time.
pytestmark = pytest.mark.full

ROUNDS = 400
"""Of each reader: opens of a file, each read to its end in pieces of random sizes and places."""
READERS = 6
STEADY = 40
_MOST = 1 << 17

Names = dict[int, str]


@pytest.fixture
def seed() -> int:
    """Another at each run; a failure shows it."""
    number = int(os.environ.get("SO1_FUZZ_SEED", "0")) or secrets.randbelow(1 << 31) + 1
    print(f"again with the same: SO1_FUZZ_SEED={number}")
    return number


def a_text(path: Path, chance: random.Random) -> bytes:
    """One descriptor's whole text, put together from pieces read in and out of order."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = b""
        while True:
            size = 1 + chance.randrange(chance.choice((16, 4096, 5000, _MOST)))
            if chance.random() < 0.3 and text:
                # Elsewhere: what was read before is there again, whatever lies between.
                at = chance.randrange(len(text))
                piece = os.pread(descriptor, size, at)
                assert piece[: len(text) - at] == text[at : at + len(piece)]
                continue
            if chance.random() < 0.5:
                os.lseek(descriptor, len(text), os.SEEK_SET)
                piece = os.read(descriptor, size)
            else:
                piece = os.pread(descriptor, size, len(text))
            if not piece:
                return text
            assert len(piece) <= size
            text += piece
    finally:
        os.close(descriptor)


def check(text: bytes, path: Path, steady: Names) -> set[int]:
    """Both decoders agree; each process is there once, and each steady one with its name.

    Gives the pids in `text`.
    """
    found = json.loads(text)
    assert msgspec.json.decode(text) == found
    rows = found["processes"] if path == host.SYSINFO else found
    keys = [(row["pid"], row["start_ns"]) for row in rows]
    assert len(set(keys)) == len(keys)
    by_pid = {row["pid"]: row["name"] for row in rows}
    assert {pid: by_pid.get(pid) for pid in steady} == steady
    return set(by_pid)


@pytest.mark.usefixtures("modules")
def test_any_processes_and_any_reads_give_whole_texts_with_every_steady_process(seed: int) -> None:
    chance = random.Random(seed)
    names = [
        bytes(chance.randrange(1, 256) for _ in range(chance.randrange(1, 16)))
        for _ in range(STEADY)
    ]
    words = (seed, 4, *(name.hex() for name in names))
    with scene("fuzz", *words, prefix=("unshare", "--uts")) as fuzz:
        steady = {
            pid: name.decode(errors="replace") for pid, name in zip(fuzz.pids, names, strict=True)
        }

        def read(number: int) -> set[int]:
            own = random.Random(seed + number)
            seen: set[int] = set()
            for _ in range(ROUNDS):
                path = own.choice((host.SYSINFO, host.CONTINFO))
                seen |= check(a_text(path, own), path, steady)
            return seen

        with ThreadPoolExecutor(READERS) as pool:
            seen = set().union(*pool.map(read, range(READERS)))
    # The workers were at work: each made thousands of processes, of which some were met.
    assert len(seen) > STEADY + 500
