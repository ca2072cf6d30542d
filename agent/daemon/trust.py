"""Whether the policy may act: what the budgets say of each look, and what is wanted by hand."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

import msgspec

from agent.clock import Clock
from agent.config import Config
from agent.daemon.canary_runs import CanaryRuns
from agent.errors import StoreError
from agent.model.proof import ArmingWord, BudgetName, BudgetUse, ByHand, ProofState
from agent.model.tick import Tick
from agent.policy import proof
from agent.store import by_hand, proof_state
from agent.store import database as sqlite
from agent.store.failures import StorageError
from agent.store.store import Store

log = logging.getLogger(__name__)


class Trust:
    """One run's. Only ticks move its state; every look is held against the budgets."""

    def __init__(
        self,
        config: Config,
        store: Store,
        clock: Clock,
        config_file: Path | None = None,
        *,
        with_canary: bool = True,
    ) -> None:
        """`with_canary` False: none is run, whatever is set."""
        self._settings = config.proof
        self._directory = Path(config.paths.database).parent
        self._clock = clock
        try:
            self._state = store.ask(proof_state.read)
        except StoreError as error:
            log.warning("proof=begins-fresh %s", error)
            self._state = ProofState()
        self._hand: ByHand | None = None
        self._records = 0
        self._is_over = False
        self.uses: tuple[BudgetUse, ...] = ()
        """Of the last tick."""
        self.canary = (
            CanaryRuns(config, config_file, clock, self._state.canary)
            if config.proof.canary_hours and with_canary
            else None
        )
        self._word = ArmingWord(armed=True)
        self.look()
        store.kept.append(proof_state.ProofRows(lambda: (self._state, self._word)))

    @property
    def word(self) -> ArmingWord:
        """As of the last look."""
        return self._word

    @property
    def spent(self) -> tuple[BudgetName, ...]:
        """Budgets for which the policy is disarmed."""
        return self._state.spent if self._state.disarmed else ()

    @property
    def problem(self) -> str:
        return self.canary.problem if self.canary else ""

    def look(self) -> ArmingWord:
        """Reads what is wanted by hand, and how a canary ended. Never waits."""
        if self.canary is not None:
            self.canary.look()
            self._state = msgspec.structs.replace(self._state, canary=self.canary.result)
        self._hand = by_hand.read(self._directory)
        self._state = proof.armed_by_hand(self._state, self._hand)
        word = proof.word_of(self._state, self._hand)
        if word.armed != self._word.armed:
            log.warning("policy=%s %s", "armed" if word.armed else "disarmed", word.why)
        self._word = word
        return word

    def now(self) -> ArmingWord:
        """What is wanted by hand this moment and what the budgets said last. Changes nothing, so
        that any thread may ask."""
        hand = by_hand.read(self._directory)
        return proof.word_of(proof.armed_by_hand(self._state, hand), hand)

    def judge(self, tick: Tick) -> bool:
        """Whether the figures of this look are within the budgets; whether the policy is armed
        `word` says. A whole tick moves the state, a look between two does not."""
        uses = self._spending(tick)
        if tick.host is not None:
            self.uses = uses
            self._state = proof.after_tick(self._state, uses, self._clock.wall_ns() // 10**6)
        self.look()
        worst = proof.over(uses)
        if worst is not None and not self._is_over:
            log.warning("proof=over %s", proof.in_words(worst))
        self._is_over = worst is not None
        return not self._is_over

    def close(self) -> None:
        if self.canary is not None:
            self.canary.close()

    def _spending(self, tick: Tick) -> tuple[BudgetUse, ...]:
        view = tick.sample.bpf.value
        now = sum(one.starts + one.exits for one in view.totals.values()) if view else 0
        seen = max(0, now - self._records)
        if tick.host is not None:  # a whole tick
            self._records = now
        return proof.spending(
            tick.attribution.counts, seen, tick.totals, self._state.canary, self._settings
        )


def word_on_disk(database: Path) -> ArmingWord:
    """What the history and the file beside it say, with an agent running or not."""
    state = ProofState()
    with suppress(*StorageError):
        connection = sqlite.connect_to_read(database)
        try:
            state = proof_state.read(connection)
        finally:
            connection.close()
    hand = by_hand.read(database.parent)
    return proof.word_of(proof.armed_by_hand(state, hand), hand)
