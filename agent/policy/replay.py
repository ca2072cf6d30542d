"""The history's ticks decided on again: as it was decided then, or what other rules would do.

Pure: it is handed one moment after the other, and remembers what rules remember. What the history
does not have (labels, health, when a container was started) is unknown here, and a condition on it
is not met; `limits` says so of each rule.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count

from agent.model.container import (
    Container,
    ContainerKey,
    ContainerState,
    ContainerTotals,
    HeldBasis,
    Tier,
)
from agent.model.past import PastContainer, PastDecision, PastPass, PastTick
from agent.model.removal import BUILT_IN_NAMES, Action, Decision, Outcome, Reason, Removal
from agent.policy import decide, governance, original
from agent.policy.arming import Arming
from agent.policy.conditions import KB_PER_MB, HostMoment, pressure_key
from agent.policy.decide import Standing
from agent.policy.host_bounds import is_of_host
from agent.policy.host_watch import KNOWN_NS
from agent.policy.replay_quiet import Together, any_may_act, any_waits
from agent.policy.rules import RuleSet
from agent.policy.timers import Timers, holding

MS_NS = 10**6
_MOST_CLAIMS = 10_000
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
_STATES = {str(one): one for one in ContainerState}
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


@dataclass(slots=True)
class _Life:
    """One container as long as the ticks have it."""

    first_ns: int
    ran: bool
    container: Container | None = None
    """As it was in the tick before: it seldom changes."""


_Claimed = tuple[ContainerKey, PastContainer, str, Tier, _Life]
_NOBODY: frozenset[str] = frozenset()


@dataclass
class _Last:
    """The tick that was seen last."""

    rows: list[_Claimed]
    now: HostMoment
    disputed: frozenset[str]

    @cached_property
    def totals(self) -> list[ContainerTotals]:
        return _all_totals(self.rows)


class Redecider:
    """Rules over moments of the past. `arming` is told by the caller what was done."""

    def __init__(self, rules: RuleSet, longest_gap_ns: int, *, as_claimed: bool) -> None:
        """`as_claimed`: what claimed a container then claims it now, as under the rules of then."""
        self._rules = rules
        self._as_claimed = as_claimed
        self._slack_ns = _SLACK_NS if as_claimed else 0
        self._gone: set[ContainerKey] = set()
        self.given_back_mb = 0.0
        """What those hold, in the tick that was seen last, that would have gone before it."""
        self._arming = Arming()
        self._timers = Timers(longest_gap_ns)
        self._lives: dict[ContainerKey, _Life] = {}
        self._claims: dict[tuple[str, ...], tuple[str, Tier]] = {}
        self._numbers = count(1)
        self._host_ended_ns = 0
        """When a container went for the host's sake: pressure of before does not count then."""
        self._last = _Last([], HostMoment(), _NOBODY)

    def tick(self, tick: PastTick) -> tuple[Decision, ...]:
        """What is due in this tick."""
        now_ns = tick.timestamp_ms * MS_NS
        rows: list[_Claimed] = []
        given_mb = 0.0
        groups: dict[tuple[str, str], Together] = {}
        lives: dict[ContainerKey, _Life] = {} if tick.engine_answered else dict(self._lives)
        before, gone = self._lives, self._gone
        for row in tick.containers:
            key = ContainerKey(row.engine, row.container_id)
            if key in gone:
                given_mb += row.held_mb
                continue
            runs = row.processes > 0 or row.held_mb > 0
            life = before.get(key)
            if life is None:
                life = _Life(now_ns, runs)
            elif runs and not life.ran:
                life.ran, life.first_ns = True, now_ns
            lives[key] = life
            rule, tier = self._claim(row)
            if rule:
                rows.append((key, row, rule, tier, life))
                group = groups.get((rule, row.engine))
                if group is None:
                    group = groups[(rule, row.engine)] = Together()
                group.add(runs, row.held_mb, row.cpu_percent)
        self._lives, self.given_back_mb = lives, given_mb
        available_mb = tick.available_mb + given_mb
        now = HostMoment(
            now_ns=now_ns, available_kb=round(available_mb * KB_PER_MB), pressure=tick.psi_memory
        )
        self._last = _Last(rows, now, tick.disputed or _NOBODY)
        named = [(name, group) for (name, _), group in groups.items()]
        if self._timers.kept or any_waits(named, self._rules, tick.psi_memory):
            self._timers.seen(holding(self._last.totals, self._rules, now), now_ns)
        if not self._arming.kept and not any_may_act(
            named, self._rules, available_mb, tick.psi_memory
        ):
            return ()
        return self._decided(self._standings(), now_ns, re_arms=tick.engine_answered)

    def why(self, key: ContainerKey) -> str:
        """What its rule made of one container in the tick that was seen last, "" without one."""
        for one in self._standings():
            if one.totals.container.key == key:
                done = ", and it has done so before" if one.acts else ""
                return f'rule "{one.rule.name}": {one.why}{done}'
        return ""

    def _standings(self) -> list[Standing]:
        last = self._last
        now = replace(
            last.now,
            now_ns=last.now.now_ns + self._slack_ns,
            started_ns=self._started_ns(),
            since={
                (key, level): max(since_ns, self._host_ended_ns)
                if level.startswith(pressure_key(""))
                else since_ns
                for (key, level), since_ns in self._timers.since.items()
            },
        )
        unsure = frozenset(key for key, *_ in last.rows if key.id in last.disputed)
        spent = self._arming.spent(self._rules, now.now_ns)
        return decide.standings(last.totals, unsure, self._rules, now, spent)

    def _started_ns(self) -> dict[ContainerKey, int]:
        return {key: life.first_ns for key, life in self._lives.items() if life.ran}

    def host_pass(self, one: PastPass) -> tuple[Decision, ...]:
        """What is due in a pass between two ticks, on what it rested on."""
        now_ns = one.timestamp_ms * MS_NS
        totals = [
            ContainerTotals(
                container=Container(
                    id=row.container_id,
                    name=row.name,
                    image="",
                    created_ns=0,
                    state=_STATES.get(row.state, ContainerState.UNKNOWN),
                ),
                tier=Tier.NONE,
                governed=True,
                processes=1,
                held_kb=round(row.held_mb * KB_PER_MB),
                held_basis=HeldBasis.CGROUP2,
                rss_kb=0,
                cache_kb=None,
                cpu_percent=float("nan") if row.cpu_percent is None else row.cpu_percent,
                rule=row.rule,
            )
            for row in one.containers
        ]
        last = one.samples[-1] if one.samples else (0, None, None)
        now = HostMoment(
            now_ns=now_ns + self._slack_ns,
            available_kb=None if last[1] is None else round(last[1] * KB_PER_MB),
            pressure=last[2],
            started_ns=self._started_ns(),
            since=self._timers.since,
            host_since=_host_since(one, self._rules, self._host_ended_ns),
        )
        unsure = frozenset(
            each.container.key
            for each, row in zip(totals, one.containers, strict=True)
            if row.disputed
        )
        spent = self._arming.spent(self._rules, now_ns)
        standings = decide.standings(totals, unsure, self._rules, now, spent)
        due = self._decided(standings, now_ns, re_arms=False)
        # A pass for the host's sake is of its rules alone; one that holds the limit is of all.
        if all(self._is_of_host(row.rule) for row in one.containers if row.decision):
            due = tuple(each for each in due if self._is_of_host(each.rule))
        return due

    def _is_of_host(self, name: str) -> bool:
        return is_of_host(self._rules.named(name))

    def done(self, decisions: Iterable[Decision], at_ms: int) -> None:
        """What would have been done, under rules that nobody had then."""
        removals = [Removal(one, _OUTCOMES[one.action], 0) for one in decisions]
        self._gone |= {one.decision.container for one in removals if one.decision.action in _GONE}
        self._arming.done(removals, at_ms * MS_NS)

    def done_before(self, decision: Decision, at_ms: int) -> None:
        """What had been done when the span began, as nothing was recorded in it."""
        self._arming.done([Removal(decision, Outcome.NOTIFIED, 0)], at_ms * MS_NS)

    def was_done(self, row: PastDecision) -> None:
        """What was done then. What a later version may have written is left out."""
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

    def _claim(self, row: PastContainer) -> tuple[str, Tier]:
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
            if not row.runs:
                return original.EXITED, tier
            return (original.LOW if tier is Tier.LOW else original.HIGH), tier
        state = _state(row, ran=True)
        known = (row.engine, row.container_id, row.name, row.image, str(state))
        found = self._claims.get(known)
        if found is None:
            if len(self._claims) > _MOST_CLAIMS:
                self._claims.clear()
            container = _container(row, state, 0)
            seen_as = governance.claim(container, self._rules, "")
            found = self._claims[known] = (seen_as.rule, seen_as.tier)
        return found


def limits(rules: RuleSet, *, as_claimed: bool) -> tuple[str, ...]:
    """What of each rule the history cannot tell, in sentences."""
    found = []
    for rule in rules.rules:
        if rule.name in BUILT_IN_NAMES:
            continue
        when, match = rule.when, rule.match
        keys = []
        if when and when.idle is not None:
            keys.append("idle (no I/O and no sent bytes are stored)")
        if when and when.unhealthy is not None:
            keys.append("unhealthy (no health is stored)")
        if not as_claimed and match.label:
            keys.append("label (no labels are stored)")
        if not as_claimed and match.project:
            keys.append("project (no labels are stored)")
        if keys:
            found.append(f'rule "{rule.name}": unknown, so never met: {", ".join(keys)}.')
        if (when and when.age is not None) or rule.order in ("oldest", "youngest"):
            found.append(
                f'rule "{rule.name}": a container counts as started when a tick first saw it run; '
                "what it ran before, and a restart between two ticks, is not stored."
            )
        if when and when.pressure is not None and not as_claimed:
            found.append(
                f'rule "{rule.name}": pressure is as it was, whatever would have gone before.'
            )
    if not as_claimed:
        found.append(
            "A label that protects is not stored: what no rule claimed then is marked as unsure."
        )
    return tuple(found)


def _host_since(one: PastPass, rules: RuleSet, not_before_ns: int) -> dict[str, int]:
    """By level of pressure: since when the samples before the pass have it without a break."""
    found = {}
    for rule in rules.rules:
        if rule.when is None or rule.when.pressure is None:
            continue
        bound = rule.when.pressure.memory
        since_ms = None
        for before_ms, _, psi in reversed(one.samples):
            if psi is None or psi <= bound:
                # As the watch has it: the sample after it tells of the time since this one.
                if since_ms is not None and before_ms - since_ms <= KNOWN_NS // MS_NS:
                    since_ms = before_ms
                break
            since_ms = before_ms
        if since_ms is not None:
            since_ns = (one.timestamp_ms - since_ms) * MS_NS
            found[pressure_key(f"{bound:g}")] = max(since_ns, not_before_ns)
    return found


def _state(row: PastContainer, *, ran: bool) -> ContainerState:
    """As far as its processes tell: one that never had any may not have begun."""
    if row.runs:
        return ContainerState.RUNNING
    ended = ran or row.rule == original.EXITED
    return ContainerState.EXITED if ended else ContainerState.UNKNOWN


def _container(row: PastContainer, state: ContainerState, first_ns: int) -> Container:
    """Whoever was seen later is the younger one."""
    return Container(
        id=row.container_id,
        name=row.name,
        image=row.image,
        created_ns=first_ns,
        state=state,
        engine=row.engine,
    )


def _of_life(row: PastContainer, life: _Life) -> Container:
    state = _state(row, ran=life.ran)
    known = life.container
    if (
        known is None
        or known.state is not state
        or known.name != row.name
        or known.image != row.image
        or known.created_ns != life.first_ns
    ):
        known = life.container = _container(row, state, life.first_ns)
    return known


def _all_totals(rows: Iterable[_Claimed]) -> list[ContainerTotals]:
    return [
        ContainerTotals(
            container=_of_life(row, life),
            tier=tier,
            governed=True,
            processes=row.processes,
            held_kb=round(row.held_mb * KB_PER_MB),
            held_basis=HeldBasis.CGROUP2,
            rss_kb=0,
            cache_kb=None,
            cpu_percent=row.cpu_percent,
            rule=rule,
        )
        for _, row, rule, tier, life in rows
    ]
