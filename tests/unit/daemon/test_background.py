"""What comes up beside the loop and never holds it: BPF, Grafana, cron and the first generation."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from agent.errors import AgentError
from tests.unit.agent_scene import FakeOutside, Host, run, status, stop_after


@pytest.mark.parametrize(
    ("bpf", "word", "problem"),
    [("ready", "ready", ""), ("unreadable", "ready", ""), ("off", "off: No BTF.", "No BTF")],
)
def test_bpf_that_cannot_be_had_is_said_once_and_rows_go_on(
    host: Host, bpf: str, word: str, problem: str
) -> None:
    host.bpf = bpf
    seen: list[dict[str, Any]] = []
    host.time.at(45, lambda: seen.append(status(host)))
    stop_after(host, 50)
    assert run(host) == 0
    assert seen[0]["bpf"] == word
    assert problem in " ".join(seen[0]["problems"])
    assert sum("No BTF" in line for line in host.said) == (1 if problem else 0)
    assert host.rows("SELECT count(*) FROM metrics") == [(3,)]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (AgentError("The port is taken.", "Free it."), "The port is taken."),
        (LookupError("a bug"), "LookupError: a bug"),
    ],
)
def test_grafana_that_fails_is_reported_as_not_working_whatever_the_error(
    host: Host, error: Exception, words: str
) -> None:
    host.grafana.error = error
    wait_for_grafana(host)
    seen: list[dict[str, Any]] = []
    host.time.at(25, lambda: seen.append(status(host)))
    stop_after(host, 26)
    assert run(host) == 0
    assert seen[0]["grafana"].startswith("not working: ")
    assert words in seen[0]["grafana"]
    assert any(words in one for one in seen[0]["problems"])
    assert "grafana down" in host.did


def test_grafana_s_thread_that_ends_without_a_word_is_noticed(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    class EndOfThread(BaseException):
        """Nothing catches it."""

    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    host.grafana.error = EndOfThread()
    wait_for_grafana(host)
    seen: list[dict[str, Any]] = []
    host.time.at(25, lambda: seen.append(status(host)))
    stop_after(host, 26)
    assert run(host) == 0
    assert "has ended" in seen[0]["grafana"]


def wait_for_grafana(host: Host) -> None:
    """Its thread is a real one: it is given the time to end before anything virtual passes."""

    def join() -> None:
        for thread in threading.enumerate():
            if thread.name == "grafana":
                thread.join(30)

    host.time.at(1, join)


def test_cron_that_cannot_be_had_is_reported_and_load_is_generated_once(host: Host) -> None:
    host.cron_error = AgentError("cron is not installed.", "Install it.")
    seen: list[dict[str, Any]] = []
    host.time.at(5, lambda: seen.append(status(host)))
    stop_after(host, 6)
    assert run(host) == 0
    assert "not installed" in seen[0]["cron"]
    assert "generator started" in host.did


@pytest.mark.parametrize("outcome", [0, 1])
def test_the_first_generation_is_reaped_when_it_ends_and_a_failure_is_logged(
    host: Host, outcome: int, caplog: pytest.LogCaptureFixture
) -> None:
    host.time.at(7, lambda: setattr(host.generation, "ended", outcome))
    seen: list[bool] = []
    host.time.at(15, lambda: seen.append("generator reaped" in host.did))
    stop_after(host, 16)
    run(host)
    assert seen == [True]
    assert ("generator=first-run status=1" in caplog.text) is (outcome == 1)


def test_what_is_not_wanted_is_neither_brought_up_nor_taken_down(host: Host) -> None:
    seen: list[dict[str, Any]] = []
    host.time.at(5, lambda: seen.append(status(host)))
    stop_after(host, 6)
    assert run(host, grafana__enabled=False, cron__enabled=False, bpf__enabled=False) == 0
    assert (seen[0]["grafana"], seen[0]["cron"], seen[0]["bpf"]) == (
        "off (--no-grafana)",
        "off (--no-cron)",
        "off (--no-bpf)",
    )
    assert seen[0]["problems"] == []
    assert host.did == ["containers removed", "modules unloaded"]


def test_grafana_that_is_to_be_kept_stays_up_at_the_stop(host: Host) -> None:
    wait_for_grafana(host)
    stop_after(host, 5)
    assert run(host, grafana__keep=True) == 0
    assert "grafana up" in host.did
    assert "grafana down" not in host.did
    assert "grafana cancelled" in host.did


def test_modules_that_are_to_be_kept_stay_loaded(host: Host) -> None:
    stop_after(host, 5)
    assert run(host, modules__keep=True) == 0
    assert host.modules
    assert "modules unloaded" not in host.did


def test_a_host_without_a_thread_for_grafana_has_it_as_a_problem_and_ticks_go_on(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    seen: list[dict[str, Any]] = []
    host.time.at(5, lambda: seen.append(status(host)))
    stop_after(host, 25)
    assert run(host) == 0
    assert "can't start new thread" in seen[0]["grafana"]
    assert any("can't start new thread" in one for one in seen[0]["problems"])
    assert host.ticks == 2


def test_a_mark_that_bpf_does_not_take_is_logged_and_costs_no_tick(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    host.bpf = "unmarkable"
    stop_after(host, 25)
    assert run(host) == 0
    assert host.ticks == 2
    assert caplog.text.count("short-lived processes are told apart late: A map is full.") == 2


def test_probes_that_are_still_compiled_are_starting_and_no_problem(host: Host) -> None:
    host.bpf = "starting"
    seen: list[dict[str, Any]] = []
    host.time.at(5, lambda: seen.append(status(host)))
    stop_after(host, 6)
    assert run(host) == 0
    assert (seen[0]["bpf"], seen[0]["problems"]) == ("starting", [])
    assert host.marks_ns == []


def test_an_engine_that_docker_host_names_instead_is_said_at_the_start(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeOutside, "other_engine", lambda _: "DOCKER_HOST names another one.")
    stop_after(host, 5)
    run(host)
    assert "docker: DOCKER_HOST names another one." in host.said
