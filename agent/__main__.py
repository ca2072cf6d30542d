"""The console script `agent`, and the one place where errors are printed for people."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

from agent.errors import AgentError
from agent.place import INSTALL
from agent.util.terminal import Say, printable


def main() -> None:
    """Runs the command line and ends the process with its status; never with a traceback."""
    try:
        # Imported here, as the commands are: an import error must be one sentence too.
        from agent.util import streams  # noqa: PLC0415
    except ImportError as error:
        _not_whole(error)
    streams.prepare()
    try:
        sys.exit(_status())
    finally:
        streams.settle()


def _status() -> int:
    """What the command line gives, its error printed."""
    say = Say(sys.stderr)
    try:
        if sys.argv[1:3] == ["fleet", "ship"]:
            from agent.fleet.ship import plain_options, ship  # noqa: PLC0415
            from agent.util import streams  # noqa: PLC0415

            options = plain_options(sys.argv[3:])
            if options is not None:
                config = options.get("config")
                streams.out(ship(Path(config) if config else None, options.get("database")))
                return 0
        if sys.argv[1:2] == ["start"]:
            from agent.cli.commands import start  # noqa: PLC0415

            words = start.plain_options(sys.argv[2:])
            if words is not None:
                return start.start(**words)
        from agent.cli.app import run  # noqa: PLC0415

        return run()
    except ImportError as error:
        _not_whole(error)
    except AgentError as error:
        if error.message:
            say(f"agent: {printable(error.message)}")
        if error.hint:
            say(f"       {printable(error.hint)}")
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141
    except OSError as error:
        about = f"{error.filename}: " if error.filename else ""
        say(f"agent: {printable(f'{about}{error.strerror or error}')}.")
        return 1


def _not_whole(error: ImportError) -> NoReturn:
    say = Say(sys.stderr)
    say(f"agent: its installation is not whole: {printable(str(error))}.")
    say(f"       Run `{INSTALL}`.")
    sys.exit(1)


if __name__ == "__main__":
    main()
