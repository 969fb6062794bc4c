"""What people answer, and what a dialog makes of it. Pure; `ValueError` says to the person what would do."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from chatbot.normalization import find_match, fold_name

C = TypeVar("C", bound=str)

NOT_UNDERSTOOD: Final = "Sorry, I did not understand that."

YES: Final = ("yes", "y", "yeah", "yep", "ok", "okay", "sure")
NO: Final = ("no", "n", "nope", "nah")


def choose(answer: str, choices: Sequence[C]) -> C:
    """The choice that an answer means: itself in any case, or a beginning that only it has."""
    found = find_match(answer.strip(), ((one, one) for one in choices))
    if found is not None:
        return found[1]
    typed = fold_name(answer)
    begun = [one for one in choices if typed and fold_name(one).startswith(typed)]
    if len(begun) == 1:
        return begun[0]
    msg = f"Please answer with one of these: {', '.join(choices)}."
    raise ValueError(msg)


def agrees(answer: str, yes: Sequence[str], no: Sequence[str]) -> bool:
    """Whether an answer means yes."""
    typed = _word(answer)
    if typed in map(fold_name, yes):
        return True
    if typed in map(fold_name, no):
        return False
    msg = f"Please answer with {yes[0]} or {no[0]}."
    raise ValueError(msg)


def complaint(error: ValueError, validate: Callable[[str], Any]) -> str:
    """What to tell the person: an author's own words, but not those of Python's own functions."""
    plain = inspect.unwrap(validate)
    return str(error) if hasattr(plain, "__code__") and str(error) else NOT_UNDERSTOOD


def is_cancel(answer: str, words: Sequence[str]) -> bool:
    """Whether somebody does not want to go on."""
    return _word(answer) in map(fold_name, words)


def _word(answer: str) -> str:
    """An answer of one word as it is compared; phones and people put a period behind it."""
    return fold_name(answer).rstrip(".!。").rstrip()
