"""Containers and pods as a runtime tells them by CRI."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import pytest

from agent.engine_api.cri import CriHelper
from agent.errors import EngineUnavailableError
from agent.model.container import Container
from agent.sources.engine.cri import CriEngine, cri_version
from agent.sources.engine.inventory import Listing
from agent.sources.engine.kept_list import KeptList
from agent.sources.engine.lists import EngineLists
from tests.unit.engine_api.fake_helper import FakeHelpers, answers, lines, sends
from tests.unit.sources.engine.fake_engine import Clock

POD, TILL, OTHER = "a" * 64, "b" * 64, "c" * 64
SANDBOX = {"id": POD, "name": "shop-1", "namespace": "default", "uid": "u-1", "running": True}
KUBELETS = {
    "io.kubernetes.container.name": "till",
    "io.kubernetes.pod.name": "shop-1",
    "io.kubernetes.pod.namespace": "default",
    "io.kubernetes.pod.uid": "u-1",
}
CONTAINER = {
    "id": TILL,
    "sandbox": POD,
    "name": "till",
    "state": "running",
    "running": True,
    "image": "shop:1",
    "created_ns": 5,
    "started_ns": 7,
    "pid": 4711,
    "labels": KUBELETS,
}


def listed(*lines: Any) -> Listing:
    helper = CriHelper("unix:///c.sock", "/opt/so1/cri", Clock(), FakeHelpers(answers(*lines)))
    engine = CriEngine(helper, Clock(), "k8s")
    try:
        return engine.list()
    finally:
        engine.close()


def by_id(*lines: Any) -> dict[str, Container]:
    return {one.id: one for one in listed(*lines).containers}


def test_a_container_has_its_pods_place_and_kubernetes_name() -> None:
    found = by_id({"sandbox": {**SANDBOX, "pid": 4700}}, {"container": CONTAINER})
    till, pod = found[TILL], found[POD]
    assert (till.engine, till.pod) == ("k8s", "default/shop-1")
    assert till.name == "default/shop-1/till"
    assert (till.image, till.created_ns, till.started_ns) == ("shop:1", 5, 7)
    assert (till.first_pid, str(till.state)) == (4711, "running")
    assert (pod.pod, pod.first_pid) == ("default/shop-1", 4700)
    assert pod.name == "default/shop-1/(sandbox)"
    assert (str(pod.state), pod.labels["io.kubernetes.pod.uid"]) == ("running", "u-1")


def test_none_may_ever_be_governed_whatever_its_labels_say() -> None:
    own = {**KUBELETS, "so1.installation": "mine", "so1.keep": "false"}
    found = by_id({"sandbox": SANDBOX}, {"container": {**CONTAINER, "labels": own}})
    assert found[POD].observed_only == "the sandbox of pod default/shop-1"
    assert "observed only" in found[TILL].observed_only
    assert {one.own_installation for one in found.values()} == {""}


def test_without_a_kubelets_labels_the_sandbox_says_which_pod_it_is() -> None:
    found = by_id({"sandbox": SANDBOX}, {"container": {**CONTAINER, "labels": {"x": "y"}}})
    assert (found[TILL].pod, found[TILL].name) == ("default/shop-1", "default/shop-1/till")
    assert found[TILL].labels["io.kubernetes.pod.namespace"] == "default"
    assert found[TILL].labels["x"] == "y"


def test_a_container_without_a_sandbox_is_a_container() -> None:
    found = by_id({"container": {**CONTAINER, "labels": {}, "name": ""}})
    assert (found[TILL].pod, found[TILL].name) == ("", TILL[:12])


def test_only_what_runs_has_a_first_process() -> None:
    over = {**CONTAINER, "running": False, "state": "exited"}
    found = by_id({"sandbox": {**SANDBOX, "running": False, "pid": 9}}, {"container": over})
    assert [(one.first_pid, str(one.state)) for one in found.values()] == [(0, "exited")] * 2


def test_one_that_the_runtime_does_not_describe_hides_no_other() -> None:
    odd = {**CONTAINER, "id": OTHER, "pid": 0, "undescribed": "shim\x1b gone"}
    listing = listed({"sandbox": SANDBOX}, {"container": CONTAINER}, {"container": odd})
    assert (len(listing.containers), listing.undescribed, listing.left_out) == (3, 1, 0)


@pytest.mark.parametrize(
    "odd",
    [
        {"container": None},
        {"container": {**CONTAINER, "id": "../x"}},
        {"container": {**CONTAINER, "labels": {"a": 1}}},
        {"container": {**CONTAINER, "pid": "1"}},
        {"sandbox": {**SANDBOX, "name": 7}},
        {"sandbox": []},
        {"something": 1},
    ],
)
def test_an_entry_that_is_no_container_is_left_out_and_counted(odd: Any) -> None:
    listing = listed({"sandbox": SANDBOX}, odd)
    assert [one.id for one in listing.containers] == [POD]
    assert listing.left_out == 1


def test_what_steers_a_terminal_is_escaped() -> None:
    labels = {
        **KUBELETS,
        "io.kubernetes.pod.name": "a\x1b[2J",
        "io.kubernetes.container.name": "\n",
    }
    (one,) = by_id({"container": {**CONTAINER, "labels": labels, "image": "\x07"}}).values()
    for text in (one.name, one.pod, one.image, *one.labels.values()):
        assert text.isprintable()


def test_an_error_is_the_engines() -> None:
    helper = CriHelper("unix:///c.sock", "/x", Clock(), FakeHelpers(sends(b"{}{}\n")))
    with pytest.raises(EngineUnavailableError, match="not JSON"):
        CriEngine(helper, Clock(), "k8s").list()


def test_a_helper_that_hangs_delays_no_other_engine() -> None:
    going = threading.Event()

    def hangs(channel: socket.socket, question: Any) -> None:
        assert going.wait(10)
        channel.sendall(lines({"sandbox": SANDBOX}, {"end": True}))

    helper = CriHelper("unix:///c.sock", "/x", Clock(), FakeHelpers(hangs))
    kept = KeptList(CriEngine(helper, Clock(), "k8s"), Clock(), lambda: None)
    engines = EngineLists({"k8s": kept, "other": Ready()}, 0.05)
    try:
        for _ in range(2):
            found = engines.ask()
            assert isinstance(found["k8s"], EngineUnavailableError)
            assert found["other"] == Ready.listing
        going.set()
        wait_until(lambda: isinstance(engines.ask()["k8s"], Listing))
    finally:
        engines.close()
        kept.close()


class Ready:
    """An engine that answers at once."""

    listing = Listing((), 0, 0)

    def list(self, *, fresh: bool = False) -> Listing:
        return self.listing


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        ({"name": "containerd", "version": "1.6.20", "api": "v1"}, ("containerd 1.6.20", "v1")),
        ({}, ("", "")),
        (["x"], ("", "")),
        (None, ("", "")),
    ],
)
def test_a_version_is_what_the_runtime_says_of_itself(told: Any, wanted: Any) -> None:
    helper = CriHelper("unix:///c", "/x", Clock(), FakeHelpers(answers({"version": told})))
    assert cri_version(helper, 5) == wanted
    helper.close()
