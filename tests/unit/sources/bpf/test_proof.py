"""The proof after a start: what the probes know against what `/proc` shows."""

from __future__ import annotations

import os
from pathlib import Path

from agent.sources.bpf import proof


def test_a_reading_has_this_process_with_its_start() -> None:
    start = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    assert proof.processes()[os.getpid()] == start


def test_probes_that_know_all_or_all_but_a_sandboxs_first_will_do() -> None:
    shown = {pid: pid * 10 for pid in range(1, 50)}
    known = {pid: {start} for pid, start in shown.items()}
    assert proof.problem(shown, known, shown) == ""
    del known[1]
    assert proof.problem(shown, known, shown) == ""


def test_probes_of_another_kernel_that_know_none_or_two_will_not() -> None:
    shown = {pid: pid * 10 for pid in range(1, 50)}
    assert proof.problem(shown, {}, shown) == "0 of 49 are known to them"
    assert proof.problem(shown, {1: {10}, 2: {20}}, shown) == "2 of 49 are known to them"
    assert proof.problem({7: 70, 8: 80}, {}, {7: 70, 8: 80}) != ""


def test_the_right_pids_with_other_starts_will_not_do() -> None:
    shown = {pid: pid * 10 for pid in range(1, 50)}
    wrong = {pid: {start + 1} for pid, start in shown.items()}
    assert proof.problem(shown, wrong, shown) == "0 of 49 are known to them"


def test_who_came_or_went_or_was_replaced_meanwhile_counts_for_nothing() -> None:
    before = {1: 10, 2: 20, 3: 30, 4: 40, 5: 50}
    after = {1: 10, 2: 20, 3: 31, 9: 90}
    assert proof.problem(before, {1: {10}, 2: {20}}, after) == ""
