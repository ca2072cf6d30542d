"""The header that BPF and Python share: the compiler's layout against the reader's."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.sources.bpf import records

if TYPE_CHECKING:
    import struct

HEADER = Path(__file__).resolve().parents[4] / "kernel" / "bpf" / "records.h"

RECORDS: dict[str, tuple[struct.Struct, tuple[str, ...]]] = {
    "process_key": (records.PROCESS_KEY, records.PROCESS_KEY_FIELDS),
    "process_record": (records.PROCESS_RECORD, records.ProcessRecord._fields),
    "cgroup_record": (records.CGROUP_RECORD, records.CgroupRecord._fields),
    "exit_record": (records.EXIT, records.ExitRecord._fields),
    "oom_level": (records.OOM_LEVEL, records.OomLevel._fields),
    "oom_record": (records.OOM, records.OomRecord._fields),
    "cpu_counters": (records.CPU_COUNTERS, records.CpuCounters._fields),
    "cgroup_name": (records.CGROUP_NAME, records.CgroupNameRecord._fields),
    "control": (records.CONTROL, ("mark_ns",)),
    "event": (records.EVENT, records.EventRecord._fields),
}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, int]]:
    """What a C compiler says: by structure, the size as "" and the offset of each field."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler (gcc)")
    lines = ["#include <stddef.h>", "#include <stdio.h>", "#include <linux/types.h>"]
    lines += [f'#include "{HEADER}"', "int main(void) {"]
    for name, (_, fields) in RECORDS.items():
        lines.append(f'printf("{name} - %zu\\n", sizeof(struct {name}));')
        lines += [
            f'printf("{name} {field} %zu\\n", offsetof(struct {name}, {field}));'
            for field in fields
        ]
    lines.append('printf("long_event - %zu\\n", sizeof(struct long_event));')
    lines.append('printf("long_event rest %zu\\n", offsetof(struct long_event, rest));')
    directory = tmp_path_factory.mktemp("records")
    source = directory / "layout.c"
    source.write_text("\n".join([*lines, "return 0; }"]), encoding="ascii")
    program = directory / "layout"
    subprocess.run([compiler, "-o", str(program), str(source)], check=True, timeout=60)
    out = subprocess.run([str(program)], check=True, capture_output=True, text=True, timeout=60)
    layout: dict[str, dict[str, int]] = {}
    for line in out.stdout.splitlines():
        name, field, number = line.split()
        layout.setdefault(name, {})["" if field == "-" else field] = int(number)
    return layout


def test_what_a_tick_takes_of_a_process_is_what_the_whole_record_says() -> None:
    record = bytes(range(1, records.PROCESS_RECORD.size + 1))
    whole = records.ProcessRecord(*records.PROCESS_RECORD.unpack(record))
    taken = (
        *(whole.start_ns, whole.cgroup_id, whole.pointer_id, whole.base_cpu_ns),
        *(whole.exit_cpu_ns, whole.ended, whole.released, whole.pid, whole.spills),
    )
    assert records.PROCESS_PLACE.unpack(record) == taken


@pytest.mark.allow_subprocess
@pytest.mark.parametrize("name", RECORDS)
def test_a_record_has_the_size_that_the_compiler_gives_it(
    name: str, compiled: dict[str, dict[str, int]]
) -> None:
    assert RECORDS[name][0].size == compiled[name][""]


@pytest.mark.allow_subprocess
def test_a_long_event_goes_on_where_the_short_one_ends(compiled: dict[str, dict[str, int]]) -> None:
    text = compiled["event"]["text"]
    assert compiled["long_event"]["rest"] == records.EVENT.size
    assert compiled["long_event"][""] == records.LONG_EVENT.size
    raw = bytearray(records.LONG_EVENT.size)
    raw[text:] = b"a" * (len(raw) - text)
    assert records.EventRecord._make(records.LONG_EVENT.unpack(raw)).text == bytes(raw[text:])


@pytest.mark.allow_subprocess
@pytest.mark.parametrize("name", RECORDS)
def test_every_field_is_where_the_compiler_puts_it(
    name: str, compiled: dict[str, dict[str, int]]
) -> None:
    reader, fields = RECORDS[name]
    for place, field in enumerate(fields):
        offset = compiled[name][field]
        raw = bytearray(reader.size)
        raw[offset] = 1
        values = reader.unpack(raw)
        touched = [
            one
            for one, value in enumerate(values)
            if (any(value) if isinstance(value, bytes) else value != 0)
        ]
        assert touched == [place], field


def test_the_kinds_of_event_are_the_headers() -> None:
    text = HEADER.read_text(encoding="ascii")
    for prefix, known in (("EVENT", records.EventKind), ("EXIT", records.ExitKind)):
        found = re.findall(rf"\b{prefix}_([A-Z]+) = (\d+)", text)
        assert {name: int(value) for name, value in found} == {
            kind.name: kind.value for kind in known
        }


def test_text_ends_at_its_first_nul_and_stays_text() -> None:
    assert records.c_text(b"ab\0cd") == "ab"
    assert records.c_text(b"caf\xc3\xa9\xff") == "caf\u00e9\ufffd"
