"""Keeps out of a running agent what it never needs: a library's baggage, and idle searches.

requests, which docker-py is built on, loads two guessers of text encodings: some 5 MB resident for
the agent's whole life. Docker answers JSON, which is UTF-8, so there is nothing to guess.
"""

from __future__ import annotations

import gc
import importlib
import sys
import warnings

_DETECTORS = ("chardet", "charset_normalizer")
_DRIVERS = ("psycopg2cffi", "psycopg2", "psycopg", "pymysql", "MySQLdb")
_YOUNG_OBJECTS = 3_000
"""More than a tick of some hundred processes makes, and little to wait for where an error made a
cycle: its frames hold what the tick had read."""


def leave_out_detectors() -> None:
    """Imports requests without its guessers; call it before anything imports docker.

    Where requests is not available without them (before 2.32), they are loaded as ever.
    """
    if "requests" in sys.modules:
        return
    left_out = [name for name in _DETECTORS if name not in sys.modules]
    # A None makes an import fail, which is how requests finds out that one is not installed.
    sys.modules.update(dict.fromkeys(left_out))  # type: ignore[arg-type]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module("requests")
    except ImportError:
        for name in [one for one in sys.modules if one.partition(".")[0] == "requests"]:
            del sys.modules[name]
    finally:
        # Whoever else wants one later gets it; requests has decided by now.
        for name in left_out:
            if sys.modules.get(name) is None:
                sys.modules.pop(name, None)


def leave_out_drivers() -> None:
    """Imports peewee without drivers for other databases; call it before anything imports peewee.

    It loads each one that is installed, also system-wide: psycopg takes 17 MB.
    """
    if "peewee" in sys.modules:
        return
    left_out = [name for name in _DRIVERS if name not in sys.modules]
    sys.modules.update(dict.fromkeys(left_out))  # type: ignore[arg-type]
    try:
        # The second loads them too.
        for name in ("peewee", "playhouse.migrations"):
            importlib.import_module(name)
    finally:
        for name in left_out:
            if sys.modules.get(name) is None:
                sys.modules.pop(name, None)


def settle_collector() -> None:
    """Spares Python's search for cycles what is known to have none; call it after the first tick.

    What was imported until then stays for good, and a look through its 70,000 objects took as long
    as two ticks. A tick's own values are thousands of tuples that go by their reference counts: at
    Python's threshold of 700 each tick was searched several times while it ran.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)
