"""A running agent's metrics: what is shown is what is stored, also after a kill."""

from __future__ import annotations

import errno
import http.client
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as families

from agent.config import Config, PathSettings
from agent.config_outlets import MetricsSettings
from agent.daemon.metrics import Metrics
from agent.errors import StoreError
from agent.model.proof import BudgetName, BudgetUse
from agent.store.store import Store
from tests.unit.analysis.test_counters import share
from tests.unit.store.builders import KEY_A, a_pass, a_removal, a_tick, open_store

LIVING = ("so1_container_cpu_seconds_total", "living")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def config(path: Path, port: int = 0) -> Config:
    return Config(
        metrics=MetricsSettings(listen=f"127.0.0.1:{port or free_port()}"),
        paths=PathSettings(database=str(path)),
    )


def tick(metrics: Metrics, store: Store, **changed: Any) -> bool:
    """As the service does it."""
    record = a_tick(**changed)
    metrics.ticked(record)
    try:
        store.write_tick(record)
        stored = True
    except StoreError:
        stored = False
    metrics.show(record, armed=True, stored=stored)
    return stored


def scrape(metrics: Metrics) -> dict[tuple[str, str], float]:
    client = http.client.HTTPConnection("127.0.0.1", metrics.port, timeout=20)
    try:
        client.request("GET", "/metrics")
        text = client.getresponse().read().decode("utf-8")
    finally:
        client.close()
    return {
        (sample.name, sample.labels.get("part", sample.labels.get("outcome", ""))): sample.value
        for family in families(text)
        for sample in family.samples
    }


def test_counters_go_on_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "metrics.db"
    store = open_store(path)
    metrics = Metrics.start(config(path), store)
    metrics.removed([a_removal()])
    tick(metrics, store, shares={KEY_A: share(living=3 * 10**9)}, passes=(a_pass(),))
    assert scrape(metrics)[LIVING] == 3
    metrics.close()
    # Nothing is closed in the store: that is how a killed agent leaves its file.

    with open_store(tmp_path / "metrics.db") as again:
        metrics = Metrics.start(config(path), again)
        tick(metrics, again, shares={KEY_A: share(living=10**9)})
        found = scrape(metrics)
        metrics.close()
    assert found[LIVING] == 4
    assert found["so1_ticks_total", ""] == 2
    assert found["so1_removals_total", "removed"] == 1
    store.close()


def test_what_could_not_be_stored_is_not_shown_and_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.db"
    with open_store(path) as store:
        metrics = Metrics.start(config(path), store)
        tick(metrics, store, shares={KEY_A: share(living=10**9)})

        def full(*_: object) -> None:
            raise StoreError("The disk is full.")

        with monkeypatch.context() as patched:
            patched.setattr("agent.store.counters.write", full)
            assert not tick(metrics, store, shares={KEY_A: share(living=10**9)})
            found = scrape(metrics)
            assert (found[LIVING], found["so1_store_ok", ""]) == (1, 0)
        tick(metrics, store, shares={KEY_A: share(living=10**9)})
        found = scrape(metrics)
        assert (found[LIVING], found["so1_store_ok", ""]) == (3, 1)
        metrics.close()


def test_an_address_that_is_taken_is_reported_and_had_as_soon_as_it_is_free(
    tmp_path: Path,
) -> None:
    path = tmp_path / "metrics.db"
    with socket.socket() as other, open_store(path) as store:
        other.bind(("127.0.0.1", 0))
        other.listen()
        metrics = Metrics.start(config(path, other.getsockname()[1]), store)
        assert "metrics.listen is not available" in metrics.problem
        tick(metrics, store)
        assert metrics.port == 0
        other.close()
        tick(metrics, store)
        assert metrics.problem == ""
        assert scrape(metrics)["so1_ticks_total", ""] == 2
        metrics.close()


def test_a_host_without_a_descriptor_or_thread_for_it_costs_no_tick_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(*_: object) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    def no_thread(_: object) -> None:
        raise RuntimeError("can't start new thread")

    with open_store(tmp_path / "metrics.db") as store:
        for what, by in (
            ("os.pipe2", short),
            ("selectors.DefaultSelector", short),
            ("threading.Thread.start", no_thread),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(what, by)
                metrics = Metrics.start(config(tmp_path / "metrics.db"), store)
                assert tick(metrics, store)
                assert "ss -ltnp" not in metrics.problem
                assert metrics.problem.endswith((": Too many open files.", "new thread."))
            assert tick(metrics, store)
            assert metrics.problem == ""
            assert scrape(metrics)[("so1_ticks_total", "")] > 0
            metrics.close()


def test_a_server_whose_thread_has_ended_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(tmp_path / "metrics.db") as store, monkeypatch.context() as patch:
        patch.setattr(threading, "excepthook", lambda _: None)
        metrics = Metrics.start(config(tmp_path / "metrics.db"), store)
        tick(metrics, store)
        server = metrics._server
        assert server is not None

        def fail() -> float:
            raise MemoryError

        patch.setattr(server, "_pause_s", fail)
        with suppress(OSError), socket.create_connection(("127.0.0.1", metrics.port), 5):
            pass
        server._thread.join(20)
        assert not server.answers
        tick(metrics, store)
        assert scrape(metrics)[("so1_ticks_total", "")] == 2
        metrics.close()


def test_counters_that_cannot_be_read_begin_at_0(tmp_path: Path) -> None:
    path = tmp_path / "metrics.db"
    with open_store(path) as store:
        metrics = Metrics.start(config(tmp_path / "missing.db"), store)
        tick(metrics, store, shares={KEY_A: share(living=10**9)})
        assert scrape(metrics)[LIVING] == 1
        metrics.close()


def test_a_disarmed_policy_and_the_budget_that_is_spent_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "metrics.db"
    uses = (
        BudgetUse(BudgetName.AGREEMENT, 0.5, "x"),
        BudgetUse(BudgetName.LOSS, 0.0, "good again, and not for fifteen ticks"),
    )
    with open_store(path) as store:
        metrics = Metrics.start(config(path), store)
        try:
            record = a_tick()
            store.write_tick(record)
            metrics.show(record, armed=False, stored=True, uses=uses, spent=(BudgetName.LOSS,))
            client = http.client.HTTPConnection("127.0.0.1", metrics.port, timeout=20)
            client.request("GET", "/metrics")
            text = client.getresponse().read().decode("utf-8")
            client.close()
        finally:
            metrics.close()
    found = {
        (sample.name, sample.labels.get("budget", "")): sample.value
        for family in families(text)
        for sample in family.samples
    }
    assert found["so1_policy_armed", ""] == 0
    assert found["so1_proof_spent", "loss"] == 1
    assert found["so1_proof_spent", "agreement"] == 0
    assert found["so1_proof_used_ratio", "agreement"] == 0.5
