"""The manifests for Swarm and Kubernetes: what they ask for, held against published schemas.

Kubernetes' schema is a reduced copy of its OpenAPI document (data/kubernetes-1.37.json has its
source and licence). Nothing here talks to a cluster.
"""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from agent.config import EngineKind, decode_config
from tests.packages.conftest import PROJECT

yaml = pytest.importorskip("yaml", reason="python3-yaml is not installed")

KUBERNETES = PROJECT / "packaging/kubernetes/daemonset.yaml"
DEFINITIONS: dict[str, Any] = json.loads(
    (Path(__file__).parent / "data/kubernetes-1.37.json").read_text()
)["definitions"]
_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
}


def faults(value: Any, schema: dict[str, Any], place: str = "$") -> list[str]:
    """What of `value` the schema refuses; as the API server's strict field validation does."""
    if "$ref" in schema:
        return faults(value, DEFINITIONS[schema["$ref"].rpartition("/")[2]], place)
    kind = schema.get("type")
    if kind is None:
        return []
    if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
        return [f"{place} is no {kind}"]
    if isinstance(value, list):
        return [
            fault
            for number, one in enumerate(value)
            for fault in faults(one, schema["items"], f"{place}[{number}]")
        ]
    if not isinstance(value, dict):
        return []
    fields = schema.get("properties", {})
    more = schema.get("additionalProperties", False)
    found = [
        f"{place}.{name} is missing" for name in schema.get("required", ()) if name not in value
    ]
    for name, one in value.items():
        if name in fields:
            found += faults(one, fields[name], f"{place}.{name}")
        elif more is False:
            found.append(f"{place}.{name} is unknown")
        else:
            found += faults(one, more, f"{place}.{name}")
    return found


@pytest.fixture(scope="module")
def documents() -> dict[str, Any]:
    return {one["kind"]: one for one in yaml.safe_load_all(KUBERNETES.read_text())}


def test_the_manifest_is_what_kubernetes_schema_allows(documents: dict[str, Any]) -> None:
    assert set(documents) == {"Namespace", "DaemonSet"}
    for kind, document in documents.items():
        assert faults(document, {"$ref": f"#/definitions/V1{kind}"}) == []


PLANTED = {
    "an unknown field of a container": ("spec.template.spec.containers.0", "privilegd", True),
    "an unknown field of the pod": ("spec.template.spec", "hostPid", True),
    "an unknown field of a volume": ("spec.template.spec.volumes.0.hostPath", "readOnly", True),
    "a text for a number": ("spec.template.spec", "terminationGracePeriodSeconds", "30"),
    "a text for a list": ("spec.template.spec.containers.0", "args", "start"),
    "a number for a text": ("spec.template.spec.containers.0", "image", 1),
}


@pytest.mark.parametrize("what", PLANTED)
def test_a_planted_mistake_is_refused(documents: dict[str, Any], what: str) -> None:
    path, name, value = PLANTED[what]
    document = copy.deepcopy(documents["DaemonSet"])
    target: Any = document
    for word in path.split("."):
        target = target[int(word)] if word.isdigit() else target[word]
    target[name] = value
    (fault,) = faults(document, {"$ref": "#/definitions/V1DaemonSet"})
    assert name in fault


def test_a_missing_selector_is_refused(documents: dict[str, Any]) -> None:
    document = copy.deepcopy(documents["DaemonSet"])
    del document["spec"]["selector"]
    assert faults(document, {"$ref": "#/definitions/V1DaemonSet"}) == ["$.spec.selector is missing"]


def test_on_kubernetes_it_only_observes_with_no_right_beyond_what_it_needs(
    documents: dict[str, Any],
) -> None:
    pod = documents["DaemonSet"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["args"][:2] == ["start", "--dry-run"]
    security = container["securityContext"]
    assert security["capabilities"]["drop"] == ["ALL"]
    assert "privileged" not in security
    assert security["readOnlyRootFilesystem"] is True
    assert pod["automountServiceAccountToken"] is False
    labels = documents["DaemonSet"]["spec"]["selector"]["matchLabels"]
    assert (
        labels.items() <= documents["DaemonSet"]["spec"]["template"]["metadata"]["labels"].items()
    )
    mounted = {one["name"] for one in container["volumeMounts"]}
    assert mounted == {one["name"] for one in pod["volumes"]}


def test_the_settings_that_the_manifest_names_reach_a_socket_that_it_mounts(
    documents: dict[str, Any],
) -> None:
    comments = re.findall(r"^#     (.*)$", KUBERNETES.read_text(), re.M)
    config = decode_config("\n".join(comments), "agent.toml")
    (engine,) = config.engines
    assert (engine.kind, engine.governed) == (EngineKind.CRI, False)
    pod = documents["DaemonSet"]["spec"]["template"]["spec"]
    place = Path(engine.socket.removeprefix("unix://")).parent
    (volume,) = (one for one in pod["volumes"] if one.get("hostPath", {}).get("path") == str(place))
    (mount,) = (
        one for one in pod["containers"][0]["volumeMounts"] if one["name"] == volume["name"]
    )
    assert (mount["mountPath"], mount["readOnly"]) == (str(place), True)
