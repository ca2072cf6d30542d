"""Getting the BPF programs in the background: kept instructions if there are any, else a compile.

Never blocks whoever waits: a thread reads what is kept, or starts the helper that compiles, and
loads and proves the result. Whoever owns a Probes object owns the programs: closed, or dead, they
are gone.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO

import msgspec

from agent.errors import AgentError, SourceError
from agent.sources.bpf import kept
from agent.sources.bpf.loader import LoadError, Probes, load
from agent.sources.bpf.programs import Compiled, Order
from agent.sources.bpf.support import PACKAGE
from agent.util.subprocess import CommandError, Program, begin, kill_session

__all__ = ["HandoverError", "Probes", "Startup"]

log = logging.getLogger(__name__)

_START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from agent.sources.bpf.compiler import main; sys.exit(main(sys.argv[1:]))"
)
_MOST_BYTES = 4 << 20


class HandoverError(SourceError):
    """There will be no probes; message and hint are for a person."""


class Startup:
    """The way of one program set into the kernel, from its first file to its first proof."""

    def __init__(self, order: Order, directory: Path = kept.DIRECTORY) -> None:
        """Starts it and returns at once. `directory` is where instructions are kept."""
        self._order = order
        self._directory = directory
        self._ready_read, self._ready_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._lock = threading.Lock()
        self._process: Program | None = None
        self._result: Probes | Exception | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="bpf-start", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        """Readable when poll() has something to pick up."""
        return self._ready_read

    def poll(self) -> Probes | None:
        """The probes once they are there. Raises HandoverError when they never will be."""
        with self._lock:
            result = self._result
            if isinstance(result, Probes):
                self._result = None
                return result
        if isinstance(result, AgentError):
            raise HandoverError(result.message, result.hint) from result
        if result is not None:
            raise result
        return None

    def _work(self) -> None:
        result: Probes | Exception
        try:
            result = self._probes()
        except Exception as error:  # noqa: BLE001 - poll() raises it, in the thread that asks
            result = error
        with self._lock:
            if not self._closed:
                self._result = result
                os.write(self._ready_write, b"\0")
            elif isinstance(result, Probes):
                result.close()

    def _probes(self) -> Probes:
        order = self._order
        if order.macros:
            return load(self._compile(), order, kept=False)
        made_for = kept.made_for(order)
        compiled = None
        try:
            compiled = kept.read(self._directory, order, made_for)
            if compiled is not None:
                return load(compiled, order, kept=True)
        except kept.OutdatedError as error:
            log.info("bpf=outdated compiling it fresh: %s", error)
        except (kept.KeptError, LoadError) as error:
            log.warning("bpf=refused compiling it fresh: %s", error)
        compiled = self._compile()
        probes = load(compiled, order, kept=False)
        try:
            kept.write(self._directory, order, made_for, compiled)
        except kept.KeptError as error:
            log.warning("bpf=unkept the next start compiles again: %s", error)
        return probes

    def _compile(self) -> Compiled:
        """What the helper wrote. Raises HandoverError."""
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as said:
            argv = [sys.executable, "-I", "-c", _START, str(PACKAGE.parent)]
            argv += [str(output.fileno()), msgspec.json.encode(self._order).decode()]
            with self._lock:
                if self._closed:
                    raise HandoverError("The BPF helper was not needed any more.")
                try:
                    self._process = begin(
                        argv, stdout=said, stderr=said, pass_fds=(output.fileno(),)
                    )
                except CommandError as error:
                    raise HandoverError(
                        f"The BPF helper cannot be started: {error.message}"
                    ) from error
            status = self._process.wait()
            if status != 0:
                raise HandoverError(
                    f"The BPF helper ended with status {status}.", _last_words(said)
                )
            output.seek(0)
            try:
                compiled = msgspec.msgpack.decode(output.read(_MOST_BYTES), type=Compiled)
            except msgspec.MsgspecError as error:
                raise HandoverError(f"The BPF helper wrote something else: {error}.") from error
            if compiled.failure:
                if words := _last_words(said):
                    log.warning("bpf=off said=%r", words)
                raise HandoverError(compiled.failure, compiled.hint)
            return compiled

    def close(self) -> None:
        """Ends what is still under way, and closes probes that nobody picked up."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._process is not None and self._process.poll() is None:
                with suppress(ProcessLookupError):
                    kill_session(self._process)
        self._thread.join()
        if isinstance(self._result, Probes):
            self._result.close()
            self._result = None
        os.close(self._ready_read)
        os.close(self._ready_write)


def _last_words(said: IO[bytes]) -> str:
    """The line of what it printed that says most."""
    said.seek(0)
    text = said.read(1 << 20).decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or [""])[0 if errors else -1][:300]
