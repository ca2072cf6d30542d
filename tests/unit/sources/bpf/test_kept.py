"""What is kept of a compile: used when everything is the same to the byte, refused otherwise."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.sources.bpf import kept
from agent.sources.bpf.kept import KeptError
from agent.sources.bpf.programs import Compiled, MapSpec, Order, Program

if TYPE_CHECKING:
    from collections.abc import Callable

ORDER = Order("witness", "default")
HERE = {"kernel": "6.1.0-50", "machine": "x86_64", "BCC": "0.26"}
COMPILED = Compiled(
    maps=(MapSpec("counters", 6, 4, 48, 1, 0),),
    programs=(Program("on_fork", "sched_process_fork", 77, bytes(range(16)), ((0, 0),)),),
    bcc="0.26",
    headers="own",
    compile_ms=270,
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """One that others cannot write to, with a compile kept in it."""
    place = tmp_path / "state" / "bpf"
    kept.write(place, ORDER, HERE, COMPILED)
    return place


def test_what_was_kept_is_what_is_read(directory: Path) -> None:
    assert kept.read(directory, ORDER, HERE) == COMPILED
    assert (directory.stat().st_mode & 0o777, len(list(directory.iterdir()))) == (0o700, 1)


def test_nothing_kept_is_no_error(tmp_path: Path) -> None:
    assert kept.read(tmp_path / "none", ORDER, HERE) is None
    kept.write(tmp_path / "state", ORDER, HERE, COMPILED)
    assert kept.read(tmp_path / "state", Order("trace", "default"), HERE) is None


@pytest.mark.parametrize("part", HERE)
def test_what_was_made_for_another_kernel_is_refused_and_the_difference_named(
    directory: Path, part: str
) -> None:
    with pytest.raises(KeptError, match=f"made for other {part}"):
        kept.read(directory, ORDER, {**HERE, part: "another"})
    with pytest.raises(KeptError, match="made for other hierarchy"):
        kept.read(directory, ORDER, {**HERE, "hierarchy": "memory 4"})


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def _change(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)


def _lengthen(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0")


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _open_to_all(file: Path) -> None:
    file.chmod(0o666)


def _open_directory(file: Path) -> None:
    file.parent.chmod(0o770)


def _open_parent(file: Path) -> None:
    file.parent.parent.chmod(0o777)


def _link(file: Path) -> None:
    target = file.with_name("target")
    file.rename(target)
    file.symlink_to(target)


def _second_name(file: Path) -> None:
    file.with_name("second").hardlink_to(file)


def _pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file, 0o600)


def _fill(file: Path) -> None:
    os.truncate(file, 1 << 40)


@pytest.mark.parametrize(
    "harm",
    [
        *(_cut, _change, _lengthen, _empty, _open_to_all, _open_directory, _open_parent),
        *(_link, _second_name, _pipe, _fill),
    ],
)
def test_a_file_that_is_cut_changed_or_anothers_is_refused(
    directory: Path, harm: Callable[[Path], None]
) -> None:
    harm(directory / kept.file_name(ORDER))
    with pytest.raises(KeptError):
        kept.read(directory, ORDER, HERE)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
@pytest.mark.parametrize("what", ["file", "directory"])
def test_what_belongs_to_another_user_is_refused(directory: Path, what: str) -> None:
    os.chown(directory / kept.file_name(ORDER) if what == "file" else directory, 65534, 65534)
    with pytest.raises(KeptError, match="others than root"):
        kept.read(directory, ORDER, HERE)


def test_a_directory_open_to_others_is_not_written_to(tmp_path: Path) -> None:
    place = tmp_path / "bpf"
    place.mkdir()
    place.chmod(0o777)
    with pytest.raises(KeptError, match="others than root"):
        kept.write(place, ORDER, HERE, COMPILED)
    assert not list(place.iterdir())


def test_a_new_compile_replaces_the_old_one_whole(directory: Path) -> None:
    newer = Compiled(bcc="0.31")
    kept.write(directory, ORDER, {**HERE, "BCC": "0.31"}, newer)
    assert kept.read(directory, ORDER, {**HERE, "BCC": "0.31"}) == newer
    assert len(list(directory.iterdir())) == 1


def test_everything_that_decides_a_compile_is_in_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    btf = tmp_path / "btf"
    btf.write_bytes(b"types")
    sources = tmp_path / "bpf"
    (sources / "headers").mkdir(parents=True)
    (sources / "headers" / "types.h").write_text("one")
    monkeypatch.setattr(kept, "SOURCES", sources)
    first = kept.made_for(ORDER, btf)
    assert {"kernel", "kernel's build id", "machine", "hierarchy", "BCC"} <= first.keys()
    btf.write_bytes(b"other")
    (sources / "headers" / "types.h").write_text("two")
    second = kept.made_for(ORDER, btf)
    assert [part for part in first if first[part] != second[part]] == [
        "kernel's type information",
        "sources",
    ]
