"""Steps are undone last first, and one that fails keeps no other from being undone."""

from __future__ import annotations

import functools

import pytest

from agent.errors import AgentError
from agent.util.undo import UndoStack


class ForeignError(Exception):
    """Of no family that the stack knows."""


class SignalLikeError(BaseException):
    """As a signal's handler raises."""


def fails(error: BaseException) -> None:
    raise error


def test_steps_are_undone_last_first() -> None:
    done: list[str] = []
    with UndoStack() as undo:
        for name in "abc":
            undo.push(name, functools.partial(done.append, name))
    assert done == ["c", "b", "a"]
    assert undo.failures == []


def test_an_error_in_the_block_passes_and_everything_is_undone() -> None:
    done: list[str] = []
    with pytest.raises(ForeignError), UndoStack() as undo:
        undo.push("a", lambda: done.append("a"))
        raise ForeignError
    assert done == ["a"]


@pytest.mark.parametrize(
    "error", [AgentError("It stays.", "Remove it."), OSError(5, "I/O error"), ForeignError("odd")]
)
def test_a_step_that_fails_is_named_and_the_others_are_undone(error: Exception) -> None:
    done: list[str] = []
    with UndoStack() as undo:
        undo.push("first", lambda: done.append("first"))
        undo.push("broken", lambda: fails(error))
        undo.push("last", lambda: done.append("last"))
    assert done == ["last", "first"]
    assert len(undo.failures) == 1
    assert undo.failures[0].startswith("broken: ")
    assert str(error) in undo.failures[0]


def test_a_step_that_is_interrupted_keeps_no_other_from_being_undone() -> None:
    done: list[str] = []
    with pytest.raises(SignalLikeError), UndoStack() as undo:
        undo.push("first", lambda: done.append("first"))
        undo.push("interrupted", lambda: fails(SignalLikeError()))
    assert done == ["first"]


def test_a_step_may_push_another_while_undoing() -> None:
    done: list[str] = []
    with UndoStack() as undo:
        undo.push("outer", lambda: undo.push("inner", lambda: done.append("inner")))
    assert done == ["inner"]


def test_a_stack_is_empty_after_its_block() -> None:
    done: list[str] = []
    undo = UndoStack()
    with undo:
        undo.push("a", lambda: done.append("a"))
    with undo:
        pass
    assert done == ["a"]
