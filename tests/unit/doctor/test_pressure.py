"""The doctor's row on memory pressure: what is missing counts only where a rule asks for it."""

from __future__ import annotations

import pytest

from agent.doctor import State
from tests.unit.doctor.doctor_host import check, settings

ASKING = settings(
    '[[policy.rule]]\nname = "pressed"\nmatch.name = "x"\nwhen.pressure = { memory = 20 }'
)
ROW = "memory pressure"


def test_without_a_rule_nothing_is_wrong_and_what_is_missing_is_told() -> None:
    found = check(ROW, pressure__missing="it is turned off (psi=0)")
    assert (found.state, found.remedy) == (State.OK, "")
    assert "psi=0" in found.finding


@pytest.mark.parametrize(
    ("changed", "finding", "remedy"),
    [
        (
            {"pressure__missing": "it is turned off (psi=0)", "pressure__remedy": "Boot again."},
            "pressed never acts on it",
            "Boot again.",
        ),
        (
            {"pressure__no_trigger": "the right CAP_SYS_RESOURCE is missing"},
            "read each second instead",
            "CAP_SYS_RESOURCE",
        ),
    ],
)
def test_where_a_rule_asks_what_is_missing_is_a_finding(
    changed: dict[str, str], finding: str, remedy: str
) -> None:
    found = check(ROW, ASKING, **changed)
    assert found.state is State.DEGRADED
    assert finding in found.finding
    assert remedy in found.remedy


@pytest.mark.parametrize("mode", ["v1", "hybrid"])
def test_on_cgroup_v1_it_is_said_whose_pressure_it_is(mode: str) -> None:
    found = check(ROW, ASKING, cgroups__mode=mode)
    assert found.state is State.OK
    assert f"no container has its own on cgroup {mode}" in found.finding
    assert "no container" not in check(ROW, ASKING).finding


def test_who_is_not_root_is_told_that_no_trigger_was_tried() -> None:
    found = check(ROW, ASKING, pressure__no_trigger=None)
    assert (found.state, found.remedy) == (State.UNKNOWN, "sudo agent doctor")
