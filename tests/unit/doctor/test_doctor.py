"""The judgement of `agent doctor`: which facts keep the main job from running, and what fixes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.commands import doctor as command
from agent.cli.commands.doctor import document, plain, verdict
from agent.config import Config
from agent.doctor import Check, State, can_run, judge
from agent.doctor.facts import LeftoverFacts, ModuleFacts, SigningFacts
from tests.unit.doctor.doctor_cases import FINE, TABLE
from tests.unit.doctor.doctor_host import (
    GOOD,
    LOCKED,
    NO_MODULES,
    ONLY_MODULES,
    UNBUILT,
    UNLOADED,
    check,
    facts,
    settings,
)


def test_a_host_that_has_everything_is_ok_throughout() -> None:
    checks = judge(GOOD, Config())
    assert {one.state for one in checks} == {State.OK}
    assert all(not one.remedy for one in checks)
    assert can_run(checks)
    assert verdict(checks) == "The main job can run here."


def test_every_check_has_a_name_of_its_own() -> None:
    names = [one.name for one in judge(GOOD, Config())]
    assert len(set(names)) == len(names)


def test_the_checks_are_those_that_scripts_look_for_in_their_order() -> None:
    """Their names are in the JSON, so a script may ask for one by it."""
    assert [one.name for one in judge(GOOD, Config())] == [
        *("privileges", "configuration", "python", "installation", "/proc"),
        *("kernel", "headers", "build tools", "module signing", "modules", "BPF", "BCC"),
        "OOM kills",
        *("cgroups", "memory controller", "memory pressure", "Docker", "images", "compose", "cron"),
        *("disk", "database", "clock", "metrics", "fleet", "notify", "proof"),
        "agent",
    ]


@pytest.mark.parametrize("what", TABLE)
def test_what_is_wrong_is_told_by_one_check_with_what_mends_it(what: str) -> None:
    changed, name, state, finding, remedy = TABLE[what]
    found = check(name, **changed)
    assert found.state is state
    assert finding in found.finding
    assert remedy in found.remedy


@pytest.mark.parametrize("what", TABLE)
def test_the_main_job_can_run_unless_something_is_missing(what: str) -> None:
    changed, _, state, *_ = TABLE[what]
    checks = judge(facts(**changed), Config())
    assert can_run(checks) is (state is not State.MISSING)
    assert ("cannot run" in verdict(checks)) is (state is State.MISSING)


UNSEEN = {
    **UNLOADED,
    "modules__built": None,
    **dict.fromkeys(("signing__lockdown", "signing__enforced")),
    **{f"store__{key}": None for key in ("kind", "free_mb", "schema", "writable")},
    "docker__problem": "Permission denied",
    "docker__version": "",
    "config_problem": "Permission denied",
    "cron_problem": None,
    "leftovers__agent_pid": None,
}


@pytest.mark.parametrize("root", [True, False])
def test_only_who_is_not_root_is_told_to_be(root: bool) -> None:
    checks = judge(facts(**UNSEEN, root=root), Config())
    unknown = [one for one in checks if one.state is State.UNKNOWN]
    assert len(unknown) >= 6
    assert all(one.remedy for one in unknown)
    assert ("sudo agent doctor" in {one.remedy for one in checks}) is not root


def test_every_check_can_find_something_wrong() -> None:
    told = {name for _, name, *_ in TABLE.values()}
    told.add("memory pressure")  # only a rule makes it wrong: test_pressure.py
    assert told == {one.name for one in judge(GOOD, Config())}


@pytest.mark.parametrize("what", FINE)
def test_what_the_agent_can_live_with_is_ok(what: str) -> None:
    changed, name, finding = FINE[what]
    found = check(name, **changed)
    assert (found.state, finding in found.finding) == (State.OK, True), found


@pytest.mark.parametrize(
    "changed",
    [
        {"modules__takes_modules": False, **UNBUILT},
        {"modules__headers": False, **UNBUILT},
        {"modules__missing_tools": ("make",), **UNBUILT},
        {**LOCKED, "signing__key": False, **UNBUILT},
    ],
)
def test_the_source_that_is_set_decides_whether_modules_are_essential(
    changed: dict[str, Any],
) -> None:
    assert not can_run(judge(facts(**changed), ONLY_MODULES))
    assert can_run(judge(facts(**changed), Config()))
    about_modules = ("kernel", "headers", "build tools", "module signing", "modules")
    for one in judge(facts(**changed), NO_MODULES):
        if one.name in about_modules:
            assert (one.state, one.remedy) == (State.OK, "")


@pytest.mark.parametrize(
    ("text", "name", "what"),
    [
        ("[cron]\nenabled = false", "cron", "no cron daemon"),
        ("[cron]\nenabled = false", "images", "no image and nothing to make one of"),
        ("[grafana]\nenabled = false", "compose", "no compose"),
        ("[bpf]\nenabled = false", "BPF", "a kernel without types"),
        ("[bpf]\nenabled = false", "BCC", "no BCC"),
    ],
)
def test_what_is_switched_off_is_not_missed(text: str, name: str, what: str) -> None:
    found = check(name, settings(text), **TABLE[what][0])
    assert (found.state, found.remedy) == (State.OK, "")


def test_modules_that_are_meant_to_stay_are_no_leftovers() -> None:
    left: dict[str, Any] = {"leftovers": LeftoverFacts(0, False, 0, False)}
    assert check("agent", settings("[modules]\nkeep = true"), **left).state is State.OK
    assert check("agent", **left).state is State.DEGRADED


UNKNOWN = st.booleans() | st.none()


@given(st.data())
def test_whatever_is_known_every_check_ends_in_a_sentence(data: Any) -> None:
    value = facts(
        root=data.draw(st.booleans()),
        modules=data.draw(
            st.builds(
                ModuleFacts,
                release=st.just("6.1.0"),
                takes_modules=st.booleans(),
                disabled=UNKNOWN,
                headers=st.booleans(),
                missing_tools=st.sampled_from([(), ("make",), ("insmod",), ("gcc", "rmmod")]),
                built=UNKNOWN,
                loaded=st.sampled_from([(), ("sysinfo",), ("sysinfo", "continfo")]),
                ours=UNKNOWN,
                entry_problem=st.sampled_from([None, "", "it is empty"]),
            )
        ),
        signing=data.draw(
            st.builds(
                SigningFacts,
                UNKNOWN,
                st.sampled_from([None, "none", "integrity", "confidentiality"]),
                UNKNOWN,
                UNKNOWN,
                UNKNOWN,
            )
        ),
        cgroups__memory=data.draw(UNKNOWN),
        store__writable=data.draw(UNKNOWN),
        store__kind=data.draw(st.sampled_from([None, "absent", "empty", "ours", "damaged"])),
        store__free_mb=data.draw(st.integers(0, 10**6) | st.none()),
        leftovers__agent_pid=data.draw(st.sampled_from([None, 0, 5])),
        leftovers__grafana=data.draw(UNKNOWN),
    )
    for config in (Config(), NO_MODULES, ONLY_MODULES):
        for one in judge(value, config):
            assert one.finding
            assert one.state is State.OK or one.remedy, one
            assert not one.finding.endswith(": ")


def test_the_json_has_the_verdict_the_checks_and_the_facts() -> None:
    checks = judge(facts(docker__version="", docker__problem="Away.", docker__hint="Go"), Config())
    value = json.loads(document(GOOD, checks))
    assert value["can_run"] is False
    found = {"name": "Docker", "state": "missing", "finding": "Away.", "remedy": "Go"}
    # What the remedy was called in 1.0 is there too, for whoever reads that.
    assert {**found, "remedy": "Go"} in value["checks"]
    assert value["facts"] == json.loads(json.dumps(msgspec.to_builtins(GOOD)))


def test_the_plain_table_is_aligned_and_steers_no_terminal() -> None:
    text = plain(
        [Check("a", State.OK, "fine"), Check("long", State.MISSING, "\x1b[2J", "remedy it")]
    )
    assert text.splitlines() == [
        "a     ok        fine",
        r"long  missing   \x1b[2J",
        "                → remedy it",
    ]


def test_a_condition_that_is_never_met_is_a_finding_and_the_agent_runs() -> None:
    config = settings('[[policy.rule]]\nname = "x"\nmatch.name = "x"\nwhen.idle = "1h"')
    assert check("configuration", config).state is State.OK
    without = replace(GOOD.cgroups, io_problem="it counts no I/O", has_psi=False)
    found = check("configuration", config, cgroups=without)
    assert found.state is State.DEGRADED
    assert 'rule "x": idle is never met: it counts no I/O' in found.finding
    assert found.remedy == "agent policy check"
    assert can_run(judge(replace(GOOD, cgroups=without), config))
    presses = '[[policy.rule]]\nname = "x"\nmatch.name = "x"\nwhen.pressure.memory = 5'
    assert (
        "pressure is never met"
        in check("configuration", settings(presses), cgroups=without).finding
    )


@pytest.mark.parametrize(
    ("changed", "status", "last"),
    [
        ({}, 0, "The main job can run here."),
        ({"docker__version": "", "docker__problem": "Away."}, 1, "cannot run here: 1 missing."),
    ],
)
def test_on_a_terminal_the_table_has_the_same_rows_and_the_verdict_is_the_status(
    changed: dict[str, Any],
    status: int,
    last: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(command, "probe", lambda config, problem: facts(**changed))
    monkeypatch.setattr(command, "is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    path = tmp_path / "agent.toml"
    path.write_text("")
    assert command.doctor(path, None, as_json=False) == status
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["check", "state", "finding", "remedy"]
    for one in judge(facts(**changed), Config()):
        assert any(line.startswith(one.name) and one.state in line for line in lines)
    assert lines[-1].endswith(last)
