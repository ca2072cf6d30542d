"""Starting the helper that compiles the BPF programs, and taking over what it hands over.

Never blocks: the helper is a process in a session of its own, and its answer is picked up when it
is there. Whoever owns a Probes object owns the programs: closed, or dead, they are gone.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO

import msgspec

from agent.errors import SourceError
from agent.sources.bpf.programs import SETS, Handover, Order
from agent.sources.bpf.support import PACKAGE
from agent.sources.bpf.syscall import Map
from agent.util.subprocess import environment, kill_session

log = logging.getLogger(__name__)

_START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from agent.sources.bpf.compiler import main; sys.exit(main(sys.argv[1:]))"
)
_MESSAGE_BYTES = 1 << 16
_MOST_DESCRIPTORS = 64


class HandoverError(SourceError):
    """The helper ended without descriptors; message and hint are for a person."""


@dataclass(frozen=True, slots=True)
class Probes:
    """The descriptors that keep the programs attached, and the maps behind them."""

    handover: Handover
    maps: Mapping[str, Map]
    programs: Mapping[str, int]
    descriptors: tuple[int, ...]

    def close(self) -> None:
        """The kernel detaches and frees all of it once nobody else holds it."""
        for fd in self.descriptors:
            os.close(fd)


class Helper:
    """One running helper."""

    def __init__(self, order: Order) -> None:
        """Starts it. Raises HandoverError where no process can be started."""
        self._order = order
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        ours.setblocking(False)
        argv = [sys.executable, "-I", "-c", _START, str(PACKAGE.parent)]
        argv += [str(theirs.fileno()), msgspec.json.encode(order).decode()]
        try:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=self._said,
                env=environment(),
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                cwd="/",
            )
        except OSError as error:
            ours.close()
            self._said.close()
            raise HandoverError(f"The BPF helper cannot be started: {error.strerror}.") from error
        finally:
            theirs.close()
        self._socket = ours

    @property
    def pid(self) -> int:
        return self._process.pid

    def fileno(self) -> int:
        """Readable when poll() has something to pick up."""
        return self._socket.fileno()

    def poll(self) -> Probes | None:
        """The probes once they are there. Raises HandoverError when they never will be."""
        try:
            data, descriptors, _, _ = socket.recv_fds(
                self._socket, _MESSAGE_BYTES, _MOST_DESCRIPTORS
            )
        except BlockingIOError:
            return None
        except OSError as error:
            raise HandoverError(f"The BPF helper cannot be heard: {error.strerror}.") from error
        if not data:
            self._process.wait()
            raise HandoverError(
                f"The BPF helper ended with status {self._process.returncode}.", self._last_words()
            )
        for fd in descriptors:
            os.set_inheritable(fd, False)
        handover = msgspec.json.decode(data, type=Handover)
        if handover.failure:
            words = self._last_words()
            if words:
                log.warning("bpf=off said=%r", words)
            raise HandoverError(handover.failure, handover.hint)
        names = (*handover.maps, *handover.programs, *handover.links)
        if len(names) != len(descriptors):
            for fd in descriptors:
                os.close(fd)
            raise HandoverError(
                "The BPF helper's descriptors did not arrive.", "Raise the limit on open files."
            )
        sizes = SETS[self._order.programs].maps
        fds = iter(descriptors)
        maps = {name: Map(next(fds), *sizes[name]) for name in handover.maps}
        programs = {name: next(fds) for name in handover.programs}
        return Probes(handover, maps, programs, tuple(descriptors))

    def _last_words(self) -> str:
        """The line of what it printed that says most."""
        self._said.seek(0)
        text = self._said.read(1 << 20).decode("utf-8", "replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower()]
        return (errors or lines or [""])[0 if errors else -1][:300]

    def close(self) -> None:
        """Ends it if it still runs, and reaps it."""
        self._socket.close()
        kill_session(self._process)
        self._said.close()
