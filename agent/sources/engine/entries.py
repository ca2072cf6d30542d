"""The parts of Docker's answers that are used, each entry taken for itself.

One entry that is not what Docker's API describes must hide no other. A figure that cannot be read
is left out where the container is still surely known without it; the entry is left out where not.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec

from agent.engine_api.client import Labels, learn_shapes

FullId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
T = TypeVar("T", bound=msgspec.Struct)


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


class InspectedConfig(msgspec.Struct, frozen=True):
    Image: str = ""
    Labels: Labels = None


class InspectedState(msgspec.Struct, frozen=True):
    Pid: Annotated[int, msgspec.Meta(ge=0, le=1 << 22)] = 0
    StartedAt: str = ""


class Inspected(msgspec.Struct, frozen=True):
    """What is used of `GET /containers/<id>/json`."""

    Id: FullId
    Created: str
    Name: str = ""
    Image: str = ""
    Config: InspectedConfig = InspectedConfig()
    State: InspectedState = InspectedState()


class ImageConfig(msgspec.Struct, frozen=True):
    Labels: Labels


class InspectedImage(msgspec.Struct, frozen=True):
    """What is used of `GET /images/<id>/json`; its labels have no default, as a container's."""

    Config: ImageConfig | None = None


learn_shapes(Listed, Inspected, InspectedImage)


def take_listed(entry: Any) -> Listed:
    """One entry of the list. Raises msgspec.ValidationError where its id or its labels are odd."""
    return take({"Labels": None, **entry} if isinstance(entry, dict) else entry, Listed)


def take_image(answer: Any) -> InspectedImage:
    """Raises msgspec.ValidationError where the labels cannot be read."""
    config = answer.get("Config") if isinstance(answer, dict) else None
    if isinstance(config, dict):
        answer = {**answer, "Config": {"Labels": None, **config}}
    return msgspec.convert(answer, InspectedImage)


def take(entry: Any, shape: type[T]) -> T:
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
                kept[field.name] = take(entry[field.name], field.type)
            else:
                kept[field.name] = msgspec.convert(entry[field.name], field.type)
        except msgspec.ValidationError:
            if field.required:
                raise
    return msgspec.convert(kept, shape)
