"""What the playground may do with running bots: read their stories, shift their clock, and send admin requests.

It exists only for bots on the embedded emulator: the command creates it with the emulator, and the daemon drops it on
any other service.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import anyio

from chatbot.bot.status import quota_left
from chatbot.dispatch.handler import Handler
from chatbot.errors import StateError, UnknownName
from chatbot.runtime.admin_api import ControlApi, audit
from chatbot.runtime.assemble import Runtime
from chatbot.runtime.observe.story import MAX_TEXT, Stories
from chatbot.service.budget import Operation

_SHOWN_QUOTAS: Final = (Operation.LIST_MESSAGES, Operation.WRITE_MESSAGE, Operation.SEND_RECEIPT, Operation.SEND_TYPING)
"""The quotas of a thread that bots use up in practice."""

_STARTING: Final = "the bots are starting; try again in a moment"


class ShiftedClock:
    """This machine's clock plus an offset.

    Args:
        offset: Seconds.
    """

    def __init__(self, offset: float = 0.0) -> None:
        self.offset = offset

    def __call__(self) -> float:
        return time.time() + self.offset


class Sandbox:
    """The bots of this process, for the playground.

    Args:
        clock: The clock of the bots.
        stories: What the bots do with each event; None without a playground.

    Attributes:
        link: Address of the playground, with its token: for the terminal, never for the log. Empty without one.
    """

    def __init__(self, clock: ShiftedClock, stories: Stories | None = None) -> None:
        self.clock = clock
        self.stories = stories
        self.link = ""
        self._runtime: Runtime | None = None
        self._control: ControlApi | None = None
        self._restart: Callable[[], Awaitable[None]] | None = None
        self._restarting = anyio.Lock()

    def attach(self, runtime: Runtime, control: ControlApi, restart: Callable[[], Awaitable[None]]) -> None:
        """Connect to the bots, which are about to run; `restart` cuts them off and starts them again."""
        self._runtime, self._control, self._restart = runtime, control, restart

    async def restart(self) -> None:
        """Cut off all tasks of the bots as a kill does, and start them again from what the store holds.

        Raises:
            StateError: the bots are starting.
            ConfigError: their code cannot be loaded any more; they continue to run.
        """
        async with self._restarting:
            if self._restart is None:
                raise StateError(_STARTING)
            await self._restart()

    def bots(self) -> list[dict[str, str]]:
        """Return the bots: name, user and display name."""
        bots = self._runtime.bots if self._runtime is not None else []
        return [{"name": bot.name, "user": bot.user, "display_name": bot.context.display_name} for bot in bots]

    def shift_clock(self, offset: float) -> None:
        """Set the bots' clock to this machine's plus an offset in seconds; what is due by then is due now."""
        self.clock.offset = offset
        for bot in self._runtime.bots if self._runtime is not None else ():
            bot.context.conversations.clock_changed()

    def lanes(self) -> list[dict[str, Any]]:
        """Return what each bot does in each of its threads now."""
        bots = self._runtime.bots if self._runtime is not None else []
        return [
            {
                "bot": bot.name,
                "thread": thread,
                "presence": lane.membership.presence.name.lower(),
                "outbox": len(lane.commits.outbox),
                "unhandled_ms": lane.poller.unhandled_ms,
                "retry_seconds": round(lane.retries.attempts.pause_left, 1),
                "quota_left": {one.label: quota_left(bot, one, thread) for one in _SHOWN_QUOTAS},
            }
            for bot in bots
            for thread, lane in bot.scheduler.lanes.items()
        ]

    def source(self, name: str) -> dict[str, Any]:
        """Return file, first line and text of a handler of these bots; it reads a file.

        Raises:
            UnknownName: there is no such handler.
        """
        for bot in self._runtime.bots if self._runtime is not None else ():
            for handler in bot.handlers.dispatcher.handlers:
                if handler.name == name:
                    return _source(handler)
        message = f"no bot has the handler {name[:200]!r} any more"
        raise UnknownName(message)

    async def answer(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        """Answer an admin request; see `ControlApi.answer`.

        Raises:
            StateError: the bots are starting.
            ChatbotError: the request was refused.
        """
        if self._control is None:
            raise StateError(_STARTING)
        answer = await self._control.answer(question)
        facts = audit(question)
        if facts is not None:
            import structlog

            structlog.get_logger().info("command.answered", **facts, outcome="done", by="playground")
        return answer


def _source(handler: Handler) -> dict[str, Any]:
    function = inspect.unwrap(handler.registration.function)
    try:
        lines, first = inspect.getsourcelines(function)
    except (OSError, TypeError):  # it was made without a file, or the file has gone
        return {"place": handler.place, "file": "", "line": 0, "text": ""}
    file = inspect.getsourcefile(function) or ""
    return {"place": handler.place, "file": file, "line": max(1, first), "text": "".join(lines)[:MAX_TEXT]}
