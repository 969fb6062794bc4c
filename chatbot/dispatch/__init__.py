"""From an event to its handler: filters, typed commands, contexts, and the order in which handlers are asked."""

from chatbot.dispatch.access import Access, Rate
from chatbot.dispatch.context import Context, SentMessage
from chatbot.dispatch.dispatcher import Dispatcher, HandlerSource
from chatbot.dispatch.event_view import BotInfo, CommandInfo
from chatbot.dispatch.live import Line, NoLine
from chatbot.dispatch.outcome import PASS, Ack, Outcome, Pass, Retry
from chatbot.dispatch.registry import Roster

__all__ = [
    "PASS",
    "Access",
    "Ack",
    "BotInfo",
    "CommandInfo",
    "Context",
    "Dispatcher",
    "HandlerSource",
    "Line",
    "NoLine",
    "Outcome",
    "Pass",
    "Rate",
    "Retry",
    "Roster",
    "SentMessage",
]
