"""Where commands of the same user ask the daemon: how it is doing, to reload, and what the caretaker answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chatbot.errors import StateError
from chatbot.model import ThreadId
from chatbot.runtime.caretaker import Caretaker
from chatbot.runtime.observe.status import Observatory, as_json
from chatbot.runtime.reloading import Reloader


class Desk:
    """Hands questions on to whoever knows.

    Args:
        caretaker: knows the bots' memory.
        observatory: knows how they are doing.
        reloader: takes up what has changed; None where the bots are about to end by themselves.
    """

    def __init__(self, caretaker: Caretaker, observatory: Observatory, reloader: Reloader | None) -> None:
        self._caretaker = caretaker
        self._observatory = observatory
        self._reloader = reloader

    async def answer(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        """Answer a question: `{"ask": "status"}`, `{"ask": "unsent", "thread": …}`, `{"ask": "reload", "force": …}`, or
        one of `Caretaker.answer`.
        """
        match question.get("ask"):
            case "status":
                return as_json(await self._observatory.look())
            case "unsent":
                return {"count": self._observatory.unsent(ThreadId(str(question.get("thread"))))}
            case "reload":
                if self._reloader is None:
                    message = "these bots end by themselves (--once); what has changed is taken up at the next start"
                    raise StateError(message)
                return await self._reloader.reload(is_forced=question.get("force") is True)
            case _:
                return await self._caretaker.answer(question)
