"""The history's ticks decided on again: as it was decided then, or what other rules would do.

Pure: it is handed one moment after the other, and remembers what rules remember. What the history
does not have (labels, figures of rest) is unknown here, and a condition on it is not met;
`replay_limits` says so of each rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count

from agent.model.container import Container, ContainerKey, ContainerState, Tier
from agent.model.past import (
    PastContainer,
    PastDecision,
    PastPass,
    PastRow,
    PastState,
    PastTick,
)
from agent.model.removal import Action, Decision, Outcome, Reason, Removal
from agent.policy import decide, governance, original
from agent.policy.arming import Arming
from agent.policy.conditions import KB_PER_MB, HostMoment, pressure_key
from agent.policy.decide import Standing
from agent.policy.host_bounds import is_of_host
from agent.policy.replay_crowd import MS_NS, Crowd, Life
from agent.policy.replay_pass import host_since, totals_of
from agent.policy.replay_quiet import may_act, times_cpu_alone, waits
from agent.policy.replay_still import Still, horizon_ns, may_stand_still, of_host
from agent.policy.rules import RuleSet, duration_ns
from agent.policy.timers import Timers, holding

_MOST_CLAIMS = 10_000
_SPARE = 1000
"""So many states are kept of containers that are not there any more."""
_SLACK_NS = 10**9
"""A row's time is some milliseconds off its look's. A decision that is made here a tick too early
waits for its row; one that is made too late would be missing."""
_OUTCOMES = {
    Action.NOTIFY: Outcome.NOTIFIED,
    Action.STOP: Outcome.STOPPED,
    Action.RESTART: Outcome.RESTARTED,
    Action.PAUSE: Outcome.PAUSED,
    Action.REMOVE: Outcome.REMOVED,
}
_TIERS = {str(one): one for one in Tier}
_RUNNING = frozenset(str(one) for one in ContainerState if one.is_running)
_ACTIONS = frozenset(Action)
_ENDINGS = frozenset(Outcome)
_GONE = (Action.REMOVE, Action.STOP)
_CHANGED = (
    Outcome.REMOVED,
    Outcome.GONE,
    Outcome.STOPPED,
    Outcome.RESTARTED,
    Outcome.PAUSED,
)


_NOBODY: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Last:
    """The tick that was seen last."""

    crowd: Crowd
    rows: Sequence[PastRow] = ()
    now_ns: int = 0
    available_mb: float = 0.0
    psi_memory: float | None = None
    disputed: frozenset[str] | None = _NOBODY


class Redecider:
    """Rules over moments of the past. `arming` is told by the caller what was done."""

    def __init__(self, rules: RuleSet, longest_gap_ns: int, *, as_claimed: bool) -> None:
        """`as_claimed`: what claimed a container then claims it now, as under the rules of then."""
        self._as_claimed = as_claimed
        self._slack_ns = _SLACK_NS if as_claimed else 0
        self._longest_gap_ns = longest_gap_ns
        self._gone: set[ContainerKey] = set()
        self._under_way: frozenset[ContainerKey] = frozenset()
        self.lacks_states = False
        """Whether of some container no state was stored."""
        self.given_back_mb = 0.0
        """What those hold, in the tick that was seen last, that would have gone before it."""
        self._arming = Arming()
        self._timers = Timers(longest_gap_ns)
        self._lives: dict[ContainerKey, Life] = {}
        self._known: dict[ContainerKey, PastState] = {}
        self._claims: dict[tuple[str, ...], tuple[str, Tier]] = {}
        self._numbers = count(1)
        self._host_ended_ns = 0
        """When a container went for the host's sake: pressure of before does not count then."""
        self._still: Still | None = None
        """As the last tick was that nothing was due in, where another like it is none either."""
        self._held: dict[tuple[ContainerKey, str], bool | None] = {}
        """What the timers were told last."""
        self._still_ns = 0
        """Until when that was so without another look at it, 0 where there was none."""
        self.use(rules)

    def use(self, rules: RuleSet) -> None:
        """Goes by these from now on. What was measured and done so far stays known."""
        self._rules = rules
        self._claims.clear()
        self._times_cpu_alone = all(map(times_cpu_alone, rules.rules))
        self._crowd = Crowd((), {}, (), rules, self._claim)
        self._is_fresh = False
        self._last = _Last(self._crowd)
        self._still = None

    @property
    def knows_states(self) -> bool:
        """Whether states are stored, and with them whom a dispute was about."""
        return bool(self._known)

    def state(self, one: PastState) -> None:
        """What is known of a container from now on."""
        self._known[ContainerKey(one.engine, one.container_id)] = one
        self._is_fresh = False

    def tick(self, tick: PastTick) -> tuple[Decision, ...]:
        """What is due in this tick."""
        now_ns = (tick.timestamp_ms - tick.took_ms) * MS_NS
        rows, psi = tick.rows, tick.psi_memory
        if not (self._is_fresh and tick.engine_answered and self._crowd.is_of(rows)):
            self._seat(tick, now_ns)
        crowd = self._crowd
        self.given_back_mb = crowd.given_back_mb(rows)
        available_mb = tick.available_mb + self.given_back_mb
        before_ns = self._last.now_ns
        self._last = _Last(crowd, rows, now_ns, available_mb, psi, tick.disputed)
        for group in crowd.groups:
            group.look(rows)
        may = any(may_act(one.rule, one.together, available_mb, psi) for one in crowd.groups)
        timed = self._timers.any or any(waits(one.rule, one.together, psi) for one in crowd.groups)
        if not may and not timed and not self._arming.any:
            self._still_ns = 0
            return ()
        still = Still(
            crowd,
            crowd.what_holds(rows),
            tick.disputed,
            of_host(self._rules, available_mb, psi),
        )
        if (
            self._still is not None
            and still == self._still
            and now_ns < self._still.until_ns
            and now_ns - before_ns <= self._longest_gap_ns
        ):
            self._still_ns = now_ns
            return ()
        self._still = None
        if timed:
            self._note(crowd, rows, now_ns)
        if not self._arming.any and not (may and self._is_any_ripe(now_ns)):
            self._stays(still, ())
            return ()
        standings = self._standings()
        due = self._decided(standings, now_ns, re_arms=tick.engine_answered)
        if not due and tick.engine_answered:
            self._stays(still, standings)
        return due

    def _seat(self, tick: PastTick, now_ns: int) -> None:
        """Another crowd than before, or what is known of it is."""
        lives: dict[ContainerKey, Life] = {} if tick.engine_answered else dict(self._lives)
        for row in tick.containers:
            key = ContainerKey(row.engine, row.container_id)
            if key in self._gone:
                continue
            known = self._known.get(key)
            runs = row.runs if known is None else known.state in _RUNNING
            life = self._lives.get(key)
            if life is None:
                life = Life(now_ns, runs)
            elif runs and not life.ran:
                life.ran, life.first_ns = True, now_ns
            life.known = known
            self.lacks_states |= known is None
            lives[key] = life
        self._lives = lives
        if tick.engine_answered and len(self._known) > 2 * len(lives) + _SPARE:
            self._known = {key: self._known[key] for key in lives if key in self._known}
        self._crowd = Crowd(tick.rows, lives, self._gone, self._rules, self._claim)
        self._is_fresh = tick.engine_answered

    def _note(self, crowd: Crowd, rows: Sequence[PastRow], now_ns: int) -> None:
        """Tells the timers what holds."""
        if self._still_ns:
            self._timers.still(self._held, self._still_ns)
            self._still_ns = 0
        if self._times_cpu_alone:
            held = crowd.busy(rows)
        else:
            held = holding(crowd.totals(rows), self._rules, self._moment())
        self._held = held
        self._timers.seen(held, now_ns)

    def _is_any_ripe(self, now_ns: int) -> bool:
        """Whether a rule could act of which every condition has held for as long as it must."""
        last = self._last
        return any(
            may_act(one.rule, one.together, last.available_mb, last.psi_memory)
            and (
                one.rule.when is None
                or one.rule.when.cpu is None
                or self._timers.is_ripe(
                    f"cpu>{one.rule.when.cpu.above:g}",
                    duration_ns(one.rule.when.cpu.lasting),
                    now_ns + self._slack_ns,
                )
            )
            for one in last.crowd.groups
        )

    def _stays(self, still: Still, standings: Iterable[Standing]) -> None:
        """Notes until when ticks like this one decide nothing either."""
        if may_stand_still(standings):
            now_ns = self._last.now_ns + self._slack_ns
            until_ns = horizon_ns(still.crowd, self._since(), self._arming.firsts, now_ns)
            still.until_ns = until_ns - self._slack_ns
            self._still = still

    def why(self, key: ContainerKey) -> str:
        """What its rule made of one container in the tick that was seen last, "" without one."""
        for one in self._standings():
            if one.totals.container.key == key:
                done = ", and it has done so before" if one.acts else ""
                return f'rule "{one.rule.name}": {one.why}{done}'
        return ""

    def _moment(self) -> HostMoment:
        last = self._last
        return HostMoment(
            now_ns=last.now_ns,
            available_kb=round(last.available_mb * KB_PER_MB),
            pressure=last.psi_memory,
        )

    def _standings(self) -> list[Standing]:
        last = self._last
        now = replace(
            self._moment(),
            now_ns=last.now_ns + self._slack_ns,
            started_ns=self._started_ns(),
            since=self._since(),
        )
        spent = self._arming.spent(self._rules, now.now_ns)
        totals = last.crowd.totals(last.rows)
        disputed = last.disputed or _NOBODY
        unsure = frozenset(
            one.key
            for group in last.crowd.groups
            for one in group.seats
            if (one.key.id in disputed if one.life.known is None else one.life.known.disputed)
        )
        return decide.standings(totals, unsure, self._rules, now, spent, self._under_way)

    def _since(self) -> dict[tuple[ContainerKey, str], int]:
        """Pressure of before a container went for the host's sake is of another host."""
        return {
            (key, level): max(since_ns, self._host_ended_ns)
            if level.startswith(pressure_key(""))
            else since_ns
            for (key, level), since_ns in self._timers.since.items()
        }

    def _started_ns(self) -> dict[ContainerKey, int]:
        return {
            key: started_ns for key, life in self._lives.items() if (started_ns := life.started_ns)
        }

    def host_pass(self, one: PastPass) -> tuple[Decision, ...]:
        """What is due in a pass between two ticks, on what it rested on."""
        now_ns = one.timestamp_ms * MS_NS
        totals = totals_of(one, self._known)
        last = one.samples[-1] if one.samples else (0, None, None)
        started_ns = self._started_ns()
        started_ns |= {
            each.container.key: known.started_ms * MS_NS
            for each in totals
            if (known := self._known.get(each.container.key)) is not None and known.started_ms
        }
        now = HostMoment(
            now_ns=now_ns + self._slack_ns,
            available_kb=None if last[1] is None else round(last[1] * KB_PER_MB),
            pressure=last[2],
            started_ns=started_ns,
            since=self._timers.since,
            host_since=host_since(one, self._rules, self._host_ended_ns),
        )
        unsure = frozenset(
            each.container.key
            for each, row in zip(totals, one.containers, strict=True)
            if row.disputed
        )
        spent = self._arming.spent(self._rules, now_ns)
        standings = decide.standings(totals, unsure, self._rules, now, spent, self._under_way)
        due = self._decided(standings, now_ns, re_arms=False)
        # A pass for the host's sake is of its rules alone; one that holds the limit is of all.
        if all(self._is_of_host(row.rule) for row in one.containers if row.decision):
            due = tuple(each for each in due if self._is_of_host(each.rule))
        return due

    def _is_of_host(self, name: str) -> bool:
        return is_of_host(self._rules.named(name))

    def goes(self, under_way: Iterable[ContainerKey]) -> None:
        """Whom something is being done to from now on."""
        self._under_way = frozenset(under_way)

    def done(self, decisions: Iterable[Decision], at_ms: int) -> None:
        """What would have been done, under rules that nobody had then."""
        removals = [Removal(one, _OUTCOMES[one.action], 0) for one in decisions]
        self._still, self._is_fresh = None, False
        self._gone |= {one.decision.container for one in removals if one.decision.action in _GONE}
        self._arming.done(removals, at_ms * MS_NS)

    def done_before(self, decision: Decision, at_ms: int) -> None:
        """What had been done when the span began, as nothing was recorded in it."""
        self._still = None
        self._arming.done([Removal(decision, Outcome.NOTIFIED, 0)], at_ms * MS_NS)

    def was_done(self, row: PastDecision) -> None:
        """What was done then. What a later version may have written is left out."""
        self._still = None
        if row.action not in _ACTIONS or row.outcome not in _ENDINGS:
            return
        decision = Decision(
            id=row.decision,
            container_id=row.container_id,
            container_name=row.container_name,
            image="",
            created_ns=0,
            tier=Tier.NONE,
            rank=0,
            reason=Reason.RULE,
            held_mb=row.held_mb,
            cpu_percent=0.0,
            action=Action(row.action),
            rule=row.rule,
            engine=row.engine,
        )
        removal = Removal(decision, Outcome(row.outcome), 0, row.error)
        if removal.outcome in _CHANGED and self._is_of_host(row.rule):
            self._host_ended_ns = row.timestamp_ms * MS_NS
        self._arming.done([removal], row.timestamp_ms * MS_NS)

    def _decided(
        self, standings: list[Standing], now_ns: int, *, re_arms: bool
    ) -> tuple[Decision, ...]:
        if re_arms:
            self._arming.seen(standings)
        decisions = decide.decisions_of(standings, self._rules, lambda: f"{next(self._numbers)}")
        return self._arming.due(decisions, self._rules, now_ns + self._slack_ns)

    def _claim(self, row: PastContainer, state: ContainerState) -> tuple[str, Tier]:
        """The rule that claims it, "" for none."""
        if self._as_claimed:
            if not row.governed:
                return "", Tier.NONE
            tier = _TIERS.get(row.tier, Tier.NONE)
            if row.rule is not None:
                return row.rule, tier
            if tier is Tier.NONE:
                return "", tier
            # A row of before there were rules: it has the tier alone.
            if not state.is_running:
                return original.EXITED, tier
            return (original.LOW if tier is Tier.LOW else original.HIGH), tier
        known = (row.engine, row.container_id, row.name, row.image, str(state))
        found = self._claims.get(known)
        if found is None:
            if len(self._claims) > _MOST_CLAIMS:
                self._claims.clear()
            container = Container(
                id=row.container_id,
                name=row.name,
                image=row.image,
                created_ns=0,
                state=state,
                engine=row.engine,
            )
            seen_as = governance.claim(container, self._rules, "")
            found = self._claims[known] = (seen_as.rule, seen_as.tier)
        return found
