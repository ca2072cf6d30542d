"""Keeps out of a running agent what it never needs: a library's baggage, and idle searches.

requests, which docker-py is built on, loads two guessers of text encodings: some 5 MB resident for
the agent's whole life. Docker answers JSON, which is UTF-8, so there is nothing to guess. The same
for other databases' drivers, docker-py's objects for interactive use, and TLS, which nobody speaks
through a Unix socket. Each was measured: docs/reports/redesign.md.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import sys
import types
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

_DETECTORS = ("chardet", "charset_normalizer")
_DRIVERS = ("psycopg2cffi", "psycopg2", "psycopg", "pymysql", "MySQLdb")
_DIALECTS = ("playhouse.cockroachdb", "playhouse.postgres_ext")
_TLS = ("ssl", "urllib3.contrib.pyopenssl", "_hashlib")
"""requests takes the second where the first is missing; the third is OpenSSL's hashes."""
_OWN_HASHES = ("_md5", "_sha1")
"""Python's own, of which a distribution may have built none."""
_YOUNG_OBJECTS = 3_000
"""More than a tick of some hundred processes makes, and little to wait for where an error made a
cycle: its frames hold what the tick had read."""


def leave_out_detectors() -> None:
    """Imports requests without its guessers; call it before anything imports docker.

    Where requests is not available without them (before 2.32), they are loaded as ever.
    """
    if "requests" in sys.modules:
        return
    try:
        with _absent(_DETECTORS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module("requests")
    except ImportError:
        for name in [one for one in sys.modules if one.partition(".")[0] == "requests"]:
            del sys.modules[name]


@contextmanager
def _absent(names: Iterable[str]) -> Iterator[None]:
    """Within the block an import of one that is not loaded yet fails, as if it was not installed.

    Whoever else wants one later gets it; who tried within the block has decided by then.
    """
    left_out = [name for name in names if name not in sys.modules]
    # A None makes an import fail.
    sys.modules.update(dict.fromkeys(left_out))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in left_out:
            if sys.modules.get(name) is None:
                sys.modules.pop(name, None)


def leave_out_tls() -> None:
    """Imports the libraries of HTTP without TLS, and so without OpenSSL. Call it before anything
    imports them, and not where something goes by `http.client.HTTPSConnection`, as
    prometheus_client does.

    An `import ssl` of one's own works as ever.
    """
    if "http.client" in sys.modules or not all(map(importlib.util.find_spec, _OWN_HASHES)):
        return
    with _absent(_TLS):
        for name in ("hashlib", "hmac", "http.client", "urllib.request"):
            importlib.import_module(name)
        leave_out_detectors()


def leave_out_objects() -> None:
    """Imports docker-py without `DockerClient` and its models, some 0.4 MB: the agent speaks to the
    engine through `APIClient`. Call it before anything imports docker.

    `import docker.client` gives the real ones later.
    """
    if "docker" in sys.modules:
        return
    asked = ["client"]

    def nothing(name: str) -> None:
        if name.startswith("_"):
            raise AttributeError(name)
        asked.append(name)

    stand_in = types.ModuleType("docker.client")
    vars(stand_in)["__getattr__"] = nothing
    sys.modules["docker.client"] = stand_in
    try:
        docker = importlib.import_module("docker")
        for name in asked:
            vars(docker).pop(name, None)
    finally:
        del sys.modules["docker.client"]


def leave_out_drivers() -> None:
    """Imports peewee without drivers for other databases; call it before anything imports peewee.

    It loads each one that is installed, also system-wide: psycopg takes 17 MB.
    """
    if "peewee" in sys.modules:
        return
    with _absent((*_DRIVERS, *_DIALECTS)):
        importlib.import_module("peewee")


def migrations() -> Any:
    """The module that changes a database's tables, with its own kind of database alone."""
    with _absent((*_DRIVERS, *_DIALECTS)):
        return importlib.import_module("playhouse.migrations")


def settle_collector() -> None:
    """Spares Python's search for cycles what is known to have none; call it after the first tick.

    What was imported until then stays for good, and a look through its 70,000 objects took as long
    as two ticks. A tick's own values are thousands of tuples that go by their reference counts: at
    Python's threshold of 700 each tick was searched several times while it ran.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)
    # What importing needed in between is the process's until the allocator is told: 1 MB.
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
