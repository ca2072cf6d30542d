"""Reads the rules of a running agent again: checked whole, or the old ones stay."""

from __future__ import annotations

import logging
from collections.abc import Callable

from agent.config import Config
from agent.errors import AgentError
from agent.policy import original

log = logging.getLogger(__name__)


class Reloading:
    """What `agent reload` comes to in the agent. Called by the loop alone."""

    def __init__(self, read: Callable[[], Config] | None, use: Callable[[Config], None]) -> None:
        """`read` gives the settings as they are now, `use` goes by their rules."""
        self._read = read
        self._use = use
        self.count = 0
        """How often it was requested."""
        self.problem = ""

    def run(self) -> None:
        """Takes the rules, or says why not and changes nothing."""
        self.count += 1
        if self._read is None:
            self.problem = "The rules are not read again in this run. Restart the agent."
            return
        try:
            config = self._read()
        except AgentError as error:
            self.problem = f"The rules are those of before: {error}"
            log.warning("rules=kept %s", error)
            return
        self._use(config)
        self.problem = ""
        rules = original.rule_set(config.policy)
        log.info("rules=taken own=%d built_in=%d", len(rules.own), len(rules.built_in))
