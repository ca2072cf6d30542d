"""A program that the kernel refuses ends the load, but for one that the others can do without."""

from __future__ import annotations

import os

import pytest

from agent.sources.bpf import loader
from agent.sources.bpf.programs import WITNESS, Compiled, MapSpec, Order, Program

COMPILED = Compiled(
    maps=tuple(MapSpec(name, 1, key, value, 1, 0) for name, (key, value) in WITNESS.maps.items()),
    programs=tuple(Program(one.function, one.tracepoint, 7, b"", ()) for one in WITNESS.probes),
)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The functions that this kernel refuses; everything else is a descriptor of nothing."""
    names: set[str] = set()

    def load(program: Program, maps: list[int]) -> int:
        if program.function in names:
            raise loader.LoadError(f"refuses {program.function}")
        return os.open("/dev/null", os.O_RDONLY)

    def nothing(*_: object, **__: object) -> int:
        return os.open("/dev/null", os.O_RDONLY)

    monkeypatch.setattr(loader, "_load", load)
    monkeypatch.setattr(loader, "_attach", nothing)
    monkeypatch.setattr(loader, "create_map", nothing)
    monkeypatch.setattr("agent.sources.bpf.syscall.Map.update", lambda *_: None)
    return names


def test_without_the_probe_of_oom_kills_the_witness_is_there(
    refused: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    refused.add("on_oom")
    probes = loader.load(COMPILED, Order("witness", "default"), kept=True)

    assert probes.programs.keys() == {one.function for one in WITNESS.probes} - {"on_oom"}
    assert "bpf=partial without on_oom" in caplog.text
    probes.close()


def test_without_another_there_is_none(refused: set[str]) -> None:
    before = set(os.listdir("/proc/self/fd"))
    refused.add("on_fork")
    with pytest.raises(loader.LoadError, match="on_fork"):
        loader.load(COMPILED, Order("witness", "default"), kept=True)
    assert set(os.listdir("/proc/self/fd")) == before
