"""The fleet's own errors: the centre cannot be used, or this host cannot ship."""

from __future__ import annotations

from agent.errors import AgentError


class FleetError(AgentError):
    """The centre, its address or its answer cannot be used."""

    exit_status = 9
