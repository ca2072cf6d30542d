"""The parts of Docker's answers that are used, by sources and actions alike.

One entry that is not what Docker's API describes must hide no other. A source takes each entry for
itself (`take…`): a figure that cannot be read is left out where the container is still surely known
without it; the entry is left out where not. Before a removal an answer is taken whole or not at
all (`inspected`), since what cannot be read may be what protects it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import msgspec

from agent.engine_api.timestamps import parse_time_ns
from agent.model.container import Container, ContainerState, Need
from agent.model.container_id import FullId
from agent.util.terminal import printable

T = TypeVar("T", bound=msgspec.Struct)

Labels = dict[str, str | int | float | bool | None] | None
"""Text for Docker; another engine's number or `true` is taken for the text that it would be."""


class Listed(msgspec.Struct, frozen=True):
    """One entry of `GET /containers/json`."""

    Id: FullId
    Labels: Labels
    """Without a default: without them nobody can say that a container is not protected."""
    Names: list[str] | None = None
    Image: str = ""
    ImageID: str = ""
    Created: Annotated[int, msgspec.Meta(ge=0, le=1 << 40)] = 0
    State: str = ""
    Status: str = ""


class InspectedState(msgspec.Struct, frozen=True):
    Status: str = ""
    Running: bool = False
    Pid: Annotated[int, msgspec.Meta(ge=0, le=1 << 22)] = 0
    StartedAt: str = ""


class InspectedConfig(msgspec.Struct, frozen=True):
    Image: str = ""
    Labels: Labels = None


class InspectedRestart(msgspec.Struct, frozen=True):
    Name: str = ""


class InspectedHostConfig(msgspec.Struct, frozen=True):
    NetworkMode: str = ""
    PidMode: str = ""
    IpcMode: str = ""
    VolumesFrom: list[str] | None = None
    Links: list[str] | None = None
    RestartPolicy: InspectedRestart | None = None

    @property
    def needs(self) -> tuple[Need, ...]:
        """The other containers that this one is built on.

        `container:ID` of a namespace, `NAME:ro` of volumes, `/NAME:/own/alias` of a link.
        """
        modes = (
            (self.NetworkMode, "uses its network"),
            (self.PidMode, "uses its PID namespace"),
            (self.IpcMode, "uses its IPC namespace"),
        )
        volumes = [one.partition(":")[0] for one in self.VolumesFrom or ()]
        links = [one.partition(":")[0].removeprefix("/") for one in self.Links or ()]
        return (
            *(
                Need(mode.removeprefix("container:"), what)
                for mode, what in modes
                if mode.startswith("container:")
            ),
            *(Need(printable(one), "uses its volumes") for one in volumes if one),
            *(Need(printable(one), "links to it") for one in links if one),
        )


class Inspected(msgspec.Struct, frozen=True):
    """What is used of `GET /containers/<id>/json`."""

    Id: FullId
    Created: str
    State: InspectedState
    Config: InspectedConfig
    Name: str = ""
    Image: str = ""
    """The image's id."""
    HostConfig: InspectedHostConfig = msgspec.field(default_factory=InspectedHostConfig)

    def container(self) -> Container:
        """The container as this answer alone has it, which does not say whose a label is.

        Raises ValueError for a creation time that is none.
        """
        return Container(
            id=self.Id,
            name=printable(self.Name.removeprefix("/")),
            image=printable(self.Config.Image),
            created_ns=parse_time_ns(self.Created),
            state=container_state(self.State.Status),
            first_pid=self.State.Pid,
            labels=label_text(self.Config.Labels),
        )


class _ImageConfig(msgspec.Struct, frozen=True):
    Labels: Labels = None


class _Image(msgspec.Struct, frozen=True):
    """What is used of `GET /images/<id>/json`."""

    Config: _ImageConfig | None = None


def _learn_shapes(*shapes: type[msgspec.Struct]) -> None:
    """Has msgspec learn what it will convert to, while this module is imported.

    What it learns at a type's first use is visible to other threads before it is complete: two
    first uses at once end the process (SIGSEGV, msgspec 0.22).
    """
    for shape in shapes:
        msgspec.json.Decoder(shape)


_learn_shapes(Listed, Inspected, _Image)


def inspected(answer: Any) -> Inspected:
    """The answer, whole. Raises msgspec.ValidationError where any part of it is odd."""
    return msgspec.convert(answer, Inspected)


def take_inspected(answer: Any) -> Inspected:
    """The answer, without what is odd. Raises msgspec.ValidationError for an odd id or creation."""
    if isinstance(answer, dict):
        parts = {name: answer.get(name) for name in ("State", "Config", "HostConfig")}
        answer = {
            **answer,
            **{name: part if isinstance(part, dict) else {} for name, part in parts.items()},
        }
    return _take(answer, Inspected)


def unseen(container_id: str) -> Inspected:
    """In place of an answer that Docker does not give: its id alone."""
    return Inspected(container_id, "", InspectedState(), InspectedConfig())


def take_listed(entry: Any) -> Listed:
    """One entry of the list. Raises msgspec.ValidationError where its id or its labels are odd."""
    return _take({"Labels": None, **entry} if isinstance(entry, dict) else entry, Listed)


def image_labels(answer: Any) -> Mapping[str, str]:
    """The labels that containers of an image inherit.

    Raises msgspec.ValidationError where they cannot be read: nobody may take them for none.
    """
    config = msgspec.convert(answer, _Image).Config
    return label_text(config.Labels if config else None)


def label_text(labels: Labels) -> Mapping[str, str]:
    """All of them, with what steers a terminal as escapes.

    None is left out: a bound here would be one before a decision on them. The answer's size is one.
    """
    return {
        printable(key): "" if value is None else printable(str(value))
        for key, value in (labels or {}).items()
    }


def container_state(text: str) -> ContainerState:
    """A container's state; UNKNOWN for one that Docker's API does not describe."""
    try:
        return ContainerState(text)
    except ValueError:
        return ContainerState.UNKNOWN


def _take(entry: Any, shape: type[T]) -> T:
    """The entry, with the default in place of each field that is odd.

    Raises msgspec.ValidationError where a field without a default is.
    """
    try:
        return msgspec.convert(entry, shape)
    except msgspec.ValidationError:
        if not isinstance(entry, dict):
            raise
    kept: dict[str, Any] = {}
    for field in msgspec.structs.fields(shape):
        if field.name not in entry:
            continue
        try:
            if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
                kept[field.name] = _take(entry[field.name], field.type)
            else:
                kept[field.name] = msgspec.convert(entry[field.name], field.type)
        except msgspec.ValidationError:
            if field.required:
                raise
    return msgspec.convert(kept, shape)
