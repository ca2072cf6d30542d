"""Which pod each of podman's containers is in: what Docker's part of its API does not say.

Asked by podman's own list, beside Docker's. A pod's infra container only holds the pod's namespaces
open: without it all others of the pod are lost, so it is told apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import docker
import msgspec

from agent.model.container_id import FullId
from agent.util.terminal import printable

_LIST = "/v4.0.0/libpod/containers/json"
"""Podman 4 and 5 answer it."""


@dataclass(frozen=True, slots=True)
class PodPlace:
    """A container's place in its pod."""

    pod: str
    """The pod's name; "" outside of one."""
    is_infra: bool


class _PodMember(msgspec.Struct, frozen=True):
    Id: FullId
    IsInfra: bool = False
    Pod: str = ""
    PodName: str = ""


msgspec.json.Decoder(_PodMember)  # learnt at import: two first uses at once end the process


def read(client: docker.APIClient) -> Mapping[str, PodPlace]:
    """By full id. Raises docker.errors.APIError, requests' errors, msgspec.ValidationError."""
    response = client.get(
        f"{client.base_url}{_LIST}", params={"all": "true"}, timeout=client.timeout
    )
    answer: Any = client._result(response, json=True)  # type: ignore[attr-defined]  # noqa: SLF001 - raises as docker-py's own calls do
    if not isinstance(answer, list):
        raise ValueError("its list of pods' containers is not one")  # noqa: TRY004 - podman's value
    entries = [msgspec.convert(entry, _PodMember) for entry in answer]
    return {
        one.Id: PodPlace(printable(one.PodName or one.Pod[:12]), one.IsInfra) for one in entries
    }
