"""Standard input, output and error as every command needs them: there, and able to take any name.

A program may be started without one of the three, in a locale whose encoding has no character, or
with a full disk behind its output. None of that may end in a traceback, and no file of the agent's
may get a descriptor that somebody else takes for standard output.
"""

from __future__ import annotations

import io
import json
import os
import sys
from contextlib import suppress

import msgspec

from agent.errors import AgentError

_ESCAPE = "backslashreplace"


class OutputError(AgentError):
    """What a command prints cannot be written."""


class ClosedPipeError(OutputError):
    """Nobody reads the output any more, which is no news to anybody. The status is SIGPIPE's."""

    exit_status = 141


def prepare() -> None:
    """Opens what is closed to nothing, and lets no character be an error; call it first of all.

    The lowest free descriptor is what the next open gets: without this a lock or a database would
    become standard output, and every line that anybody prints would go into it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            _point_to_null(number)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:  # its descriptor was closed when Python began
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115 - as long as we live
            setattr(sys, name, stream)
        if mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ESCAPE)


def out(text: str) -> None:
    """Prints a result on standard output. Raises OutputError."""
    try:
        print(text, flush=True)
    except OSError as error:
        raise unwritable(error) from error


def unwritable(error: OSError) -> OutputError:
    """What it means that standard output takes nothing."""
    if isinstance(error, BrokenPipeError):
        return ClosedPipeError("")
    return OutputError(
        f"Standard output cannot be written: {error.strerror or error}.",
        "Make room where it goes, or send it elsewhere.",
    )


def encoded(text: str) -> bytes:
    """`text` as standard output would encode it; a character that it is missing as an escape."""
    return text.encode(getattr(sys.stdout, "encoding", None) or "utf-8", _ESCAPE)


def json_text(value: object) -> str:
    """`value` as JSON of ASCII alone: the same in every locale, and it steers no terminal.

    An escape made by the stream would be none of JSON's (`\\xe9`).
    """
    try:
        text = msgspec.json.encode(value)
    except UnicodeEncodeError:  # half a surrogate pair
        return json.dumps(msgspec.to_builtins(value), separators=(",", ":"))
    if text.isascii():
        return text.decode("ascii")
    return json.dumps(json.loads(text), separators=(",", ":"))


def settle() -> None:
    """Drops what could not be written; call it last of all.

    Python tries once more when it ends, and makes 120 of the exit status where that fails.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                _point_to_null(stream.fileno())


def _point_to_null(number: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null == number:
        os.set_inheritable(null, True)  # as the three are: programs that we start have them too
    else:
        os.dup2(null, number)
        os.close(null)
