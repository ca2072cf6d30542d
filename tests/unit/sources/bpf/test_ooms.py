"""OOM records from their ring buffer: a kill or a mark, why, and how many are gone."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from agent.model.oom import OomCause, OomMark
from agent.model.process import ProcessKey
from agent.sources.bpf import records
from agent.sources.bpf.numbering import Numbering
from agent.sources.bpf.ooms import KILL, Ooms, mark_of
from agent.sources.bpf.records import CpuCounters, OomRecord
from agent.sources.bpf.symbols import Symbols
from tests.unit.sources.bpf.memory import Memory

KALLSYMS = """\
0000000000000000 A fixed_percpu_data
ffffffff81000100 t mark_oom_victim
ffffffff81000200 t __oom_kill_process
ffffffff81000200 t an_alias_of_it
ffffffff81000300 t oom_kill_process
ffffffff81000400 T out_of_memory
ffffffff81000500 t mem_cgroup_out_of_memory.isra.0
ffffffff81000600 t moom_callback
ffffffff81000700 T something_else
ffffffffc0001000 t out_of_memory_in_a_module\t[other]
"""
MARK, KILLED, CHOSE, OOM, BY_CGROUP, BY_SYSRQ, ELSE = (
    0xFFFFFFFF81000150 + 0x100 * step for step in range(7)
)
BOX = "ab" * 32


@pytest.fixture
def symbols(tmp_path: Path) -> Symbols:
    path = tmp_path / "kallsyms"
    path.write_text(KALLSYMS, encoding="ascii")
    wanted = (KILL, "mem_cgroup_out_of_memory", "moom_callback", "out_of_memory")
    return Symbols((*wanted, "oom_kill_process", "mark_oom_victim"), path)


def level(cgroup_id: int = 5, name: str = BOX, **fields: int) -> bytes:
    one = records.OomLevel(
        cgroup_id, **{**dict.fromkeys(records.OomLevel._fields[1:6], 0), **fields}, name=b""
    )
    return records.OOM_LEVEL.pack(*one[:-1], name.encode())


def record(stack: tuple[int, ...] = (), levels: bytes = b"", **fields: object) -> OomRecord:
    values: dict[str, object] = dict.fromkeys(records.OomRecord._fields, 0)
    values |= {
        "sequence": 1,
        "marked_ns": 70,
        "start_ns": 60,
        "cgroup_id": 5,
        "pid": 91,
        "trigger_pid": 88,
        "trigger_start_ns": 50,
        "trigger_cgroup_id": 6,
        "exit_code": 9,
        "known": 7,
        "anon_pages": 256,
        "file_pages": 2,
        "shmem_pages": -3,
        "swap_pages": 0,
        "comm": b"stress\0x",
        "trigger_comm": b"sh",
        "trigger_cgroup": b"init.scope",
        "stack": struct.pack("=24Q", *stack, *[0] * (24 - len(stack))),
        "frames": len(stack),
        "level": levels.ljust(records.OOM_LEVELS * records.OOM_LEVEL.size, b"\0"),
        "levels": len(levels) // records.OOM_LEVEL.size,
        **fields,
    }
    return OomRecord(**values)  # type: ignore[arg-type]


def found(one: OomMark | None) -> OomMark:
    assert one is not None
    return one


@pytest.mark.parametrize(
    ("stack", "cause"),
    [
        ((MARK, KILLED, CHOSE, OOM, BY_CGROUP, ELSE), OomCause.LIMIT),
        ((MARK, KILLED, CHOSE, OOM, ELSE), OomCause.HOST),
        ((MARK, KILLED, CHOSE, OOM, BY_SYSRQ), OomCause.SYSRQ),
    ],
)
def test_the_call_stack_says_why(symbols: Symbols, stack: tuple[int, ...], cause: OomCause) -> None:
    assert found(mark_of(record(stack), symbols)).cause is cause


def test_one_that_was_ending_anyway_is_marked_and_not_killed(symbols: Symbols) -> None:
    assert mark_of(record((MARK, OOM, BY_CGROUP)), symbols) is None
    assert mark_of(record((MARK, CHOSE, OOM), exit_code=9), symbols) is None


@pytest.mark.parametrize("text", ["", "0000000000000000 t __oom_kill_process\n" * 3])
def test_without_the_kernels_addresses_the_signal_tells(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kallsyms"
    path.write_text(text, encoding="ascii")
    hidden = Symbols((KILL,), path)

    assert not hidden.known
    assert not Symbols((KILL,), tmp_path / "absent").known
    assert found(mark_of(record((MARK, KILLED)), hidden)).cause is OomCause.UNKNOWN
    assert mark_of(record((MARK, OOM), exit_code=0x100), hidden) is None


def test_a_return_address_at_the_end_of_a_function_is_in_it(symbols: Symbols) -> None:
    assert symbols.names([0xFFFFFFFF81000300, 0xFFFFFFFF81000301]) == [KILL, "oom_kill_process"]


def test_everything_of_a_record_is_told_in_kb(symbols: Symbols) -> None:
    levels = level(used_pages=8192, max_pages=8192, oom_events=3, memsw_max_pages=16384)
    levels += level(4, "docker", used_pages=9000, max_pages=0x7FFFFFFFFFFFF)
    one = found(mark_of(record((MARK, KILLED), levels, oom_score_adj=-5), symbols))

    assert (one.key, one.trigger) == (ProcessKey(91, 60), ProcessKey(88, 50))
    assert (one.comm, one.trigger_comm, one.trigger_cgroup) == ("stress", "sh", "init.scope")
    assert one.memory is not None
    assert one.memory.rss_kb == 1032
    assert one.memory == (1024, 8, 0, 0)
    assert one.oom_score_adj == -5
    assert [(level.name, level.used_kb, level.limit_kb) for level in one.levels] == [
        (BOX, 32768, 32768),
        ("docker", 36000, None),
    ]
    assert (one.levels[0].ooms, one.levels[0].swap_limit_kb) == (3, 65536)


def test_where_the_kernel_tells_the_number_alone_the_rest_is_unknown(symbols: Symbols) -> None:
    one = found(mark_of(record((MARK, KILLED), known=0), symbols))

    assert (one.memory, one.oom_score_adj, one.levels) == (None, None, ())


def test_records_come_in_order_once_and_losses_are_counted(symbols: Symbols) -> None:
    memory = Memory()
    counted = [CpuCounters(), CpuCounters()]
    ooms = Ooms(memory.maps["ooms"].fd, lambda: counted, symbols)
    memory.oom(record((MARK, KILLED), sequence=1, cpu=1, marked_ns=9, pid=2))
    memory.oom(record((MARK, KILLED), sequence=3, cpu=1, marked_ns=8, pid=1))
    counted[:] = [CpuCounters(), CpuCounters(ooms=5)]

    assert [one.key.pid for one in ooms.take()] == [1, 2]
    assert ooms.take() == ()
    # 2 was passed over; 4 and 5 are counted and never came.
    assert ooms.lost == 3
    ooms.close()


def test_a_number_is_held_against_the_count_of_the_reading_before() -> None:
    numbering = Numbering()
    numbering.note([(0, 1)], [2])
    assert numbering.lost == 0
    numbering.note([(0, 2)], [2])
    assert numbering.lost == 0
    numbering.note([(0, 4)], [4])
    assert numbering.lost == 1
