"""A history as the agent writes it, made by rule: for the dashboards' tests, speed and pictures.

`python -m tests.unit.grafana.make_db FILE --hours 24 --days 30` writes one. The rows come from a
simulation of the policy (generator each minute, passes each tick), of a restart, of a stretch
without modules, of a Docker that was away and of names that nobody should trust.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
from pathlib import Path
from typing import Any

import peewee
from playhouse.migrations import Runner

from agent.store.database import HISTORY_TABLE, MIGRATIONS, connect, rows
from agent.store.rollups import Roller
from tests.unit.grafana.world import (
    CPUS,
    TOTAL_KB,
    Plan,
    World,
    daemons_of,
    database_service,
    generate,
    grafana,
    totals_of,
    twins,
)


def make(path: Path, plan: Plan) -> None:
    """Writes the history to a new file at `path`, with the agent's own schema and no side files."""
    database = peewee.SqliteDatabase(str(path))
    Runner(database, directory=str(MIGRATIONS), table_name=HISTORY_TABLE).up()
    database.close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=OFF")
    connection.execute("PRAGMA synchronous=OFF")
    with connection:
        _simulate(connection, plan)
    connection.execute("PRAGMA optimize")
    connection.execute("PRAGMA journal_mode=DELETE")
    connection.close()


def close_buckets(path: Path, times: int = 10**6) -> None:
    """Closes what is due in up to `times` goes, as the agent does after as many ticks."""
    database = connect(path)
    roller = Roller(database, lambda: 0)
    ((newest,),) = rows(database, "SELECT max(timestamp) FROM metrics")
    for _ in range(times):
        if not roller.run(newest):
            break
    database.close()


def _simulate(connection: sqlite3.Connection, plan: Plan) -> None:
    state = World(random.Random(plan.seed), plan)
    raw_from = plan.end_ms - int(plan.hours * 3_600_000)
    begin = min(raw_from, plan.end_ms - int(plan.days * 86_400_000))
    if plan.governed:
        state.containers += [grafana(state), database_service(state)]
    if plan.twins:
        state.containers += twins(state)
    ticks = (plan.end_ms - begin) // plan.tick_ms
    daemons = daemons_of(state)
    jitter = 0
    for number in range(ticks + 1):
        fraction = number / max(1, ticks)
        if plan.incidents and 0.40 < fraction < 0.46:
            continue
        jitter = (jitter + state.rng.randint(0, 37)) % 900
        timestamp = begin + number * plan.tick_ms + jitter
        if timestamp > plan.end_ms:
            break
        tick(connection, state, daemons, number, fraction, timestamp, timestamp >= raw_from)


def tick(
    connection: sqlite3.Connection,
    state: World,
    daemons: list[tuple[int, str, float, float]],
    number: int,
    fraction: float,
    timestamp: int,
    raw: bool,
) -> None:
    plan, rng = state.plan, state.rng
    incidents = plan.incidents
    away = incidents and 0.70 < fraction < 0.73
    psutil = incidents and 0.78 < fraction < 0.83
    blind = (incidents and 0.46 <= fraction < 0.48) or psutil
    if plan.governed and not away and number % 3 == 0:
        generate(state, number)
    seen = [] if away else list(state.containers)
    totals = [totals_of(state, one, number, blind) for one in seen]
    load = sum(row["cpu"] for row in totals)
    _insert_totals(connection, timestamp, totals)
    _insert_ended(connection, timestamp, totals)
    checks = _container_rows(connection, state, timestamp, totals, blind, fraction, raw)
    processes = _process_rows(connection, state, timestamp, daemons, totals, raw)
    removed, available = (0, 0.0) if away else _remove(connection, state, timestamp, totals)
    held_kb = sum(row["held"] for row in totals) * 1024
    base = 0.36 + 0.05 * rng.random() + 0.04 * ((number % 900) / 900)
    used = int(TOTAL_KB * base + held_kb * 1.1)
    connection.execute(
        "INSERT INTO metrics (timestamp,total_ram,free_ram,used_ram,container_count,process_count,"
        "deleted_count,available_ram,cpu_usage,cpu_count,load1,psi_memory,psi_cpu,source,tick_ms)"
        " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
        (
            timestamp,
            TOTAL_KB,
            TOTAL_KB - used,
            used,
            None if away else len([one for one in state.containers if "grafana" not in one.image]),
            processes,
            removed,
            int((TOTAL_KB - used) * 0.82 + 1_300_000),
            round(min(100.0, 6 + 4 * rng.random() + load / CPUS), 3),
            CPUS,
            round(0.4 + load / 100 + rng.random() / 3, 2),
            None if psutil else round(max(0.0, load / 400 + rng.random() - 0.6), 2),
            None if psutil else round(max(0.0, load / 18 + rng.random() * 2 - 0.8), 2),
            "psutil" if psutil else "modules",
            int(120 + 60 * rng.random() + (2200 * rng.random() if removed else 0)),
        ),
    )
    lost = 12 if incidents and 0.600 < fraction < 0.612 else 0
    connection.execute(
        "INSERT INTO attribution_checks (timestamp,agree,conflict,unverified,added,strayed,moved,"
        "dropped,events_lost,events_missed,events_corrected,events_late)"
        " VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
        (timestamp, *checks, 5, lost, lost // 4, number % 3, number % 5),
    )
    del available


def _insert_totals(
    connection: sqlite3.Connection, timestamp: int, totals: list[dict[str, Any]]
) -> None:
    connection.executemany(
        "INSERT INTO container_totals (timestamp,container_id,container_name,image,tier,governed,"
        "processes,held_mb,held_basis,rss_mb,cache_mb,cpu_usage,cpu_short_lived,cpu_unexplained,"
        "starts,exits,oom_kills,engine,rule)"
        " VALUES (?,?,?,?,?,?,?,?,'cgroup2',?,?,?,?,?,?,?,?,?,?)",
        [
            (
                timestamp,
                row["one"].id,
                row["one"].name,
                row["one"].image,
                row["one"].tier,
                row["one"].governed,
                len(row["one"].pids),
                row["held"],
                row["rss"],
                row["cache"],
                row["cpu"],
                row["short"],
                row["unexplained"],
                row["starts"],
                row["exits"],
                row["oom"],
                row["one"].engine,
                f"original-{row['one'].tier}" if row["one"].governed else "",
            )
            for row in totals
        ],
    )


def _insert_ended(
    connection: sqlite3.Connection, timestamp: int, totals: list[dict[str, Any]]
) -> None:
    """Who was killed for lack of memory, and what no tick saw, by what the totals say."""
    for place, row in enumerate(totals):
        one = row["one"]
        for number in range(row["oom"] or 0):
            pid, grower = one.pids[0] + number, one.pids[-1]
            held = row["held"]
            connection.execute(
                "INSERT INTO oom_kills (timestamp,pid,process_name,container_id,container_name,"
                "image,cgroup,cause,limit_cgroup,limit_container,limit_mb,used_mb,anon_mb,file_mb,"
                "shmem_mb,swap_mb,oom_score_adj,trigger_pid,trigger_name,trigger_container,"
                "grower_pid,grower_name,grower_container,grown_mb,grown_s,beside,witnesses,engine)"
                " VALUES (?,?,?,?,?,?,?,'limit',?,?,?,?,?,1.5,0,0,0,?,?,?,?,?,?,?,20,'[]','bpf',?)",
                (
                    *(timestamp - 700 + number, pid, one.names[0], one.id, one.name, one.image),
                    *(f"/docker/{one.id}", f"/docker/{one.id}", one.name, held, held, held / 2),
                    *(grower, one.names[-1], one.name, grower, one.names[-1], one.name, held / 3),
                    one.engine,
                ),
            )
        if not row["short"]:
            continue
        for order, (parent, name) in enumerate((("sh", "gcc"), ("init", "sh"), ("", "(others)"))):
            connection.execute(
                "INSERT INTO short_lived (timestamp,container_id,container_name,parent_name,"
                "process_name,count,cpu_ms,peak_rss_mb,engine) VALUES (?,?,?,?,?,?,?,?,?)",
                (
                    *(timestamp, one.id, one.name, parent, name, 1 + (place + order) % 4),
                    round(row["short"] * 200 / (2**order), 3),
                    None if name == "(others)" else 1.5 + place,
                    one.engine,
                ),
            )


def _container_rows(
    connection: sqlite3.Connection,
    state: World,
    timestamp: int,
    totals: list[dict[str, Any]],
    blind: bool,
    fraction: float,
    raw: bool,
) -> tuple[int, int, int, int, int, int]:
    """Rows a container's process, and agree, conflict, unverified, added, strayed, moved."""
    rows = []
    counts = dict.fromkeys(("agree", "conflict", "unverified", "added", "strayed", "moved"), 0)
    odd = state.plan.incidents and 0.55 < fraction < 0.64
    for place, row in enumerate(totals):
        one = row["one"]
        for order, pid in enumerate(one.pids):
            verified = "unverified" if blind else "agree"
            basis = "cgroup"
            if odd and place == 2 and order == 0 and 0.58 < fraction < 0.60:
                verified = "conflict"
            if odd and place == 1 and order == 2:
                basis = "strayed"
            if odd and place == 1 and order == 1 and fraction > 0.60:
                basis = "added"
            if odd and place == 3 and order == 0 and fraction < 0.57:
                basis = "moved"
            counts[verified] += 1
            if basis in counts:
                counts[basis] += 1
            share = 0.97 if len(one.pids) == 1 or order else 0.03
            if one.names[0] == "postgres":
                share = 1 / 3
            rows.append(
                (
                    timestamp, one.id, one.name, pid, one.names[order],
                    row["rss"] * share, round(row["cpu"] * share, 3), verified, basis, one.engine,
                )
            )  # fmt: skip
    if raw:
        connection.executemany(
            "INSERT INTO container_stats (timestamp,container_id,container_name,pid,process_name,"
            "ram_usage,cpu_usage,verified,basis,engine) VALUES (?,?,?,?,?,?,?,?,?,?)",
            rows,
        )
    agree, conflict, unverified, added, strayed, moved = counts.values()
    return agree, conflict, unverified, added, strayed, moved


def _process_rows(
    connection: sqlite3.Connection,
    state: World,
    timestamp: int,
    daemons: list[tuple[int, str, float, float]],
    totals: list[dict[str, Any]],
    raw: bool,
) -> int:
    """Rows a process; how many there are."""
    inside = [
        (pid, row["one"].names[order], row["rss"] / len(row["one"].pids), row["cpu"])
        for row in totals
        for order, pid in enumerate(row["one"].pids)
    ]
    if raw:
        rng = state.rng
        wave = 0.7 + 0.6 * rng.random()
        rows = [
            (timestamp, pid, name, ram, round(cpu * wave, 3)) for pid, name, ram, cpu in daemons
        ]
        rows += [
            (timestamp, pid, name, ram, cpu if order else cpu * 0.03)
            for order, (pid, name, ram, cpu) in enumerate(inside)
        ]
        connection.executemany(
            "INSERT INTO process_stats (timestamp,pid,name,ram_usage,cpu_usage) VALUES (?,?,?,?,?)",
            rows,
        )
    return len(daemons) + len(inside)


def _remove(
    connection: sqlite3.Connection,
    state: World,
    timestamp: int,
    totals: list[dict[str, Any]],
) -> tuple[int, float]:
    """The pass: all but the three and two that hold least go. How many went."""
    rng = state.rng
    going: list[tuple[dict[str, Any], str]] = []
    for tier, keep, reason in (("low", 3, "excess-low"), ("high", 2, "excess-high")):
        of_tier = [row for row in totals if row["one"].tier == tier]
        of_tier.sort(key=lambda row: (-round(row["held"]), -row["cpu"], -row["one"].born))
        going += [(row, reason) for row in of_tier[: max(0, len(of_tier) - keep)]]
    going.sort(key=lambda pair: (-round(pair[0]["held"]), -pair[0]["cpu"]))
    before = TOTAL_KB / 1024 * 0.55 - sum(row["held"] for row in totals)
    after = before + sum(row["held"] for row, _ in going) * 0.98
    removed = 0
    for rank, (row, why) in enumerate(going, start=1):
        state.deletions += 1
        outcome, error = "removed", ""
        reason, rule = why, f"original-{row['one'].tier}"
        if state.plan.incidents and state.deletions % 13 == 0:
            reason, rule = "rule", "nightly-jobs"
        if state.plan.incidents and state.deletions % 41 == 0:
            outcome, error = "failed", "device or resource busy"
        elif state.plan.incidents and state.deletions % 29 == 0:
            outcome = "gone"
        elif state.plan.incidents and state.deletions % 23 == 0:
            outcome, error = "gone", "not governed any more"
        connection.execute(
            "INSERT INTO deletions (timestamp,decision,container_id,container_name,image,tier,rank,"
            "reason,held_mb,cpu_usage,outcome,duration_ms,error,available_before_mb,"
            "available_after_mb,action,rule) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                timestamp - 400,
                f"{rng.getrandbits(48):012x}",
                row["one"].id,
                row["one"].name,
                row["one"].image,
                row["one"].tier,
                rank,
                reason,
                row["held"],
                row["cpu"],
                outcome,
                rng.randint(240, 1400),
                error,
                before,
                after,
                "remove",
                rule,
            ),
        )
        if not error:
            state.containers.remove(row["one"])
            removed += outcome == "removed"
    return removed, after


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--days", type=float, default=0.0)
    parser.add_argument("--processes", type=int, default=120)
    parser.add_argument("--calm", action="store_true", help="no incidents")
    given = parser.parse_args()
    given.file.unlink(missing_ok=True)
    make(
        given.file,
        Plan(given.hours, given.days, given.processes, incidents=not given.calm),
    )


if __name__ == "__main__":
    main()
