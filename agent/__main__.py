"""The console script `agent`, and the one place where errors are printed for people."""

from __future__ import annotations

import sys

from agent.errors import AgentError
from agent.terminal import Say, printable


def main() -> None:
    """Runs the command line and ends the process with its status; never with a traceback."""
    # Imported here: `agent --help` must be quick, and an import error must be one sentence too.
    from agent.commands.app import run  # noqa: PLC0415

    say = Say(sys.stderr)
    try:
        status = run()
    except AgentError as error:
        say(f"agent: {printable(error.message)}")
        if error.hint:
            say(f"       {printable(error.hint)}")
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)
    sys.exit(status)


if __name__ == "__main__":
    main()
