"""From an event to its handler: filters, typed commands, contexts, and the order in which handlers are asked."""

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
