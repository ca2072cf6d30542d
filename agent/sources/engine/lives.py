"""What the engine's events report of containers' lives while the agent follows them.

The event thread writes, the loop reads. It is what remains of a life that began and ended between
two ticks: how often the engine reported that it ran out of memory, and the id of its cgroup, by
which BPF's records of it are the container's where BPF did not tell its name. Both are a lower
bound: a life of a few milliseconds may be over before its directory is looked at.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_MOST = 4096
"""Entries kept of each kind; of more the oldest are forgotten."""
_MOST_PLACES = 16


class EngineLives:
    """By full container id."""

    def __init__(self, root: Path) -> None:
        """`root` is the mount of the hierarchy whose cgroup ids identify containers."""
        self._root = os.fspath(root)
        self._lock = threading.Lock()
        self._ooms: dict[str, int] = {}
        self._cgroups: dict[int, str] = {}
        self._places: dict[tuple[str, str], None] = {}
        """Paths of containers' cgroups, before and after the id; the newest last."""

    def learn(self, paths: Mapping[str, str]) -> None:
        """The paths of the cgroups that containers have now: new ones have the same parents."""
        with self._lock:
            for container_id, path in paths.items():
                before, found, after = path.partition(container_id)
                if found:
                    self._places.pop((before, after), None)
                    self._places[before, after] = None
            _forget(self._places, _MOST_PLACES)

    def note(self, kind: str, container_id: str) -> None:
        """One event of the engine. Called by the event thread."""
        if kind == "start":
            self._look(container_id)
        with self._lock:
            if kind == "oom":
                self._ooms[container_id] = self._ooms.pop(container_id, 0) + 1
                _forget(self._ooms, _MOST)
            elif kind == "destroy":
                self._ooms.pop(container_id, None)

    def ooms(self) -> Mapping[str, int]:
        """How often each ran out of memory, since the first event."""
        with self._lock:
            return dict(self._ooms)

    def cgroup_ids(self) -> Mapping[int, str]:
        """The container of each cgroup that was there when a start was reported."""
        with self._lock:
            return dict(self._cgroups)

    def _look(self, container_id: str) -> None:
        with self._lock:
            places = list(reversed(self._places))
        for before, after in places:
            try:
                inode = os.stat(f"{self._root}{before}{container_id}{after}").st_ino
            except OSError:
                continue
            with self._lock:
                self._cgroups[inode] = container_id
                _forget(self._cgroups, _MOST)


def _forget(entries: dict[Any, Any], most: int) -> None:
    while len(entries) > most:
        del entries[next(iter(entries))]
