"""The decoder of the modules' text: what they write comes out whole, anything else is refused.

The oracle is the standard library's json, which writes the text that msgspec has to read.
"""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.errors import SourceError
from agent.model.process import Source
from agent.sources import modules

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COUNT = st.integers(0, 2**63 - 1)
PID = st.integers(0, 1 << 22)
NAME = st.text(st.characters(exclude_categories=["Cs"]), max_size=15)

# The contract's field → the attribute that holds it.
PROCESS = {
    "pid": "pid",
    "name": "name",
    "state": "state",
    "rss": "rss_kb",
    "mem_percent": "mem_percent",
    "vsz": "vsz_kb",
    "cpu": "life_cpu_percent",
    "ppid": "ppid",
    "threads": "threads",
    "start_ns": "start_ns",
    "cpu_ns": "cpu_ns",
    "rss_anon": "rss_anon_kb",
    "rss_shmem": "rss_shmem_kb",
    "mm_id": "mm_id",
    "cgroup_id": "cgroup_id",
    "cgroup1_id": "cgroup1_id",
}
CANDIDATE = {
    **{field: PROCESS[field] for field in PROCESS if field not in ("state", "ppid", "threads")},
    "ns_pid": "ns_pid",
    "pid_ns": "pid_ns",
    "uts_ns": "uts_ns",
}
# The percentage is rounded and never used: the only field that another source leaves out.
UNUSED = {"mem_percent"}
MEMORY = ("total_ram", "free_ram", "used_ram", "available_ram")


def entries(fields: dict[str, str]) -> st.SearchStrategy[dict[str, Any]]:
    special = {"name": NAME, "pid": PID}
    return st.fixed_dictionaries({field: special.get(field, COUNT) for field in fields})


SYSINFO = st.fixed_dictionaries(
    {
        **dict.fromkeys((*MEMORY, "snapshot_ns"), COUNT),
        "processes": st.lists(entries(PROCESS), max_size=4),
    }
)
CONTINFO = st.lists(entries(CANDIDATE), max_size=4)


def one_process(**changed: Any) -> dict[str, Any]:
    return {field: "sh" if field == "name" else 1 for field in PROCESS} | changed


def one_sysinfo(*processes: dict[str, Any], **changed: Any) -> dict[str, Any]:
    return {**dict.fromkeys((*MEMORY, "snapshot_ns"), 1), "processes": list(processes)} | changed


def one_candidate(**changed: Any) -> dict[str, Any]:
    return {field: "sh" if field == "name" else 1 for field in CANDIDATE} | changed


class Clock:
    def wall_ns(self) -> int:
        return 1

    def boot_ns(self) -> int:
        return 42


@given(SYSINFO, st.booleans())
def test_what_sysinfo_writes_comes_out_whole(value: dict[str, Any], ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).encode()
    memory, snapshot_ns, processes = modules.decode_sysinfo(text)
    assert [memory.total_kb, memory.free_kb, memory.used_kb, memory.available_kb] == [
        value[field] for field in MEMORY
    ]
    assert snapshot_ns == value["snapshot_ns"]
    assert [
        {field: getattr(process, attribute) for field, attribute in PROCESS.items()}
        for process in processes
    ] == value["processes"]


@given(CONTINFO, st.booleans())
def test_what_continfo_writes_comes_out_whole(value: list[Any], ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert [
        {field: getattr(candidate, attribute) for field, attribute in CANDIDATE.items()}
        for candidate in modules.decode_continfo(text)
    ] == value


@given(st.binary())
@example(b"")
@example(b"\xff\xfe")
@example(b"null")
@example(b"[" * 100_000)
@example(b'{"processes":' * 100_000)
@example(b'{"total_ram":' + b"9" * 5000 + b"}")
def test_arbitrary_bytes_are_refused_as_what_they_are(data: bytes) -> None:
    for decode in (modules.decode_sysinfo, modules.decode_continfo):
        check_refused_or(decode, data)


def check_refused_or(decode: Callable[[bytes], object], data: bytes) -> None:
    try:
        decode(data)
    except SourceError as error:
        assert error.message
        assert error.hint
    else:
        # The names of fields that nobody uses are skipped, not looked at.
        json.loads(data.decode(errors="replace"), strict=False)


@given(SYSINFO.map(json.dumps), st.data())
def test_a_text_that_is_cut_or_changed_is_refused_or_still_json(text: str, data: Any) -> None:
    whole = text.encode()
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with pytest.raises(SourceError):
        modules.decode_sysinfo(cut)
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = whole[:at] + data.draw(st.binary(max_size=3)) + whole[at + 1 :]
    check_refused_or(modules.decode_sysinfo, changed)


@pytest.mark.parametrize("field", [*MEMORY, "snapshot_ns", "processes"])
def test_a_sysinfo_without_a_field_is_refused(field: str) -> None:
    value = one_sysinfo(one_process())
    del value[field]
    with pytest.raises(SourceError):
        modules.decode_sysinfo(json.dumps(value).encode())


@pytest.mark.parametrize("field", sorted(PROCESS.keys() - UNUSED))
def test_a_process_without_a_field_is_refused(field: str) -> None:
    process = one_process()
    del process[field]
    with pytest.raises(SourceError):
        modules.decode_sysinfo(json.dumps(one_sysinfo(process)).encode())


@pytest.mark.parametrize("field", sorted(CANDIDATE.keys() - UNUSED))
def test_a_candidate_without_a_field_is_refused(field: str) -> None:
    candidate = one_candidate()
    del candidate[field]
    with pytest.raises(SourceError):
        modules.decode_continfo(json.dumps([candidate]).encode())


@pytest.mark.parametrize(
    "bad", [-1, 1.5, "1", None, True, [1], 2**63, 10**400], ids=lambda bad: str(bad)[:9]
)
@pytest.mark.parametrize("field", ["pid", "rss", "cpu", "cpu_ns", "cgroup_id"])
def test_a_figure_that_is_no_count_is_refused(field: str, bad: object) -> None:
    with pytest.raises(SourceError):
        modules.decode_sysinfo(json.dumps(one_sysinfo(one_process(**{field: bad}))).encode())
    with pytest.raises(SourceError):
        modules.decode_continfo(json.dumps([one_candidate(**{field: bad})]).encode())


BAD_FIGURES = [-1, 1.5, "1", None, True, [1], 2**63, 10**400]


@pytest.mark.parametrize("bad", BAD_FIGURES, ids=lambda bad: str(bad)[:9])
@pytest.mark.parametrize("field", ["rss", "cpu", "cpu_ns", "vsz", "mm_id"])
def test_an_odd_figure_of_one_entry_counts_as_0_and_hides_no_other(
    files: tuple[Path, Path], field: str, bad: object
) -> None:
    sysinfo, continfo = files
    odd, whole = one_process(pid=8, **{field: bad}), one_process(pid=9)
    sysinfo.write_text(json.dumps(one_sysinfo(odd, whole)))
    continfo.write_text(json.dumps([one_candidate(pid=8, **{field: bad}), one_candidate(pid=9)]))
    snapshot = modules.read(sysinfo, continfo, Clock())
    assert [one.pid for one in snapshot.processes] == [8, 9]
    assert [one.pid for one in snapshot.candidates] == [8, 9]
    assert [getattr(one, PROCESS[field]) for one in snapshot.processes] == [0, whole[field]]
    assert snapshot.odd == 2


@pytest.mark.parametrize("bad", BAD_FIGURES, ids=lambda bad: str(bad)[:9])
@pytest.mark.parametrize("field", ["pid", "start_ns", "cgroup_id"])
def test_an_entry_that_is_no_process_for_sure_is_left_out_and_counted(
    files: tuple[Path, Path], field: str, bad: object
) -> None:
    sysinfo, continfo = files
    sysinfo.write_text(json.dumps(one_sysinfo(one_process(**{field: bad}), one_process(pid=9))))
    snapshot = modules.read(sysinfo, continfo, Clock())
    assert [one.pid for one in snapshot.processes] == [9]
    assert snapshot.odd == 1


def test_a_name_that_is_no_text_is_replaced(files: tuple[Path, Path]) -> None:
    text = json.dumps(one_sysinfo(one_process(pid=8, name="NAME"), one_process(pid=9))).encode()
    files[0].write_bytes(text.replace(b"NAME", b"\x7f\xff"))
    snapshot = modules.read(*files, Clock())
    assert [one.name for one in snapshot.processes] == ["?", one_process()["name"]]


def test_a_field_of_a_later_module_is_no_reason_to_refuse() -> None:
    text = json.dumps(one_sysinfo(one_process(later=1), later=2)).encode()
    assert len(modules.decode_sysinfo(text)[2]) == 1


@pytest.mark.parametrize("raw", [b"\x01", b"\n", b"\x7f\xff", b"\\x41", b"\\v", b"\xc3"])
def test_a_name_that_is_not_escaped_as_json_has_it_is_refused(raw: bytes) -> None:
    text = json.dumps(one_sysinfo(one_process(name="NAME"))).encode().replace(b"NAME", raw)
    with pytest.raises(SourceError):
        modules.decode_sysinfo(text)


def test_names_that_look_like_json_stay_names() -> None:
    hostile = ['"},{"pid":1,"n', "a\\", "\\u0000", "��", "\t\n\x01\x7f", "'; DROP TAB"]
    text = json.dumps(one_sysinfo(*(one_process(name=name) for name in hostile))).encode()
    assert [one.name for one in modules.decode_sysinfo(text)[2]] == hostile


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    sysinfo, continfo = tmp_path / "sysinfo", tmp_path / "continfo"
    sysinfo.write_text(json.dumps(one_sysinfo(one_process(), snapshot_ns=7)))
    continfo.write_text(json.dumps([one_candidate()]))
    return sysinfo, continfo


def test_both_files_make_one_snapshot(files: tuple[Path, Path]) -> None:
    snapshot = modules.read(*files, Clock())
    assert snapshot.source is Source.MODULES
    assert (snapshot.snapshot_ns, snapshot.candidates_ns) == (7, 42)
    assert (len(snapshot.processes), len(snapshot.candidates)) == (1, 1)


@pytest.mark.parametrize("which", [0, 1])
def test_a_file_that_is_absent_is_named(files: tuple[Path, Path], which: int) -> None:
    files[which].unlink()
    with pytest.raises(SourceError) as caught:
        modules.read(*files, Clock())
    assert str(files[which]) in caught.value.message


def test_a_directory_in_a_file_s_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        modules.read(tmp_path, tmp_path, Clock())


class Opener:
    """Opens as the system does, after `failures` errors of one kind."""

    def __init__(self, number: int, failures: int) -> None:
        self.number = number
        self.left = failures
        self.calls = 0
        self.real = os.open

    def __call__(self, *arguments: Any) -> int:
        self.calls += 1
        if self.left:
            self.left -= 1
            raise OSError(self.number, os.strerror(self.number))
        return self.real(*arguments)


@pytest.mark.parametrize("number", [errno.EIO, errno.EBUSY])
def test_a_module_that_went_or_is_busy_is_opened_again(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    opener = Opener(number, 2)
    monkeypatch.setattr(os, "open", opener)
    assert modules.read(*files, Clock()).snapshot_ns == 7


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What was waited for between tries, in seconds, without waiting."""
    taken: list[float] = []
    monkeypatch.setattr("time.sleep", taken.append)
    return taken


def test_a_busy_file_is_tried_again_after_longer_and_longer_pauses_within_a_second(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    opener = Opener(errno.EBUSY, 99)
    monkeypatch.setattr(os, "open", opener)
    with pytest.raises(SourceError):
        modules.read(*files, Clock())
    assert opener.calls == len(pauses) + 1 >= 3
    assert all(pauses)
    assert pauses == sorted(set(pauses))
    assert sum(pauses) < 1


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOMEM])
def test_what_is_forbidden_or_has_no_memory_is_given_up_at_once(
    files: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    pauses: list[float],
    number: int,
) -> None:
    opener = Opener(number, 99)
    monkeypatch.setattr(os, "open", opener)
    with pytest.raises(SourceError) as caught:
        modules.read(*files, Clock())
    assert os.strerror(number) in caught.value.message
    assert (opener.calls, pauses) == (1, [])


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EBUSY, "fuser -v"),
        (errno.EACCES, "as root"),
        (errno.EIO, "load_modules.sh"),
        (errno.ENOENT, "load_modules.sh"),
    ],
)
def test_the_remedy_is_one_that_can_help(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, number: int, remedy: str
) -> None:
    monkeypatch.setattr(os, "open", Opener(number, 99))
    with pytest.raises(SourceError) as caught:
        modules.read(*files, Clock())
    assert os.strerror(number) in caught.value.message
    assert remedy in (caught.value.hint or "")


def test_a_text_without_end_is_given_up(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modules, "_MAX_BYTES", 10)
    with pytest.raises(SourceError) as caught:
        modules.read(*files, Clock())
    assert "larger" in caught.value.message


def test_no_descriptor_stays_open_whatever_happens(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(modules, "_MAX_BYTES", 10)
    with pytest.raises(SourceError):
        modules.read(*files, Clock())
    assert sorted(os.listdir("/proc/self/fd")) == before
