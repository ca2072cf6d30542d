"""What a value of the settings has to look like: names, paths, addresses."""

from __future__ import annotations

from typing import Annotated

import msgspec

ImageName = Annotated[
    str, msgspec.Meta(pattern=r"^[a-z0-9][a-zA-Z0-9._/:@-]*\Z", min_length=1, max_length=255)
]


AbsolutePath = Annotated[str, msgspec.Meta(pattern=r"^/[^\x00-\x1f\x7f]*\Z", max_length=4096)]


SocketAddress = Annotated[
    str, msgspec.Meta(pattern=r"^unix:///[^\x00-\x1f\x7f]+\Z", max_length=4096)
]


EngineName = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9._-]{0,31}\Z")]


URL = r"https?://[^\s/@?#\x00-\x20\x7f]+(/[^\s#\x00-\x20\x7f]*)?"
"""Without user and password, which would be shown."""


Url = Annotated[str, msgspec.Meta(pattern=rf"^{URL}\Z", max_length=2048)]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass
