"""What can go wrong in the lab itself, as opposed to in what runs inside a guest.

Each has an exit status of its own, so that a script can tell a failing test from a guest that
went away: a lost guest is never a pass and never a plain failure.
"""

from __future__ import annotations


class LabError(Exception):
    """The lab could not do its part. `hint` says the remedy."""

    exit_status = 120

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class LostGuestError(LabError):
    """The guest ended before the command in it had reported its status."""

    exit_status = 121


class GuestTimeoutError(LabError):
    """The guest was still running when its time was over."""

    exit_status = 122


class KernelComplaintError(LabError):
    """The command passed, but the guest's kernel logged a warning, a stall or worse."""

    exit_status = 123
