"""Each recipe of docs/recipes.md, as it stands there, decides what its words say.

The host below has a container for each of them, one that looks like it and must stay, and a
database that no recipe may touch.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.config import Config, decode_config
from agent.model.container import ContainerKey, ContainerState, ContainerTotals, Need
from agent.policy import decide, governance, original
from agent.policy.conditions import HostMoment
from agent.policy.idle import Idleness
from agent.policy.notes import notes
from tests.unit.policy.containers import OURS, container, ids_in_turn, totals

TEXT = (Path(__file__).resolve().parents[3] / "docs/recipes.md").read_text(encoding="utf-8")
RECIPES = {
    part.splitlines()[0].split(":")[0]: re.findall(r"```toml\n(.*?)```", part, re.DOTALL)
    for part in TEXT.split("\n## ")[1:]
}
MINUTE_NS = 60 * 10**9
HOUR, DAY = 60, 24 * 60
NOW_NS = 100 * DAY * MINUTE_NS
EXITED = ContainerState.EXITED
JOB = {"ci.job": "7"}
HEALS = {"autoheal": "true"}
SHOP = {"com.docker.compose.project": "shop"}


class Population:
    """Containers, and since how many minutes each has been what it is."""

    def __init__(self) -> None:
        self.totals: list[ContainerTotals] = []
        self.started_ns: dict[ContainerKey, int] = {}
        self.since: dict[tuple[ContainerKey, str], int] = {}
        self.idle: dict[ContainerKey, Idleness] = {}

    def add(
        self,
        name: str,
        *,
        up: int = 10,
        held: float = 10,
        cpu: float = 0,
        image: str = "nginx",
        inherited: bool = False,
        state: ContainerState = ContainerState.RUNNING,
        **more: Any,
    ) -> None:
        lasting: dict[str, int] = {
            key: more.pop(key) for key in ("exited", "unhealthy", "idle") if key in more
        }
        if cpu > 90:
            lasting["cpu>90"] = 60
        one = container(len(self.totals) + 1, name=name, image=image, state=state)
        labels = more.pop("labels", {})
        own = {} if inherited else labels
        one = replace(one, labels=labels, own_labels=own, **more)
        if "unhealthy" in lasting:
            one = replace(one, health="unhealthy")
        if state.is_running:
            self.started_ns[one.key] = NOW_NS - up * MINUTE_NS
            self.idle[one.key] = Idleness("idle" in lasting, "busy")
        for level, minutes in lasting.items():
            self.since[(one.key, level)] = NOW_NS - minutes * MINUTE_NS
        self.totals.append(totals(one, held_mb=held, cpu=cpu))


def host() -> Population:
    made = Population()
    made.add("postgres", up=90 * DAY, held=9000, cpu=300, image="postgres:16")
    made.add("guarded", state=EXITED, exited=60 * DAY, labels={"so1.protect": "true"})
    made.add("app-data", state=EXITED, exited=40 * DAY)
    made.add("volumes", state=EXITED, exited=40 * DAY)
    made.add("web", up=HOUR, needs=(Need("volumes", "uses its volumes"),))
    made.add("ended-now", state=EXITED, exited=59)
    made.add("ended-today", state=EXITED, exited=2 * HOUR)
    made.add("ended-long-ago", state=EXITED, exited=4 * DAY)
    made.add("made-not-begun", state=ContainerState.CREATED)
    made.add("projectprefix_old", up=3 * DAY)
    made.add("projectprefix_new", up=DAY)
    made.add("sick", unhealthy=1, labels=HEALS)
    made.add("sick-by-its-image", unhealthy=60, labels=HEALS, inherited=True)
    made.add("sick-alone", unhealthy=60)
    made.add("job-hangs", up=7 * HOUR, labels=JOB)
    made.add("job-runs", up=5 * HOUR, labels=JOB, cpu=99)
    for number, minutes in enumerate((500, 400, 100), start=1):
        made.add(f"dev-{number}", up=2 * DAY, idle=minutes)
    made.add("dev-busy", up=5 * DAY)
    for number in (1, 2, 3):
        made.add(f"pr-{number}", up=number * HOUR, image=f"registry.example/review/pr:{number}")
    made.add("pr-elsewhere", up=9 * DAY, image="registry.example/other/pr:1")
    made.add("shop-worker-1", held=2500, labels=SHOP)
    made.add("shop-worker-2", held=1500, labels=SHOP)
    made.add("other-worker", held=2500)
    made.add("batch-1", held=500)
    made.add("batch-2", held=800, cpu=95)
    made.add("so1_contenedor_debug1", up=2 * DAY, image="alpine")
    for number in range(4):
        made.add(f"so1_contenedor_{number}", held=number, image="alpine")
    return made


EXPECTED: dict[str, set[tuple[str, str]]] = {
    "docker-gc": {
        ("remove", "ended-today"),
        ("remove", "ended-long-ago"),
        ("notify", "app-data"),
    },
    "cron": {("remove", "ended-long-ago"), ("remove", "app-data")},
    "docker-custodian": {
        ("remove", "ended-long-ago"),
        ("remove", "app-data"),
        ("stop", "projectprefix_old"),
    },
    "autoheal": {("restart", "sick")},
    "docuum": {("stop", "dev-1"), ("stop", "dev-2")},
    "CI": {("notify", "job-hangs")},
    "Review apps": {("remove", "pr-3")},
    "A leak": {("restart", "shop-worker-1")},
    "A runaway": {("notify", "job-runs"), ("notify", "batch-2")},
    "Before the OOM killer": {("remove", "batch-2")},
    "The original's policy, and a rule of your own before it": {
        ("notify", "so1_contenedor_debug1"),
        ("remove", "so1_contenedor_3"),
    },
}


def decided(config: Config, made: Population) -> set[tuple[str, str]]:
    rules = original.rule_set(config.policy)
    claimed = []
    for one in made.totals:
        seen = governance.claim(one.container, rules, OURS)
        claimed.append(replace(one, tier=seen.tier, governed=seen.governed, rule=seen.rule))
    now = HostMoment(
        now_ns=NOW_NS,
        available_kb=300 * 1024,
        pressure=0.0,
        started_ns=made.started_ns,
        since=made.since,
        idle=made.idle,
    )
    found = decide.decide(claimed, frozenset(), config.policy, ids_in_turn(), now)
    return {(str(one.action), one.container_name) for one in found}


def test_every_recipe_of_the_page_is_tried() -> None:
    assert set(RECIPES) == set(EXPECTED)


@pytest.mark.parametrize("recipe", EXPECTED)
def test_a_recipe_passes_the_check_and_does_what_it_says_to_whom_it_says(recipe: str) -> None:
    (text,) = RECIPES[recipe]
    config = decode_config(text, "agent.toml")
    assert notes(config.policy) == ()
    assert decided(config, host()) == EXPECTED[recipe]


@pytest.mark.parametrize("recipe", EXPECTED)
def test_no_recipe_touches_the_database_or_what_is_protected(recipe: str) -> None:
    (text,) = RECIPES[recipe]
    made = Population()
    made.add("postgres", up=90 * DAY, held=9000, cpu=300, image="postgres:16", idle=90 * DAY)
    for name in ("batch-9", "dev-9", "projectprefix_9", "job-9", "so1_contenedor_9"):
        made.add(
            name,
            up=90 * DAY,
            held=9000,
            cpu=300,
            idle=90 * DAY,
            unhealthy=90 * DAY,
            labels=JOB | HEALS | SHOP | {"so1.protect": ""},
        )
    assert decided(decode_config(text, "agent.toml"), made) == set()
