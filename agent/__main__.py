"""The console script `agent`, and the one place where errors are printed for people."""

from __future__ import annotations

import sys

from agent.errors import AgentError
from agent.util.terminal import Say, printable


def main() -> None:
    """Runs the command line and ends the process with its status; never with a traceback."""
    say = Say(sys.stderr)
    try:
        # Imported here: an import error must be one sentence too.
        from agent.cli.app import run  # noqa: PLC0415

        status = run()
    except ImportError as error:
        say(f"agent: its installation is not whole: {printable(str(error))}.")
        say("       Run `./bash/start.sh --install-only`.")
        sys.exit(1)
    except AgentError as error:
        say(f"agent: {printable(error.message)}")
        if error.hint:
            say(f"       {printable(error.hint)}")
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)
    except OSError as error:  # a full disk behind standard output, most of all
        about = f"{error.filename}: " if error.filename else ""
        say(f"agent: {printable(f'{about}{error.strerror or error}')}.")
        sys.exit(1)
    sys.exit(status)


if __name__ == "__main__":
    main()
