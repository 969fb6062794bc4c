"""What people answer, and what a dialog makes of it. Pure; `ValueError` says to the person what would do."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

C = TypeVar("C", bound=str)

NOT_UNDERSTOOD: Final = "Sorry, I did not understand that."

YES: Final = ("yes", "y", "yeah", "yep", "ok", "okay", "sure")
NO: Final = ("no", "n", "nope", "nah")


def choose(answer: str, choices: Sequence[C]) -> C:
    """The choice that an answer means: itself in any case, or a beginning that only it has."""
    typed = answer.strip().casefold()
    for one in choices:
        if one.casefold() == typed:
            return one
    begun = [one for one in choices if typed and one.casefold().startswith(typed)]
    if len(begun) == 1:
        return begun[0]
    msg = f"Please answer with one of these: {', '.join(choices)}."
    raise ValueError(msg)


def agrees(answer: str, yes: Sequence[str], no: Sequence[str]) -> bool:
    """Whether an answer means yes."""
    typed = answer.strip().rstrip(".!").casefold()
    if typed in {one.casefold() for one in yes}:
        return True
    if typed in {one.casefold() for one in no}:
        return False
    msg = f"Please answer with {yes[0]} or {no[0]}."
    raise ValueError(msg)


def complaint(error: ValueError, validate: Callable[[str], Any]) -> str:
    """What to tell the person: an author's own words, but not those of Python's own functions."""
    plain = inspect.unwrap(validate)
    return str(error) if hasattr(plain, "__code__") and str(error) else NOT_UNDERSTOOD


def is_cancel(answer: str, words: Sequence[str]) -> bool:
    """Whether somebody does not want to go on."""
    return answer.strip().rstrip(".!").casefold() in {word.casefold() for word in words}
