"""Image references by their parts: registry, repository, tag, digest, as Docker normalises them.

`alpine` is `docker.io/library/alpine`, and `evil.example/alpine` is not. A pattern without a tag
takes every tag. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache

from agent.model import container_id

HUB = "docker.io"
_HUB_NAMES = ("docker.io", "index.docker.io", "registry-1.docker.io")
_ID = re.compile(rf"(sha256:)?{container_id.PATTERN}|sha256:[0-9a-f]+")
_GLOB = re.compile(r"[*?[]")


@dataclass(frozen=True, slots=True)
class Reference:
    """The parts of a reference or of a pattern. One that is an image's id has only a digest."""

    registry: str
    repository: str
    tag: str
    digest: str


@lru_cache(maxsize=4096)
def parse(text: str) -> Reference:
    """The parts of `text`; tag and digest are "" where it has none.

    By Docker's rule (distribution/reference `splitDockerDomain`) the first component is a registry
    where it has a dot or a colon, or is `localhost`.
    """
    if _ID.fullmatch(text):
        return Reference("", "", "", text.removeprefix("sha256:"))
    named, _, digest = text.partition("@")
    head, slash, last = named.rpartition("/")
    last, _, tag = last.partition(":")
    path = f"{head}{slash}{last}"
    first, slash, rest = path.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        registry = HUB if first in _HUB_NAMES else first
        repository = rest
    else:
        registry, repository = HUB, path
    if registry == HUB and "/" not in repository:
        repository = f"library/{repository}"
    return Reference(registry, repository, tag, digest)


def matches(pattern: str, image: str) -> bool:
    """Whether the reference that a container was created with falls under the pattern.

    `*` alone takes everything, ids too; any other pattern takes no image that is known by its id
    only, but that very id.
    """
    if pattern == "*":
        return True
    wanted, given = parse(pattern), parse(image)
    if not wanted.repository or not given.repository:
        return wanted == given
    return (
        fnmatchcase(given.registry, wanted.registry)
        and fnmatchcase(given.repository, wanted.repository)
        and _tag_matches(wanted, given)
        and (not wanted.digest or fnmatchcase(given.digest, wanted.digest))
    )


def _tag_matches(wanted: Reference, given: Reference) -> bool:
    """A reference without a tag has `latest`, unless its digest says which image it is."""
    if not wanted.tag:
        return True
    return fnmatchcase(given.tag or ("" if given.digest else "latest"), wanted.tag)


def covers(earlier: str, later: str) -> bool:
    """Whether every reference that `later` takes is taken by `earlier` too, as far as is sure."""
    if earlier in ("*", later):
        return True
    one, other = parse(earlier), parse(later)
    if later == "*" or not one.repository or not other.repository:
        return False
    return (
        glob_covers(one.registry, other.registry)
        and glob_covers(one.repository, other.repository)
        and (not one.tag or (other.tag != "" and glob_covers(one.tag, other.tag)))
        and (not one.digest or (other.digest != "" and glob_covers(one.digest, other.digest)))
    )


def glob_covers(earlier: str, later: str) -> bool:
    """The same of two globs. Sure where `later` is plain text, or `earlier` has `*` alone: what is
    a wildcard in `later` can then only lie within one of its stars."""
    if earlier == later:
        return True
    if _GLOB.search(later) and re.search(r"[?[]", earlier):
        return False
    return fnmatchcase(later, earlier)
