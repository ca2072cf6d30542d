"""The history's tables as peewee models, for those who write and read them.

The schema itself comes from the numbered scripts in `migrations/`; a test holds the two together.
Models are bound to no database: every query names the one it runs on (`query.execute(database)`).
"""

from __future__ import annotations

from typing import Any

from peewee import (
    AutoField,
    BigIntegerField,
    BooleanField,
    FloatField,
    IntegerField,
    Model,
    TextField,
)


class Row(Model):
    """What every table has: a number that rises, and the wall clock in Unix milliseconds."""

    id = AutoField()
    timestamp = BigIntegerField()


class Metrics(Row):
    """One row a tick: the host. Memory in KB."""

    total_ram = BigIntegerField()
    free_ram = BigIntegerField()
    used_ram = BigIntegerField()
    container_count = IntegerField(null=True)
    """NULL while Docker did not answer."""
    process_count = IntegerField()
    deleted_count = IntegerField()
    available_ram = BigIntegerField()
    cpu_usage = FloatField()
    """Percent of all CPUs."""
    cpu_count = IntegerField()
    load1 = FloatField()
    psi_memory = FloatField(null=True)
    psi_cpu = FloatField(null=True)
    source = TextField()
    tick_ms = IntegerField()

    class Meta:
        table_name = "metrics"


class ContainerStats(Row):
    """One row for each process of a container and tick."""

    container_id = TextField()
    """Docker's short id."""
    container_name = TextField()
    pid = IntegerField()
    process_name = TextField()
    ram_usage = FloatField()
    """MB, resident."""
    cpu_usage = FloatField()
    """Percent of one CPU."""
    verified = TextField()
    basis = TextField()

    class Meta:
        table_name = "container_stats"


class ProcessStats(Row):
    """One row for each process of the host and tick."""

    pid = IntegerField()
    name = TextField()
    ram_usage = FloatField()
    cpu_usage = FloatField()

    class Meta:
        table_name = "process_stats"


class ContainerTotal(Row):
    """One row for each container and tick."""

    container_id = TextField()
    container_name = TextField()
    image = TextField()
    tier = TextField()
    governed = BooleanField()
    processes = IntegerField()
    held_mb = FloatField()
    held_basis = TextField()
    """What `held_mb` was taken from: `cgroup2`, `cgroup1` (with reclaimable slab) or `rss`."""
    rss_mb = FloatField()
    cache_mb = FloatField(null=True)
    cpu_usage = FloatField()
    cpu_short_lived = FloatField(null=True)
    cpu_unexplained = FloatField(null=True)
    starts = IntegerField(null=True)
    exits = IntegerField(null=True)
    oom_kills = IntegerField(null=True)

    class Meta:
        table_name = "container_totals"


class DeletionRow(Row):
    """One row for each decision, whatever came of it; `action` says what was to be done."""

    decision = TextField()
    container_id = TextField()
    container_name = TextField()
    image = TextField()
    tier = TextField()
    rank = IntegerField()
    reason = TextField()
    held_mb = FloatField()
    cpu_usage = FloatField()
    outcome = TextField()
    duration_ms = IntegerField()
    error = TextField()
    available_before_mb = FloatField()
    available_after_mb = FloatField()
    action = TextField()
    """What was to be done: `remove`, `stop`, `restart`, `pause` or `notify`."""
    rule = TextField()
    """The rule that decided it; "" in rows of 1.0 and of a stop."""
    engine = TextField()

    class Meta:
        table_name = "deletions"


class AttributionCheck(Row):
    """One row a tick: how the witnesses agreed."""

    agree = IntegerField()
    conflict = IntegerField()
    unverified = IntegerField()
    added = IntegerField()
    strayed = IntegerField()
    moved = IntegerField()
    dropped = IntegerField()
    events_lost = BigIntegerField()

    class Meta:
        table_name = "attribution_checks"


RULE_COLUMNS = frozenset({"action", "rule", "engine"})
"""Those of `deletions` that came with the rules; all rows of before have their defaults."""

RAW_TABLES: tuple[type[Row], ...] = (ProcessStats, ContainerStats)
"""Rows a process: many, and kept for hours."""

HISTORY_TABLES: tuple[type[Row], ...] = (
    ContainerTotal,
    AttributionCheck,
    Metrics,
    DeletionRow,
)
"""Rows a tick, a container or a removal: few, and kept for weeks."""

ALL_TABLES: tuple[type[Row], ...] = RAW_TABLES + HISTORY_TABLES


def table_name(model: type[Row]) -> str:
    return str(model._meta.table_name)  # noqa: SLF001 # peewee's way


def fields(model: type[Row]) -> tuple[Any, ...]:
    """Its fields in the order of the columns, without `id`."""
    return tuple(one for one in model._meta.sorted_fields if one.column_name != "id")  # noqa: SLF001


def columns(model: type[Row]) -> tuple[str, ...]:
    """Its columns in order, without `id`."""
    return tuple(str(one.column_name) for one in fields(model))
