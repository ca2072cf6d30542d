"""Reading the kernel's own type information: made-up types, broken ones, and this machine's."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from agent.model.container import Hierarchy
from agent.sources.bpf.btf import BTF_PATH, Btf, BtfError
from agent.sources.bpf.offsets import macros

STRUCT, UNION, ENUM, TYPEDEF, PTR, PROTO, INT = 4, 5, 6, 8, 2, 13, 1


class Types:
    """Builds a BTF blob, a type at a time, as Documentation/bpf/btf.rst lays it out."""

    def __init__(self) -> None:
        self.strings = b"\0"
        self.types = b""
        self.count = 0

    def name(self, text: str) -> int:
        if not text:
            return 0
        self.strings += text.encode() + b"\0"
        return len(self.strings) - len(text) - 1

    def add(
        self, kind: int, name: str, size: int, *rest: int, length: int = 0, flag: int = 0
    ) -> int:
        info = flag << 31 | kind << 24 | length
        self.types += struct.pack(f"=III{len(rest)}I", self.name(name), info, size, *rest)
        self.count += 1
        return self.count

    def integer(self) -> int:
        return self.add(INT, "int", 4, 32)

    def structure(self, name: str, *members: tuple[str, int, int], kind: int = STRUCT) -> int:
        rest = [
            word for field, kind_id, bits in members for word in (self.name(field), kind_id, bits)
        ]
        return self.add(kind, name, 64, *rest, length=len(members))

    def blob(self) -> bytes:
        head = struct.pack(
            "=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(self.types), len(self.types), len(self.strings)
        )
        return head + self.types + self.strings


def test_a_field_is_found_at_its_byte() -> None:
    types = Types()
    number = types.integer()
    types.structure("task_struct", ("pid", number, 8 * 100), ("tgid", number, 8 * 104))
    assert Btf(types.blob()).offset("task_struct", "tgid") == 104


def test_a_field_inside_unnamed_parts_counts_from_the_outermost() -> None:
    types = Types()
    number = types.integer()
    union = types.structure("", ("id", number, 0), kind=UNION)
    inner = types.structure("", ("other", number, 0), ("", union, 64))
    types.structure("kernfs_node", ("", inner, 8 * 16))
    assert Btf(types.blob()).offset("kernfs_node", "id") == 16 + 8


def test_a_path_goes_through_typedefs_and_into_structures() -> None:
    types = Types()
    number = types.integer()
    entity = types.structure("sched_entity", ("sum_exec_runtime", number, 8 * 40))
    alias = types.add(TYPEDEF, "entity_t", entity)
    types.structure("task_struct", ("se", alias, 8 * 192))
    assert Btf(types.blob()).offset("task_struct", "se", "sum_exec_runtime") == 232


def test_a_missing_structure_or_field_is_named() -> None:
    types = Types()
    types.structure("task_struct", ("pid", types.integer(), 0))
    btf = Btf(types.blob())
    with pytest.raises(BtfError, match="struct css_set"):
        btf.offset("css_set", "dfl_cgrp")
    with pytest.raises(BtfError, match=r"no se\.sum_exec_runtime"):
        btf.offset("task_struct", "se", "sum_exec_runtime")


def test_a_constant_of_an_enumeration_has_its_value() -> None:
    types = Types()
    words = (types.name("cpu_cgrp_id"), 1, types.name("memory_cgrp_id"), 4)
    types.add(ENUM, "cgroup_subsys_id", 4, *words, length=2)
    btf = Btf(types.blob())
    assert btf.enum_value("cgroup_subsys_id", "memory_cgrp_id") == 4
    assert btf.enum_value("cgroup_subsys_id", "io_cgrp_id") is None
    assert btf.enum_value("nothing", "memory_cgrp_id") is None


@pytest.mark.parametrize(("pointer", "form"), [(True, [True]), (False, [False])])
def test_a_tracepoint_tells_what_it_hands_over(pointer: bool, form: list[bool]) -> None:
    types = Types()
    number = types.integer()
    argument = types.add(PTR, "", types.structure("task_struct")) if pointer else number
    anything = types.add(PTR, "", 0)
    prototype = types.add(PROTO, "", 0, 0, anything, 0, argument, length=2)
    types.add(TYPEDEF, "btf_trace_mark_victim", types.add(PTR, "", prototype))
    btf = Btf(types.blob())
    assert btf.tracepoint_arguments("mark_victim") == form
    assert btf.tracepoint_arguments("sched_process_fork") is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x9f\xeb\x01",
        b"\0" * 64,
        struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, 400, 400, 10),
        struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, 12, 12, 1)
        + struct.pack("=III", 0, 31 << 24, 0)
        + b"\0",
    ],
    ids=["empty", "cut", "no BTF", "shorter than it says", "unknown kind"],
)
def test_what_is_not_type_information_is_refused_in_a_sentence(data: bytes) -> None:
    with pytest.raises(BtfError, match=r"^The kernel's type information .*\.$"):
        Btf(data)


def test_a_kernel_without_type_information_says_what_to_boot(tmp_path: Path) -> None:
    with pytest.raises(BtfError) as caught:
        Btf.of_kernel(tmp_path / "vmlinux")
    assert "CONFIG_DEBUG_INFO_BTF" in caught.value.hint


@pytest.mark.skipif(not BTF_PATH.exists(), reason="needs a kernel with BTF")
def test_this_machines_kernel_has_every_field_that_the_programs_read() -> None:
    options = macros(Btf.of_kernel(), Hierarchy.DEFAULT)
    values = dict(option.removeprefix("-D").split("=") for option in options)
    assert int(values["TASK_TGID"]) == int(values["TASK_PID"]) + 4
    assert values["HIERARCHY_ID"] == "0"
    assert "V1_SUBSYS" not in values


@pytest.mark.skipif(not BTF_PATH.exists(), reason="needs a kernel with BTF")
def test_on_v1_the_programs_get_the_memory_controllers_place_and_hierarchy(tmp_path: Path) -> None:
    table = tmp_path / "cgroups"
    table.write_text(
        "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t3\t1\nmemory\t7\t28\t1\n",
        encoding="ascii",
    )
    options = macros(Btf.of_kernel(), Hierarchy.MEMORY_V1, cgroups=table)
    assert "-DHIERARCHY_ID=7" in options
    assert any(option.startswith("-DV1_SUBSYS=") for option in options)


@pytest.mark.skipif(not BTF_PATH.exists(), reason="needs a kernel with BTF")
def test_a_memory_controller_of_the_default_hierarchy_has_no_v1_id(tmp_path: Path) -> None:
    table = tmp_path / "cgroups"
    table.write_text("memory\t0\t28\t1\n", encoding="ascii")
    with pytest.raises(BtfError, match="no v1 hierarchy"):
        macros(Btf.of_kernel(), Hierarchy.MEMORY_V1, cgroups=table)
