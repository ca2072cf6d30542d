"""Everything that is known at one moment: processes, containers, cgroups, and whose is what.

Reads the sources once, in an order that keeps what must be compared close together, and says once
what does not answer. It decides and changes nothing.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from agent.analysis import attribution, usage
from agent.clock import Clock
from agent.config import PolicySettings
from agent.errors import EngineUnavailableError
from agent.model.accounts import Reading
from agent.model.attribution import AttributedProcess, Attribution, AttributionCounts
from agent.model.bpf import BpfView
from agent.model.container import CgroupView, Container, ContainerTotals, Governance
from agent.model.process import Snapshot
from agent.policy import decide
from agent.sources.cgroup import reader as cgroups
from agent.sources.engine.kept_list import KeptList
from agent.sources.own_container import OwnContainer
from agent.sources.process_source import ProcessReader

log = logging.getLogger(__name__)

T = TypeVar("T")
ReadCgroups = Callable[
    [cgroups.CgroupLayout, Sequence[Container], frozenset[int]],
    CgroupView,
]

MAX_SHOWN = 64
"""Characters of a workload's words in a line of the log."""


@dataclass(slots=True)
class Stopwatch:
    """How long each stage of a tick took."""

    clock: Clock
    stages_ms: dict[str, float] = field(default_factory=dict)

    def time(self, stage: str, work: Callable[[], T]) -> T:
        """What `work` gives; its time is added to `stage`."""
        began_ns = self.clock.boot_ns()
        try:
            return work()
        finally:
            spent_ms = (self.clock.boot_ns() - began_ns) / 10**6
            self.stages_ms[stage] = self.stages_ms.get(stage, 0.0) + spent_ms


@dataclass(frozen=True, slots=True)
class Observation:
    """What is known at one moment, before anything is decided."""

    snapshot: Snapshot
    containers: tuple[Container, ...]
    engine_answers: bool
    view: CgroupView | None
    second: BpfView | None
    """What BPF holds; None while there are no probes."""
    attribution: Attribution
    totals: tuple[ContainerTotals, ...]


class Observer:
    """Reads the sources; what it keeps from call to call is only what was already said or asked."""

    def __init__(
        self,
        *,
        reader: ProcessReader,
        engine: KeptList,
        layout: cgroups.CgroupLayout,
        settings: PolicySettings,
        installation: str,
        stopwatch: Stopwatch,
        second_witness: Callable[[int], BpfView | None] = lambda _snapshot_ns: None,
        read_cgroups: ReadCgroups = cgroups.read,
        second_witness: Callable[[int], cpu_accounting.BpfView | None] = lambda _snapshot_ns: None,
        own: OwnContainer | None = None,
    ) -> None:
        self._reader = reader
        self._engine = engine
        self._layout = layout
        self._settings = settings
        self._installation = installation
        self._stopwatch = stopwatch
        self._second_witness = second_witness
        self._read_cgroups = read_cgroups
        self._own = own or OwnContainer()
        self._asked_for: set[int] = set()
        self._odd_labels: frozenset[str] = frozenset()
        self._left_out = 0
        self.engine_problem = ""
        """Why Docker does not answer, "" while it does."""
        self.interruptions = 0
        """How often Docker was seen to be away, or to have been."""

    @property
    def notices(self) -> tuple[str, ...]:
        """One sentence for each source of which something is left out."""
        found = []
        if self._left_out:
            found.append(
                f"docker: {self._left_out} entries of its list are odd and left out. "
                "The log names them; look at `sudo docker ps -a`."
            )
        if self._reader.odd:
            found.append(
                f"modules: {self._reader.odd} entries are odd: a figure counts as 0, or the entry "
                "is left out. Run `sudo /opt/so1/src/bash/load_modules.sh` to build them again."
            )
        return tuple(found)

    def interrupt(self) -> None:
        """Docker was away. Any thread."""
        self.interruptions += 1

    def governance(self, container: Container) -> Governance:
        """How the policy sees one container."""
        return decide.classify(container, self._installation, self._settings.scope, self._own.ids)

    def running_governed(self) -> int:
        """How many governed containers run now; 0 while Docker does not answer."""
        try:
            listing = self._engine.list()
        except EngineUnavailableError:
            return 0
        return sum(
            one.state.is_running and self.governance(one).governed for one in listing.containers
        )

    def observe(self, before: Reading, lost_before: int) -> Observation:
        """Everything, against the last tick's `before` and the events that BPF had lost by then.

        Docker is asked once more for cgroups that it did not explain, and both witnesses are where
        they disagree. Raises SourceError where no process source works.
        """
        observed = self._observe_once(before, lost_before)
        new = observed.attribution.unknown_cgroups - self._asked_for
        # A unit with private namespaces is unknown at every tick: each id is asked for once.
        self._asked_for = set(observed.attribution.unknown_cgroups)
        if (observed.engine_answers and new) or observed.attribution.counts.conflict:
            observed = self._observe_once(before, lost_before, anew=True)
        if observed.attribution.counts.conflict:
            log.warning(
                "attribution=conflict rows=%d containers=%s",
                observed.attribution.counts.conflict,
                ",".join(sorted(identity[:12] for identity in observed.attribution.doubtful)),
            )
        return observed

    def _observe_once(
        self, before: Reading, lost_before: int, *, anew: bool = False
    ) -> Observation:
        # Docker's list comes first: what is read after it lies close together, or the parts of a
        # container's CPU would not sum up to the whole. A container born behind it is asked for.
        containers = self._list_containers(anew=anew)
        snapshot = self._stopwatch.time("read", self._reader.read)
        second = self._stopwatch.time("bpf", lambda: self._second_witness(snapshot.snapshot_ns))
        if containers is None:
            nothing = Attribution(rows=(), counts=AttributionCounts())
            return Observation(snapshot, (), False, None, second, nothing, ())
        view = self._stopwatch.time(
            "cgroups",
            lambda: self._read_cgroups(self._layout, containers, frozenset(self._asked_for)),
        )
        answer = self._stopwatch.time(
            "attribute",
            lambda: attribution.attribute(
                snapshot,
                view,
                containers,
                second.cgroup_ids if second else None,
                second.lost - lost_before if second else 0,
            ),
        )
        self._own.learn(answer.rows)
        self._own.look_into(self._layout.root, view.containers.values())
        totals = self._totals(snapshot, containers, view, answer, before)
        return Observation(snapshot, containers, True, view, second, answer, totals)

    def _list_containers(self, *, anew: bool) -> tuple[Container, ...] | None:
        """Docker's list, None while it is away: said once, and nothing is removed for a while."""
        try:
            listing = self._stopwatch.time("docker", lambda: self._engine.list(anew=anew))
        except EngineUnavailableError as error:
            self.interrupt()
            if not self.engine_problem:
                log.warning("docker=away only system rows are stored: %s", error)
            self.engine_problem = str(error)
            return None
        if self.engine_problem:
            log.info("docker=back")
            self.engine_problem = ""
        self._left_out = listing.left_out
        self._warn_of_odd_labels(listing.containers)
        return listing.containers

    def _warn_of_odd_labels(self, containers: Sequence[Container]) -> None:
        odd = {one.id: (one, decide.odd_protection(one)) for one in containers}
        odd = {key: pair for key, pair in odd.items() if pair[1] is not None}
        for key in odd.keys() - self._odd_labels:
            container, value = odd[key]
            log.warning(
                "container=%s name=%s label=%s value=%r is neither yes nor no: taken for true",
                container.short_id,
                container.name[:MAX_SHOWN],
                decide.PROTECT_LABEL,
                (value or "")[:MAX_SHOWN],
            )
        self._odd_labels = frozenset(odd)

    def _totals(
        self,
        snapshot: Snapshot,
        containers: Sequence[Container],
        view: CgroupView,
        answer: Attribution,
        before: Reading,
    ) -> tuple[ContainerTotals, ...]:
        rows: dict[str, list[AttributedProcess]] = defaultdict(list)
        for row in answer.rows:
            rows[row.container_id].append(row)
        totals = []
        for container in containers:
            governance = self.governance(container)
            totals.append(
                usage.container_totals(
                    container,
                    governance.tier,
                    governance.governed,
                    rows.get(container.id, ()),
                    view.containers.get(container.id),
                    snapshot,
                    before,
                )
            )
        return tuple(totals)
