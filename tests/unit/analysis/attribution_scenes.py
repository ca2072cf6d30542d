"""Processes and containers of the attribution's tests."""

from __future__ import annotations

from agent.analysis.attribution import attribute
from agent.model.attribution import AttributedProcess, Attribution
from agent.model.process import ProcessKey
from tests.unit.analysis.attribution_scene import (
    Proc,
    Scene,
)

Second = dict[ProcessKey, int]


def answer(scene: Scene, second: Second | None = None, **reading: object) -> Attribution:
    snapshot = scene.snapshot(**reading)  # type: ignore[arg-type]
    return attribute(snapshot, scene.view(), tuple(scene.containers.values()), second)


def row_of(found: Attribution, proc: Proc) -> AttributedProcess:
    (row,) = (row for row in found.rows if row.process.key == proc.key)
    return row
