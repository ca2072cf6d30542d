"""Undoing in reverse order, where one failure must not keep the rest from being undone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType
from typing import Self

from agent.errors import AgentError

log = logging.getLogger(__name__)


class UndoStack:
    """Steps are pushed as they are taken and undone last first when the block is left."""

    def __init__(self) -> None:
        self._steps: list[tuple[str, Callable[[], object]]] = []
        self.failures: list[str] = []

    def push(self, name: str, undo: Callable[[], object]) -> None:
        """`undo` runs when the block ends, whatever ends it; `name` is for the log."""
        self._steps.append((name, undo))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        interruption: BaseException | None = None
        while self._steps:
            name, undo = self._steps.pop()
            try:
                undo()
            except (AgentError, OSError) as failure:
                log.warning("undo=%s outcome=failed %s", name, failure)
                self.failures.append(f"{name}: {failure}")
            except BaseException as failure:  # whatever it is, the rest has to be undone
                log.exception("undo=%s outcome=failed", name)
                self.failures.append(f"{name}: {type(failure).__name__}: {failure}")
                if not isinstance(failure, Exception):
                    interruption = failure
        if interruption is not None:
            raise interruption
