"""What containers and pods there are, as a runtime tells it by CRI: containerd's, CRI-O's.

A container's name is `namespace/pod/container`, wherever it is shown or stored: without its pod it
is not one container's. The names are Kubernetes': the labels that the kubelet gives
(`io.kubernetes.*`), and where there are none (crictl) what CRI itself has of the sandbox and the
container. They are Kubernetes' to place and to end, so no policy of this host ever touches one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from agent.clock import Clock
from agent.engine_api.cri import CriHelper
from agent.engine_api.schema import container_state, label_text
from agent.model.container import Container, ContainerState
from agent.model.container_id import FullId
from agent.sources.engine.inventory import LIST_DEADLINE_S, Listing
from agent.util.terminal import printable

log = logging.getLogger(__name__)

OBSERVED = "Kubernetes' containers are observed only"
SANDBOX = "(sandbox)"
"""In the place of a container's name, what holds a pod's namespaces open: none of Kubernetes' can
be called so."""

_NAME = "io.kubernetes.container.name"
_POD = "io.kubernetes.pod.name"
_NAMESPACE = "io.kubernetes.pod.namespace"
_UID = "io.kubernetes.pod.uid"


class _CriEntry(msgspec.Struct, frozen=True):
    id: FullId
    name: str = ""
    created_ns: int = 0
    running: bool = False
    labels: dict[str, str] = {}
    pid: int = 0
    image: str = ""
    undescribed: str = ""


class _CriSandbox(_CriEntry, frozen=True):
    namespace: str = ""
    uid: str = ""


class _CriContainer(_CriEntry, frozen=True):
    sandbox: str = ""
    state: str = ""
    started_ns: int = 0


for _shape in (_CriSandbox, _CriContainer):
    msgspec.json.Decoder(_shape)  # learnt at import: two first uses at once end the process


class CriEngine:
    """A runtime as a source. One thread uses one object."""

    def __init__(self, helper: CriHelper, clock: Clock, name: str) -> None:
        """`name` is the engine's in the settings."""
        self._helper = helper
        self._clock = clock
        self._name = name
        self._odd: frozenset[str] = frozenset()
        """What was odd about entries of the last list, each logged once."""

    def list(self) -> Listing:
        """All containers and sandboxes. Raises EngineUnavailableError."""
        read_ns = self._clock.boot_ns()
        lines = self._helper.ask("list", LIST_DEADLINE_S)
        odd: set[str] = set()
        sandboxes: dict[str, _CriSandbox] = {}
        members: dict[str, _CriContainer] = {}
        for line in lines:
            try:
                if "sandbox" in line:
                    sandbox = msgspec.convert(line["sandbox"], _CriSandbox)
                    sandboxes[sandbox.id] = sandbox
                else:
                    member = msgspec.convert(line.get("container"), _CriContainer)
                    members[member.id] = member
            except msgspec.ValidationError as error:
                odd.add(f"engine={self._name} outcome=left-out {printable(str(error))[:200]}")
        for one in (*sandboxes.values(), *members.values()):
            if one.undescribed:
                odd.add(f"container={one.id[:12]} outcome=undescribed {printable(one.undescribed)}")
        for text in odd - self._odd:
            log.warning("%s", text)
        self._odd = frozenset(odd)
        found = {key: self._pod(one) for key, one in sandboxes.items()}
        # An id that is both is one container; a runtime that says so is odd.
        found |= {
            key: self._container(one, sandboxes.get(one.sandbox)) for key, one in members.items()
        }
        return Listing(
            tuple(found.values()),
            read_ns,
            sum(bool(one.undescribed) for one in (*sandboxes.values(), *members.values())),
            len(lines) - len(found),
        )

    def ask_all_labels(self, wanted: bool) -> None:
        """CRI tells all labels of a container, and none of its image."""
        del wanted

    def close(self) -> None:
        """Ends the helper; the next `list` starts it again."""
        self._helper.close()

    def _pod(self, sandbox: _CriSandbox) -> Container:
        labels = _with_pod(sandbox.labels, sandbox)
        pod = _place(labels)
        return self._made(
            sandbox,
            SANDBOX,
            labels,
            state=ContainerState.RUNNING if sandbox.running else ContainerState.EXITED,
            observed_only=f"the sandbox of pod {printable(pod)}",
        )

    def _container(self, member: _CriContainer, sandbox: _CriSandbox | None) -> Container:
        labels = _with_pod(member.labels, sandbox)
        return self._made(
            member,
            labels.get(_NAME) or member.name or member.id[:12],
            labels,
            state=container_state(member.state),
            observed_only=OBSERVED,
            started_ns=max(0, member.started_ns),
        )

    def _made(
        self, entry: _CriEntry, name: str, labels: Mapping[str, str], **more: Any
    ) -> Container:
        place = _place(labels)
        return Container(
            id=entry.id,
            name=printable(f"{place}/{name}" if place else name),
            image=printable(entry.image),
            created_ns=entry.created_ns,
            first_pid=max(0, entry.pid) if entry.running else 0,
            labels=label_text(dict(labels)),
            engine=self._name,
            pod=printable(place),
            **more,
        )


def cri_version(helper: CriHelper, timeout_s: float) -> tuple[str, str]:
    """The runtime's name with its version, and CRI's. Raises EngineUnavailableError."""
    (about, *_) = [line.get("version") for line in helper.ask("version", timeout_s)] or [None]
    told = about if isinstance(about, dict) else {}
    words = (printable(str(told.get(key, "")))[:80] for key in ("name", "version", "api"))
    name, version, api = words
    return f"{name} {version}".strip(), api


def _with_pod(labels: Mapping[str, str], sandbox: _CriSandbox | None) -> Mapping[str, str]:
    """The labels, with the pod's where the kubelet has not given them."""
    if sandbox is None:
        return labels
    own = {_POD: sandbox.name, _NAMESPACE: sandbox.namespace, _UID: sandbox.uid}
    return {**{key: value for key, value in own.items() if value}, **labels}


def _place(labels: Mapping[str, str]) -> str:
    """`namespace/pod`, "" for a container whose pod nobody names."""
    pod = labels.get(_POD, "")
    return "/".join(filter(None, (labels.get(_NAMESPACE, ""), pod))) if pod else ""
