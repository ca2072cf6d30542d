"""A process may call itself anything: the text stays JSON, and each name is right."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from tests.vm import modules_support as host
from tests.vm.modules_support import scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.usefixtures("modules")

HOSTILE = [
    b'"},{"pid":1,',
    b'"},{"pid":1,"na',
    b'\\"},{"pid":1,"n',
    b"\\",
    b"\\\\\\",
    b'"',
    b'""""""""""""""",',
    b"\\u0041",
    b"\\x41",
    b"]}",
    b"a\nb\tc\rd\be\ff",
    b"\x0b\x0b\x0b",
    b"\x7f\x7f",
    b"\x1b[2J\x1b[31mred",
    b"%s%n%d%p%x",
    b" ",
    b"",
    b"//..//..//",
    b"<script>&amp;",
    # Whole characters of two, three and four bytes, and each cut where 15 bytes end.
    "ñandú-áéíóú".encode(),
    "日本語日本".encode(),
    "日本語日本語".encode()[:14],
    "a日本語日本語".encode()[:15],
    "😀😀😀".encode(),
    b"abc" + "😀😀😀".encode()[:12],
    b"abcd" + "😀😀😀".encode()[:11],
    b"abcde" + "😀😀😀".encode()[:10],
    b"abcdef" + "😀😀😀".encode()[:9],
    # Overlong forms, surrogates, what lies beyond Unicode, and bytes that never occur.
    b"\xc0\x80",
    b"\xc1\xbf",
    b"\xe0\x80\x80",
    b"\xe0\x9f\xbf",
    b"\xed\xa0\x80\xed\xb0\x80",
    b"\xed\x9f\xbf",
    b"\xf0\x80\x80\x80",
    b"\xf0\x8f\xbf\xbf",
    b"\xf4\x90\x80\x80",
    b"\xf4\x8f\xbf\xbf",
    b"\xf5\xfe\xff",
    b"\xe2\x82",
    b"\xe2\x82a\xe2a\xe2",
    b"\xf0\x9f\x98",
    b"\xf0\x9f\x98\xf0\x9f\x98a",
    b"\x80\xbf\x80",
    b"\xe2\x80\xa8\xe2\x80\xa9",
    b"\xef\xbb\xbfbom",
    b"\xff" * 15,
    b"\x01" * 15,
]
SINGLE = [bytes([byte]) for byte in range(1, 256)]
INSIDE = [b"<" + bytes([byte]) + b">" for byte in range(1, 256)]


def by_json(path: Path) -> dict[int, str]:
    return names(json.loads(path.read_bytes()))


def by_msgspec(path: Path) -> dict[int, str]:
    return names(msgspec.json.decode(path.read_bytes()))


def by_jq(path: Path) -> dict[int, str]:
    query = '[(if type == "object" then .processes else . end)[] | {pid, name}]'
    done = subprocess.run(["jq", query, path], check=True, capture_output=True)
    return names(json.loads(done.stdout))


def names(found: object) -> dict[int, str]:
    rows = found["processes"] if isinstance(found, dict) else found
    assert isinstance(rows, list)
    return {row["pid"]: row["name"] for row in rows}


@pytest.fixture(scope="module")
def named() -> Iterator[dict[int, bytes]]:
    """A process of each name, in a namespace of its own: the name by its PID."""
    wanted = [*HOSTILE, *SINGLE, *INSIDE]
    with scene("named", *(name.hex() for name in wanted), prefix=("unshare", "--uts")) as standing:
        # The kernel keeps 15 bytes.
        yield {pid: name[:15] for pid, name in zip(standing.pids, wanted, strict=True)}


def test_the_kernel_has_the_names_that_were_asked_for(named: dict[int, bytes]) -> None:
    assert {pid: Path(f"/proc/{pid}/comm").read_bytes()[:-1] for pid in named} == named


@pytest.mark.parametrize("decode", [by_json, by_msgspec, by_jq])
@pytest.mark.parametrize("path", [host.SYSINFO, host.CONTINFO], ids=["sysinfo", "continfo"])
def test_every_name_that_a_process_can_have_is_decoded_right(
    named: dict[int, bytes], decode: Callable[[Path], dict[int, str]], path: Path
) -> None:
    found = decode(path)
    # Python's replacement of what is no UTF-8 is the one that Unicode recommends.
    wrong = {
        name: found.get(pid)
        for pid, name in named.items()
        if found.get(pid) != name.decode(errors="replace")
    }
    assert not wrong
