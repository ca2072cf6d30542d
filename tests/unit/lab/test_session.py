"""What goes into a guest and what a run's end means, without booting one."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from tests.lab import session
from tests.lab.__main__ import main, parse, pytest_command, request_of
from tests.lab.errors import KernelComplaintError, LabError, LostGuestError
from tests.lab.guests import GUESTS, find_guest
from tests.lab.report import counts, read_report, summary_lines
from tests.lab.session import Outcome, Request, boot_again_if_the_emulator_failed, verdict
from tests.lab.vm import Machine

JUNIT = """<?xml version="1.0"?><testsuites><testsuite>
<testcase classname="tests.vm.test_a" name="test_x[a b]" time="1.5"/>
<testcase classname="tests.vm.test_a" name="test_y" time="0">
<skipped message="needs podman"/></testcase>
<testcase classname="tests.vm.test_a" name="test_z" time="0">
<failure message="assert 1 == 2&#10;more">x</failure></testcase>
<testcase classname="tests.vm.test_a" name="test_w" time="0">
<error message="setup"/></testcase>
</testsuite></testsuites>
"""
STALE_INT3 = "[    2.85] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI\n"


def test_a_command_keeps_its_words_whatever_they_contain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "checkout_files", list)
    words = ("bash", "-c", "echo 'a b' \"$0\"\n", "", "ñ;rm")
    session.fill_share(tmp_path, Request(find_guest("debian12"), words, Machine()), None)
    assert (tmp_path / "command").read_bytes().decode().split("\0") == [*words, ""]


def test_a_setting_from_outside_stays_one_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "checkout_files", list)
    request = Request(find_guest("debian12"), ("true",), Machine(), docker_opt="x'; reboot; '")
    session.fill_share(tmp_path, request, None)
    settings = (tmp_path / "settings").read_text()
    assert "LAB_DOCKER_OPT='x'\"'\"'; reboot; '\"'\"''\n" in settings


def test_the_checkout_in_the_guest_is_roots_and_has_no_directory_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "checkout_files", lambda: ["tests/__init__.py", "gone.py"])
    session.pack_checkout(tmp_path / "checkout.tar")
    with tarfile.open(tmp_path / "checkout.tar") as archive:
        (member,) = archive.getmembers()
    assert (member.name, member.uid, member.uname) == ("tests/__init__.py", 0, "root")


def test_modules_built_outside_lie_where_the_guest_looks_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "checkout_files", list)
    built = tmp_path / "modules-1"
    (built / "6.1/abc").mkdir(parents=True)
    (built / "6.1/abc/sysinfo.ko").write_text("")
    (built / "build.log").write_text("")
    share = tmp_path / "share"
    share.mkdir()
    session.fill_share(share, Request(find_guest("debian12"), ("true",), Machine()), built)
    files = {path.relative_to(share / "build") for path in (share / "build").rglob("*.*")}
    assert Path("6.1/abc/sysinfo.ko") in files
    assert Path("build.log") not in files


def test_results_of_an_earlier_run_are_not_taken_for_this_ones(tmp_path: Path) -> None:
    (tmp_path / "junit.xml").write_text("old")
    (tmp_path / "mine.txt").write_text("kept")
    request = Request(find_guest("debian12"), ("true",), Machine(), results=tmp_path)
    assert session.results_directory(request) == tmp_path
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_command_that_passed_while_the_kernel_complained_did_not_pass(tmp_path: Path) -> None:
    guest = find_guest("debian12")
    with pytest.raises(KernelComplaintError, match="soft lockup"):
        verdict(Outcome(0, ("soft lockup",), tmp_path), guest)
    assert verdict(Outcome(0, (), tmp_path), guest) == 0
    assert verdict(Outcome(3, ("soft lockup",), tmp_path), guest) == 3


def test_a_complaint_on_the_console_alone_is_found(tmp_path: Path) -> None:
    (tmp_path / "console.log").write_text("[ 1.0] Kernel panic - not syncing: x\n")
    assert session.read_complaints(tmp_path, ()) == ["Kernel panic - not syncing: x"]


def test_a_guest_lost_to_the_emulators_fault_is_booted_again(tmp_path: Path) -> None:
    attempts: list[int] = []

    def attempt() -> int:
        attempts.append(1)
        if len(attempts) == 1:
            (tmp_path / "console.log").write_text(STALE_INT3)
            raise LostGuestError("went away")
        return 5

    assert boot_again_if_the_emulator_failed(attempt, tmp_path, "debian13") == 5
    assert (tmp_path / "console.log.1").read_text() == STALE_INT3


@pytest.mark.parametrize("console", ["[ 9.0] BUG: KASAN: x\n" + STALE_INT3, "[ 9.0] fine\n", None])
def test_any_other_lost_guest_is_lost_at_once(tmp_path: Path, console: str | None) -> None:
    attempts: list[int] = []

    def attempt() -> int:
        attempts.append(1)
        if console is not None:
            (tmp_path / "console.log").write_text(console)
        raise LostGuestError("went away")

    with pytest.raises(LostGuestError):
        boot_again_if_the_emulator_failed(attempt, tmp_path, "debian13")
    assert len(attempts) == 1


def test_the_emulators_fault_three_times_over_is_a_lost_guest(tmp_path: Path) -> None:
    def attempt() -> int:
        (tmp_path / "console.log").write_text(STALE_INT3)
        raise LostGuestError("went away")

    with pytest.raises(LostGuestError):
        boot_again_if_the_emulator_failed(attempt, tmp_path, "debian13")
    assert (tmp_path / "console.log.2").exists()


def test_a_report_tells_each_outcome_and_why_a_test_was_skipped(tmp_path: Path) -> None:
    (tmp_path / "junit.xml").write_text(JUNIT)
    cases = read_report(tmp_path / "junit.xml")
    assert counts(cases) == {"passed": 1, "failed": 2, "skipped": 1}
    assert summary_lines(cases) == [
        "1 passed, 2 failed, 1 skipped",
        "failed: tests.vm.test_a::test_z: assert 1 == 2",
        "failed: tests.vm.test_a::test_w: setup",
        "skipped: tests.vm.test_a::test_y: needs podman",
    ]


def test_half_a_report_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "junit.xml").write_text(JUNIT[:200])
    with pytest.raises(LabError, match="no report"):
        read_report(tmp_path / "junit.xml")


def test_paths_of_pytest_may_stand_after_its_options() -> None:
    options = parse(
        ["pytest", "debian13", "-k", "a or b", "tests/vm/test_a.py", "--memory", "6144"]
    )
    command = pytest_command(options, ["-x"])
    assert command[-2:] == ["-x", "tests/vm/test_a.py"]
    assert command[command.index("-k") + 1] == "a or b"
    assert request_of(options, command).machine.memory_mb == 6144


@pytest.mark.parametrize("words", [["run", "debian12", "--no-such"], ["run", "debian12", "more"]])
def test_an_unknown_option_is_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit):
        parse(words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "debian12"], "no command"),
        (["run", "debian11", "--", "true"], "no guest is called"),
        (["run", "debian12", "--share", "/nowhere:x", "--", "true"], "--share"),
    ],
)
def test_a_wrong_request_is_one_clear_sentence(words: list[str], message: str) -> None:
    with pytest.raises(LabError, match=message):
        main(words)


def test_ci_covers_debian_12_and_13() -> None:
    assert [guest.name for guest in GUESTS.values() if guest.in_ci] == ["debian12", "debian13"]
