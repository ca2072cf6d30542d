"""Asks one container runtime by CRI for whoever started it, and answers in lines of JSON.

    python -I -m agent.cri.helper SOCKET DESCRIPTOR

SOCKET is where the runtime listens, DESCRIPTOR a stream socket to who asks. A question is one line,
`{"ask": "list", "seconds": 8.0}` or `{"ask": "version", …}`; the answer is lines with one of
`container`, `sandbox` or `version` each, then `{"end": true}`, or `{"error": …}` instead. It ends
with its asker's end of the socket. It imports nothing of the agent but the messages' code.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

_SERVICE = "/runtime.v1.RuntimeService/"
_MOST_BYTES = 16 << 20
"""Of one answer of the runtime's: containerd's own bound."""
_LOOK_S = 2.0
"""For the look at one container: the others must not wait for it."""
_LONGEST_QUESTION = 1000
_ODD = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError)
"""What a runtime's words about one container can be, instead of an object with a pid."""


class Asked:
    """One runtime. The first processes of containers are kept: under CRI none is started twice."""

    def __init__(self, address: str) -> None:
        """`address` is the path of its socket."""
        self._address = address
        self._channel: Any = None
        self._looks: dict[str, dict[str, Any]] = {}

    def answer(self, what: str, seconds: float) -> Iterator[dict[str, Any]]:
        """The lines of one answer. Raises grpc.RpcError, OSError where the socket is not there."""
        ends = time.monotonic() + seconds
        os.stat(self._address)
        if what == "version":
            yield {"version": self._version(ends)}
            return
        sandboxes = self._sandboxes(ends)
        # After the sandboxes: a container's pod is then among them, or gone by now.
        containers = self._containers(ends)
        found = [*sandboxes, *containers]
        ids = {one["id"] for _, one in found}
        self._looks = {key: look for key, look in self._looks.items() if key in ids}
        for kind, one in found:
            # Without a look, where nothing runs; a half-told one is asked for again the next time.
            look = self._look(kind, one["id"], ends) if one["running"] else {}
            if look is not None:
                yield {kind: {**one, **look}}

    def reconnect(self) -> None:
        """The next question makes a new connection: gRPC would wait longer and longer for one."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _call(self, method: str, request: Any, response: Any, ends: float) -> Any:
        import grpc  # noqa: PLC0415 - that it is missing is an answer

        if self._channel is None:
            self._channel = grpc.insecure_channel(
                f"unix:{self._address}",
                options=[
                    # Go's servers refuse the path that some versions send here.
                    ("grpc.default_authority", "localhost"),
                    ("grpc.enable_http_proxy", 0),
                    ("grpc.max_receive_message_length", _MOST_BYTES),
                ],
            )
        call: Callable[..., Any] = self._channel.unary_unary(
            _SERVICE + method,
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        return call(request, timeout=max(0.001, ends - time.monotonic()))

    def _version(self, ends: float) -> dict[str, str]:
        from agent.cri import cri_pb2 as cri  # noqa: PLC0415

        about = self._call("Version", cri.VersionRequest(), cri.VersionResponse, ends)
        return {
            "name": about.runtime_name,
            "version": about.runtime_version,
            "api": about.runtime_api_version,
        }

    def _sandboxes(self, ends: float) -> list[tuple[str, dict[str, Any]]]:
        from agent.cri import cri_pb2 as cri  # noqa: PLC0415

        listed = self._call(
            "ListPodSandbox", cri.ListPodSandboxRequest(), cri.ListPodSandboxResponse, ends
        )
        return [
            (
                "sandbox",
                {
                    "id": one.id,
                    "name": one.metadata.name,
                    "namespace": one.metadata.namespace,
                    "uid": one.metadata.uid,
                    "running": one.state == cri.SANDBOX_READY,
                    "created_ns": one.created_at,
                    "labels": dict(one.labels),
                },
            )
            for one in listed.items
        ]

    def _containers(self, ends: float) -> list[tuple[str, dict[str, Any]]]:
        from agent.cri import cri_pb2 as cri  # noqa: PLC0415

        listed = self._call(
            "ListContainers", cri.ListContainersRequest(), cri.ListContainersResponse, ends
        )
        states = {
            cri.CONTAINER_CREATED: "created",
            cri.CONTAINER_RUNNING: "running",
            cri.CONTAINER_EXITED: "exited",
        }
        return [
            (
                "container",
                {
                    "id": one.id,
                    "sandbox": one.pod_sandbox_id,
                    "name": one.metadata.name,
                    "image": one.image.user_specified_image or one.image.image or one.image_ref,
                    "state": states.get(one.state, "unknown"),
                    "running": one.state == cri.CONTAINER_RUNNING,
                    "created_ns": one.created_at,
                    "labels": dict(one.labels),
                },
            )
            for one in listed.containers
        ]

    def _look(self, kind: str, key: str, ends: float) -> dict[str, Any] | None:
        """First process and start of one that runs; `undescribed` where the runtime does not say.

        None where it is gone by now. Of what the runtime tells beside it (the environment of the
        container, and with it secrets) nothing is passed on.
        """
        import grpc  # noqa: PLC0415

        if key in self._looks:
            return self._looks[key]
        try:
            look = self._status(kind, key, min(ends, time.monotonic() + _LOOK_S))
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return None
            if time.monotonic() >= ends or error.code() is grpc.StatusCode.UNAVAILABLE:
                raise
            return {"undescribed": str(error.details())[:200]}
        except _ODD as error:
            return {"undescribed": f"an odd answer: {type(error).__name__}: {error}"[:200]}
        if look["pid"] > 0:
            self._looks[key] = look
        return look

    def _status(self, kind: str, key: str, ends: float) -> dict[str, Any]:
        from agent.cri import cri_pb2 as cri  # noqa: PLC0415

        if kind == "sandbox":
            status = self._call(
                "PodSandboxStatus",
                cri.PodSandboxStatusRequest(pod_sandbox_id=key, verbose=True),
                cri.PodSandboxStatusResponse,
                ends,
            )
            info = json.loads(status.info["info"])
            return {"pid": int(info["pid"]), "image": str(info.get("image", ""))}
        status = self._call(
            "ContainerStatus",
            cri.ContainerStatusRequest(container_id=key, verbose=True),
            cri.ContainerStatusResponse,
            ends,
        )
        pid = json.loads(status.info["info"])["pid"]
        return {"pid": int(pid), "started_ns": status.status.started_at}


def serve(asked: Asked, channel: socket.socket) -> None:
    """Answers until the other end is closed."""
    with channel, channel.makefile("rb") as questions:
        while line := questions.readline(_LONGEST_QUESTION):
            question = json.loads(line)
            lines = _lines(asked, str(question["ask"]), float(question["seconds"]))
            channel.sendall("".join(json.dumps(one) + "\n" for one in lines).encode())


def _lines(asked: Asked, what: str, seconds: float) -> list[dict[str, Any]]:
    """A whole answer, or the error that there is instead."""
    try:
        return [*asked.answer(what, seconds), {"end": True}]
    except OSError as error:
        return [{"error": error.strerror or str(error), "kind": "socket"}]
    except ImportError as error:
        return [{"error": f"{error}", "kind": "environment"}]
    except Exception as error:
        code = getattr(error, "code", None)
        if code is None:
            raise
        asked.reconnect()
        details = str(getattr(error, "details", str)() or "")[:300]
        return [{"error": details, "kind": code().name.lower()}]


def main() -> int:
    """Status 0 once who asks is gone."""
    address, descriptor = sys.argv[1], int(sys.argv[2])
    try:
        serve(Asked(address), socket.socket(fileno=descriptor))
    except (BrokenPipeError, ConnectionResetError):
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
