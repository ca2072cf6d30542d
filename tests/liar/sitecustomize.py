"""A BPF witness that names other cgroups than it recorded; found by `PYTHONPATH`, for tests only.

`SO1_TEST_BPF_DISAGREE` names a file of lines `PID CGROUP_ID`; `SO1_TEST_BPF_LOST` one with how many
records are to be lost beside. The agent itself has no such door.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from agent.sources.bpf import witness

if TYPE_CHECKING:
    from agent.model.bpf import BpfView

_honest = witness.Witness.read


def _read(self: witness.Witness) -> BpfView:
    view = _honest(self)
    lines = _text("SO1_TEST_BPF_DISAGREE").splitlines()
    named = {int(pid): int(cgroup_id) for pid, cgroup_id in (line.split() for line in lines)}
    lies = {key: named[key.pid] for key in view.cgroup_ids if key.pid in named}
    lost = view.lost + int(_text("SO1_TEST_BPF_LOST") or 0)
    return replace(view, cgroup_ids={**view.cgroup_ids, **lies}, lost=lost)


def _text(variable: str) -> str:
    path = os.environ.get(variable)
    return Path(path).read_text(encoding="ascii") if path else ""


witness.Witness.read = _read  # type: ignore[method-assign]
