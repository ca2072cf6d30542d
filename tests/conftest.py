"""What all layers share: which tests are left out by default, and how hypothesis runs.

Left-out tests are deselected, not skipped: a skip always means that something is missing.
"""

from __future__ import annotations

import os

import hypothesis
import pytest

# Their assertions run in the layers' test files, and have to say what they compared there.
pytest.register_assert_rewrite(
    *("tests.attribution_support", "tests.attribution_table", "tests.attribution_processes"),
    *("tests.attribution_moves", "tests.bpf_history_cases"),
    *(
        "tests.bpf_agent_cases",
        "tests.bpf_trace_support",
        "tests.bpf_cases",
        "tests.bpf_command_cases",
        "tests.kill_cases",
        "tests.leftover_cases",
    ),
)

# Machines differ in speed, so no example has a deadline; CI draws the same examples every time.
hypothesis.settings.register_profile("default", deadline=None, database=None)
hypothesis.settings.register_profile("ci", deadline=None, database=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") == "true" else "default")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run what is marked `full` too")
    parser.addoption(
        "--kernel-only",
        action="store_true",
        help="leave out what is marked `any_kernel`: another guest runs it",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--full") or "full" in config.getoption("-m"):
        return
    marks = ["full", *(("any_kernel",) if config.getoption("--kernel-only") else ())]
    left_out = [item for item in items if any(map(item.get_closest_marker, marks))]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not any(map(item.get_closest_marker, marks))]
