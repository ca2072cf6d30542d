"""Guests with another kernel: each is a suite's guest in all else, and has an image of its own."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.lab import images, kernels
from tests.lab.bootstrap import base_key
from tests.lab.errors import LabError
from tests.lab.guests import GUESTS, Guest, Kernel, find_guest

OTHERS = [guest for guest in GUESTS.values() if guest.kernel is not None]


def test_the_oldest_kernel_real_time_and_the_newest_backport_are_guests_but_not_in_ci() -> None:
    assert {(guest.suite, guest.linux) for guest in OTHERS} == {
        *(("bookworm", "5.10"), ("bookworm", "6.1"), ("trixie", "6.12"), ("trixie", "7.3"))
    }
    assert not [guest.name for guest in OTHERS if guest.in_ci]


@pytest.mark.parametrize("guest", OTHERS, ids=lambda guest: guest.name)
def test_it_shares_its_suites_tree_and_nothing_of_its_image(guest: Guest) -> None:
    like = kernels.suite_guest(guest)
    assert like.kernel is None
    assert base_key(like) == base_key(guest)
    assert kernels.image_key(like) != kernels.image_key(guest)


def test_two_kernels_of_one_suite_have_two_images() -> None:
    keys = {images.image_key(guest) for guest in GUESTS.values() if guest.suite == "trixie"}
    assert len(keys) == len([guest for guest in GUESTS.values() if guest.suite == "trixie"])


@pytest.mark.parametrize(
    "wrong",
    [{"like": ""}, {"like": "debian12"}, {"like": "debian13-rt"}, {"extra_packages": ("tree",)}],
    ids=str,
)
def test_a_guest_that_is_more_than_a_kernel_apart_is_refused(wrong: dict[str, str]) -> None:
    guest = replace(find_guest("debian13-rt"), kernel=Kernel(("linux-image",)), **wrong)  # type: ignore[arg-type]
    with pytest.raises(LabError, match="another kernel"):
        kernels.suite_guest(guest)


def test_a_backport_comes_from_where_the_suite_comes_from() -> None:
    sources = "# made by debootstrap\ndeb http://example.org/debian trixie main\n"
    assert kernels.source_line(sources, "trixie", "trixie-backports") == (
        "deb http://example.org/debian trixie-backports main\n"
    )
    with pytest.raises(LabError, match="bookworm"):
        kernels.source_line(sources, "bookworm", "bookworm-backports")


def test_test_sh_runs_the_modules_tests_in_each_of_them() -> None:
    script = (Path(__file__).parents[2] / "bash/test.sh").read_text(encoding="utf-8")
    names = " ".join(guest.name for guest in OTHERS)
    assert f"readonly kernel_guests=({names})" in script


@pytest.mark.allow_subprocess
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["vm"], ["debian12", "debian13"]),
        (["vm", "-g", "sid", "--full"], ["sid"]),
        (["vm", "--full", "-g", "sid", "-g", "debian12"], ["sid", "debian12"]),
        (
            ["--full"],
            ["debian12", "debian13", "sid", *(guest.name for guest in OTHERS), "debian13-arm64"],
        ),
    ],
)
def test_a_guest_that_is_named_is_the_only_one(words: list[str], expected: list[str]) -> None:
    script = 'source bash/test.sh; parse_arguments "$@"; printf "%s\\n" "${guests[@]}"'
    answer = subprocess.run(
        ["bash", "-c", script, "bash", *words],
        cwd=Path(__file__).parents[2],
        check=True,
        capture_output=True,
        text=True,
    )
    assert answer.stdout.split() == expected
