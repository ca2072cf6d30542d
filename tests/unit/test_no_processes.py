"""A unit test cannot start a process, however it goes about it and whatever catches the error."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

ATTEMPTS = [
    "import subprocess; subprocess.run(['true'])",
    "import subprocess; subprocess.Popen('true', shell=True)",
    "import os; os.system('true')",
    "import os; os.popen('true')",
    "import os; os.posix_spawn('/bin/true', ['true'], {})",
    "import os; os.fork()",
]


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_a_process_start_raises_what_no_handler_swallows(
    attempt: str, no_processes: list[str]
) -> None:
    with pytest.raises(BaseException) as caught:
        try:
            exec(attempt, {})
        except Exception:  # noqa: BLE001
            pytest.fail("an ordinary handler caught it")
    assert len(no_processes) == 1, "the fixture would not have failed this test"
    no_processes.clear()
    assert not isinstance(caught.value, Exception)
    assert type(caught.value).__name__ == "ProcessStartedError"


@pytest.mark.allow_subprocess
def test_a_test_that_is_marked_may_start_one() -> None:
    done = subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True, check=True)
    assert done.stdout == b"1\n"
    assert os.system("true") == 0
