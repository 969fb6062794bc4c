"""Dead letters as people and programs see them: plain facts. Pure.

What somebody wrote, and errors, which may quote it, are only in the details of one letter, never in a list.
"""

from __future__ import annotations

from typing import Any

from chatbot.events import ActionFailed, MessageEvent, ThreadEvent
from chatbot.stores.base import BotRecord, DeadLetter
from chatbot.stores.codec import EVENTS


def summary(bot: BotRecord, letter: DeadLetter) -> dict[str, Any]:
    """What stands in a list: no message text, and of the error only its type."""
    event = letter.event
    return {
        "id": letter.id,
        "bot": bot.name,
        "died_ms": letter.died_ms,
        "attempts": letter.attempts,
        "event": type(event).__name__,
        "thread": event.thread if isinstance(event, ThreadEvent) else None,
        "handler": letter.handler,
        "error": letter.error.partition(":")[0],
        "is_revived": letter.is_revived,
    }


def details(bot: BotRecord, letter: DeadLetter) -> dict[str, Any]:
    """Everything that is known of a letter, message text included."""
    facts = {**summary(bot, letter), "error": letter.error, "user": bot.user, "resource": bot.resource}
    match letter.event:
        case MessageEvent(message=message):
            facts |= {
                "message": message.id,
                "sender": message.sender,
                "sender_name": message.sender_display_name,
                "text": message.content,
            }
        case ActionFailed(action=action, reason=reason):
            facts |= {"wish": type(action).__name__, "reason": reason, "text": getattr(action, "content", None)}
        case _:
            pass
    return {**facts, "facts": EVENTS.encode(letter.event, "event")}
