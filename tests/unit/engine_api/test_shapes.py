"""Several threads take the first of Docker's answers at once, and the process lives on."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.allow_subprocess

# A fresh module has classes that msgspec has not seen; the threads are switched all the time.
_SCRIPT = """
import importlib, sys, threading
import msgspec
sys.setswitchinterval(1e-6)
name, shape = sys.argv[1:]
answer = {
    "Id": "a" * 64, "Created": "2026", "Name": "/x", "Image": "y",
    "State": {"Status": "running", "Running": True, "Pid": 5},
    "Config": {"Image": "x", "Labels": {"a": "b"}},
}
for _ in range(300):
    sys.modules.pop(name, None)
    module = importlib.import_module(name)
    together = threading.Barrier(4)
    def take():
        together.wait()
        msgspec.convert(answer, getattr(module, shape))
    threads = [threading.Thread(target=take) for _ in range(4)]
    for one in threads: one.start()
    for one in threads: one.join()
print("alive")
"""


@pytest.mark.parametrize(("module", "shape"), [("agent.engine_api.schema", "Inspected")])
def test_the_first_answers_of_several_threads_end_nothing(module: str, shape: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, module, shape],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr[-500:]
