"""Where commands of the same user ask the daemon: how it is doing, and everything that the caretaker answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chatbot.runtime.caretaker import Caretaker
from chatbot.runtime.observe.status import Observatory, as_json


class Desk:
    """Hands questions on to whoever knows.

    Args:
        caretaker: knows the bots' memory.
        observatory: knows how they are doing.
    """

    def __init__(self, caretaker: Caretaker, observatory: Observatory) -> None:
        self.caretaker = caretaker
        self.observatory = observatory

    async def answer(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        """Answer one question: `{"ask": "status"}`, or one of `Caretaker.answer`."""
        if question.get("ask") == "status":
            return as_json(await self.observatory.look())
        return await self.caretaker.answer(question)
