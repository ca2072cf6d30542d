"""The adversarial table with BPF on: what every row says of the second witness is `agree`.

The probes run before the table's containers are born, so what they know of these is from events.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.analysis.attribution import attribute
from agent.clock import SystemClock
from agent.model.attribution import Attribution, Verified
from agent.model.container import Container
from agent.model.process import ProcessKey
from agent.sources import modules as proc_modules
from agent.sources import psutil_source
from agent.sources.bpf import witness as bpf
from agent.sources.cgroup import reader as cgroups
from tests.attribution_support import Host, Reader
from tests.bpf_cases import witness
from tests.vm.conftest import Images, Modules
from tests.vm.test_attribution import TestAttribution as Table
from tests.vm.test_attribution import boxes, elsewhere, image

# Minutes of guest time: beyond what CI has for one guest.
pytestmark = pytest.mark.full

__all__ = ["boxes", "elsewhere", "image", "witness"]


@dataclass(slots=True)
class WitnessedHost(Host):
    """A host whose every look asks BPF right after the process source."""

    witness: bpf.Witness | None = None
    agreed: int = 0
    unverified: list[ProcessKey] = field(default_factory=list)

    def _once(
        self, reader: Reader, unknown: frozenset[int]
    ) -> tuple[Attribution, tuple[Container, ...]]:
        assert self.witness is not None
        for last in (False, True):
            snapshot = reader()
            second = self.witness.witness().cgroup_ids
            listing = self.engine.list()
            view = cgroups.read(self.layout, listing.containers, unknown)
            found = attribute(snapshot, view, listing.containers, second)
            if last or not found.counts.conflict:
                break
        assert found.counts.conflict == 0, [
            row for row in found.rows if row.verified is Verified.CONFLICT
        ]
        for row in found.rows:
            if row.verified is Verified.UNVERIFIED:
                # Only what ended between the two readings has no record any more.
                assert not Path(f"/proc/{row.process.pid}").exists(), row
                self.unverified.append(row.process.key)
        self.agreed += found.counts.agree
        return found, listing.containers


@pytest.fixture(scope="module")
def host(modules: Modules, images: Images, witness: bpf.Witness) -> Iterator[Host]:
    clock, layout = SystemClock(), cgroups.detect()
    made = WitnessedHost(
        {
            "modules": lambda: proc_modules.read(modules.sysinfo, modules.continfo, clock),
            "psutil": lambda: psutil_source.read(clock, layout),
        },
        layout=layout,
        witness=witness,
    )
    yield made
    view = witness.witness()
    print(
        f"\n{made.looks} looks, {made.rows} rows: {made.agreed} agreed, "
        f"{len(made.unverified)} ended meanwhile, {view.lost} lost, seam {view.seam}"
    )
    assert made.agreed > 0
    made.close()


class TestWitnessedAttribution(Table):
    """The whole table again, with its guest-only rows."""
