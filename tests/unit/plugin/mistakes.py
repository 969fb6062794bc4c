"""Mistakes of authors, each with what is said about it, collected beside the test that looks at all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from chatbot import Plugin, PluginError
from chatbot.dispatch import HandlerRegistry

Mistake: TypeAlias = Callable[[Any], object]  # a plugin of no type: the point is what the type checker would have told


class Mistakes(dict[str, Mistake]):
    """What is written wrong, by what is said about it."""

    def says(self, reason: str) -> Callable[[Mistake], Mistake]:
        """Collect a mistake: a function that makes it in the plugin it is given."""

        def note(mistake: Mistake) -> Mistake:
            self[reason] = mistake
            return mistake

        return note

    def name(self, reason: str) -> str:
        """What to call a mistake."""
        return getattr(self[reason], "__name__", reason)

    def check(self, reason: str, file: str) -> None:
        """See that a mistake is refused before any event: with this file, the line of it, and just these words."""
        mistake, plugin = self[reason], Plugin("a")

        with pytest.raises(PluginError) as caught:  # noqa: PT012 -- some are refused at once, some when all is written
            mistake(plugin)
            HandlerRegistry(plugin.handlers())

        place, line, said = str(caught.value).split(":", 2)
        first = mistake.__code__.co_firstlineno  # type: ignore[attr-defined]
        assert Path(place).name == Path(file).name
        assert first < int(line) < first + 9
        assert said.strip() == reason
