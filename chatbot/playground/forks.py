"""The fork of a page: a thread replayed with today's code in processes of their own, beside the old answers.

A page has one fork at a time; it ends when the page begins another one, stops it, or goes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import anyio

from chatbot.playground.emulator_client import Refused
from chatbot.playground.thread_views import Json, shown_html

Replay = Callable[[Mapping[str, Any], Callable[[int, int], None]], Awaitable[tuple[Json, list[Json]]]]
"""Replays a thread: takes `thread`, `edits` and `network`, and a function that is told the progress; returns the rows
of the comparison, and the stories of the replay."""

PROGRESS_SECONDS: Final = 0.05


class Forks:
    """The forks of one page.

    Args:
        replay: replays a thread; None if there are no bots.
        push: sends a frame to the page.
    """

    def __init__(self, replay: Replay | None, push: Callable[[Json], None]) -> None:
        self._replay = replay
        self._push = push
        self._scope: anyio.CancelScope | None = None
        self._stories: list[Json] = []
        self._pushed_at = 0.0

    async def run(self, wanted: Mapping[str, Any]) -> Json:
        """Replay a thread; an earlier fork of the page ends.

        Raises:
            Refused: there are no bots, or the fork was stopped.
            ChatbotError: the thread cannot be replayed.
        """
        if self._replay is None:
            message = "there are no bots to replay the thread with"
            raise Refused(message)
        self.stop()
        self._stories = []
        with anyio.CancelScope() as scope:
            self._scope = scope
            found, self._stories = await self._replay(wanted, self._report)
            for row in found["rows"]:
                for message in (row, row.get("old"), row.get("new")):
                    if message and message.get("is_html"):
                        message["html"] = shown_html(message["text"])
            return found
        message = "the fork was stopped"
        raise Refused(message)

    def stop(self) -> None:
        """End the fork that runs."""
        if self._scope is not None:
            self._scope.cancel()

    def stories(self, *, message: str, key: str) -> list[Json]:
        """Return the stories of a person's message, or of the bot's reply with a key, in the replay."""
        return [
            story
            for story in self._stories
            if (message and story.get("message") == message)
            or (key and any(step["kind"] == "action" and step["key"] == key for step in story["steps"]))
        ]

    def _report(self, done: int, count: int) -> None:
        now = anyio.current_time()
        if done == 0 or now - self._pushed_at >= PROGRESS_SECONDS:
            self._pushed_at = now
            self._push({"push": "fork", "done": done, "of": count})
