"""From an event to its handler: filters, typed commands, contexts, and the order in which handlers are asked."""

from typing import TYPE_CHECKING

from chatbot.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from chatbot.dispatch.access import Access, Rate
    from chatbot.dispatch.context import Context, SentMessage
    from chatbot.dispatch.dispatcher import Dispatcher, HandlerSource
    from chatbot.dispatch.event_view import BotInfo, CommandInfo
    from chatbot.dispatch.live import LiveChannel, NoLiveChannel
    from chatbot.dispatch.outcome import PASS, Ack, Outcome, Pass, Retry
    from chatbot.dispatch.registry import HandlerRegistry

__all__ = [
    "PASS",
    "Access",
    "Ack",
    "BotInfo",
    "CommandInfo",
    "Context",
    "Dispatcher",
    "HandlerRegistry",
    "HandlerSource",
    "LiveChannel",
    "NoLiveChannel",
    "Outcome",
    "Pass",
    "Rate",
    "Retry",
    "SentMessage",
]

if not TYPE_CHECKING:  # type checkers know the names from above, and flag those that do not exist
    __getattr__ = lazy_exports(
        __name__,
        {
            "Access": "chatbot.dispatch.access",
            "Ack": "chatbot.dispatch.outcome",
            "BotInfo": "chatbot.dispatch.event_view",
            "CommandInfo": "chatbot.dispatch.event_view",
            "Context": "chatbot.dispatch.context",
            "Dispatcher": "chatbot.dispatch.dispatcher",
            "HandlerRegistry": "chatbot.dispatch.registry",
            "HandlerSource": "chatbot.dispatch.dispatcher",
            "LiveChannel": "chatbot.dispatch.live",
            "NoLiveChannel": "chatbot.dispatch.live",
            "Outcome": "chatbot.dispatch.outcome",
            "PASS": "chatbot.dispatch.outcome",
            "Pass": "chatbot.dispatch.outcome",
            "Rate": "chatbot.dispatch.access",
            "Retry": "chatbot.dispatch.outcome",
            "SentMessage": "chatbot.dispatch.context",
        },
    )
