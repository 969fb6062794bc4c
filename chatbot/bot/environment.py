"""How one bot is to behave."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from chatbot.model import ThreadId
from chatbot.polling.cadence import Cadence
from chatbot.polling.cursor import DEFAULT_SLACK_MS

NO_HISTORY: Final = timedelta(0)
"""A newly joined thread is read from the bot's arrival on."""

ALL_HISTORY: Final = timedelta.max
"""A newly joined thread is read from its beginning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BotSettings:
    """How one bot is to behave.

    Args:
        threads: the only threads to serve; None serves every thread the bot is in, found as they appear.
        history: how far before its arrival a newly joined thread is read.
        cadence: how often to look.
        rejoin: how long replies wait for a bot that was removed from their thread; then they fail.
        retention: how long settled wishes are kept, for edits of old messages and for proofs; and how long timers and
            dialogs wait for a bot that was removed from their thread.
        slack_ms: how much later than its id says a message may become visible and still be handled.
        timeout: how long one attempt of a handler may run that does not say otherwise, in seconds; None is as long as
            it likes.
        max_turns: lanes that are at work at one time, those whose handlers run, or wait to run, not counted.
        max_handlers: handlers that run at one time.
    """

    threads: frozenset[ThreadId] | None = None
    history: timedelta = NO_HISTORY
    cadence: Cadence = field(default_factory=Cadence)
    rejoin: timedelta = timedelta(minutes=10)
    retention: timedelta = timedelta(days=30)
    slack_ms: int = DEFAULT_SLACK_MS
    timeout: float | None = 600.0
    max_turns: int = 64
    max_handlers: int = 32
