"""Asks the BPF witness at each look, and reports once why there is none.

The probes are compiled in the background: they become ready between two looks, or never.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from agent.clock import Clock
from agent.errors import SourceError
from agent.model.bpf import BpfView, ProcessExit
from agent.model.oom import OomMark
from agent.model.tick import Part
from agent.util.terminal import Say

if TYPE_CHECKING:
    from agent.sources.bpf.witness import Witness

log = logging.getLogger(__name__)

NOT_ASKED_FOR = "off (--no-bpf)"


class BpfPolling:
    """The witness as the loop sees it; None where none was asked for."""

    def __init__(self, witness: Witness | None, clock: Clock, say: Say) -> None:
        self._witness = witness
        self._clock = clock
        self._say = say
        self._reported = False

    def read(self) -> Part[BpfView]:
        """What the probes hold, or why there is nothing to read."""
        now_ns = self._clock.boot_ns()
        if self._witness is None:
            return Part(None, now_ns, NOT_ASKED_FOR)
        state = self._witness.poll()
        if state.status == "off" and not self._reported:
            self._reported = True
            self._say(f"bpf: {state.reason} {state.hint}".rstrip() + " Rows are unverified.")
        if state.status == "ready" and state.reason and not self._reported:
            self._reported = True
            self._say(f"bpf: {state.reason} {state.hint}".rstrip())
        if state.status != "ready":
            missing = state.reason or state.status
            return Part(None, now_ns, missing, pending=state.status == "starting")
        try:
            return Part(self._witness.read(), now_ns)
        except SourceError as error:
            log.warning("bpf=unreadable rows are unverified: %s", error)
            return Part(None, now_ns, str(error))

    def ooms(self) -> tuple[OomMark, ...] | None:
        """Who was killed for lack of memory since the last call; None where no probes see it."""
        if self._witness is None or self._witness.poll().status != "ready":
            return None
        try:
            return self._witness.ooms()
        except SourceError as error:
            log.warning("bpf=unreadable OOM kills are reported late: %s", error)
            return ()

    def ended(self) -> tuple[ProcessExit, ...]:
        """Who ended since the last call, as far as the last reading knows."""
        if self._witness is None or self._witness.poll().status != "ready":
            return ()
        return self._witness.ended()

    def mark(self, snapshot_ns: int) -> None:
        """Processes that begin after this moment and end before the next mark are short-lived.

        Called by a tick that is stored, never by a look between two of them: what began and ended
        around such a look is in no stored snapshot.
        """
        if self._witness is not None and self._witness.poll().status == "ready":
            try:
                self._witness.mark(snapshot_ns)
            except SourceError as error:
                log.warning("bpf=unreadable short-lived processes are told apart late: %s", error)

    @property
    def word(self) -> str:
        """How it is doing, for `agent status`."""
        if self._witness is None:
            return NOT_ASKED_FOR
        state = self._witness.poll()
        return state.status if not state.reason else f"{state.status}: {state.reason}"

    @property
    def problem(self) -> str:
        """One sentence where it does not work, or not all of it, else ""."""
        if self._witness is None:
            return ""
        state = self._witness.poll()
        if state.status != "off" and not state.reason:
            return ""
        return f"bpf: {state.reason} {state.hint}".strip()
