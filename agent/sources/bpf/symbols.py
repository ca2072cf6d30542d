"""Which of a few kernel functions an address lies in, from `/proc/kallsyms`.

Read once, when it is first needed, and kept for the few functions alone: the whole is 10 MB.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

KALLSYMS = Path("/proc/kallsyms")
_CHUNK = 1 << 20


class Symbols:
    """The address ranges of the functions that are asked for."""

    def __init__(self, wanted: Iterable[str], path: Path = KALLSYMS) -> None:
        self._wanted = frozenset(name.encode() for name in wanted)
        self._path = path
        self._ranges: list[tuple[int, int, str]] | None = None

    @property
    def known(self) -> bool:
        """Whether any was found: not where the kernel hides its addresses (`kptr_restrict`)."""
        return bool(self._read())

    def names(self, addresses: Sequence[int]) -> list[str]:
        """The wanted functions that the addresses lie in, in the addresses' order."""
        ranges = self._read()
        return [
            name
            for address in addresses
            for first, end, name in ranges
            # A call's return address may be the first of the next function: none is after it.
            if first < address <= end
        ]

    def _read(self) -> list[tuple[int, int, str]]:
        if self._ranges is None:
            try:
                with self._path.open("rb", buffering=_CHUNK) as lines:
                    self._ranges = _ranges(lines, self._wanted)
            except OSError:
                self._ranges = []
        return self._ranges


def _ranges(lines: Iterable[bytes], wanted: frozenset[bytes]) -> list[tuple[int, int, str]]:
    """Of each wanted function where it begins and the next symbol does; parts that the compiler
    made of it (`name.part.0`, `name.cold`) are the function too."""
    found: list[tuple[int, int, str]] = []
    open_at: tuple[int, str] | None = None
    for line in lines:
        if open_at is not None:
            address = int(line[: line.index(b" ")], 16)
            if address == open_at[0]:  # an alias
                continue
            if address > open_at[0]:
                found.append((open_at[0], address, open_at[1]))
            open_at = None
        words = line.split(None, 3)
        if len(words) == 3 and words[1] in b"tTwW":
            base = words[2].partition(b".")[0]
            if base in wanted and (first := int(words[0], 16)):
                open_at = (first, base.decode())
    return found
