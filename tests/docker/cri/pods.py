"""Makes and removes pods by CRI's own calls, as a kubelet does: the tests' hand, not the agent's.

    PYTHON pods.py SOCKET METHOD [REQUEST AS JSON]

in the environment of CRI's helper. The answer is JSON too.
"""

from __future__ import annotations

import sys
from typing import Any

import grpc
from google.protobuf import json_format

from tests.docker.cri import calls_pb2 as calls

METHODS: dict[str, tuple[Any, Any]] = {
    "RunPodSandbox": (calls.RunPodSandboxRequest, calls.RunPodSandboxResponse),
    "StopPodSandbox": (calls.PodSandboxRequest, calls.Nothing),
    "RemovePodSandbox": (calls.PodSandboxRequest, calls.Nothing),
    "CreateContainer": (calls.CreateContainerRequest, calls.CreateContainerResponse),
    "StartContainer": (calls.ContainerRequest, calls.Nothing),
    "StopContainer": (calls.ContainerRequest, calls.Nothing),
    "RemoveContainer": (calls.ContainerRequest, calls.Nothing),
}


def main() -> None:
    address, method, text = sys.argv[1:]
    request, response = METHODS[method]
    with grpc.insecure_channel(
        f"unix:{address}", options=[("grpc.default_authority", "localhost")]
    ) as channel:
        call = channel.unary_unary(
            f"/runtime.v1.RuntimeService/{method}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        answer = call(json_format.Parse(text, request()), timeout=60)
    print(json_format.MessageToJson(answer, preserving_proto_field_name=True))


main()
