"""From an event to its handler: filters, typed commands, contexts, and the order in which handlers are asked."""

from chatbot.dispatch.access import Access
from chatbot.dispatch.context import Context
from chatbot.dispatch.dispatcher import Dispatcher, HandlerSource
from chatbot.dispatch.line import Line, NoLine
from chatbot.dispatch.occasion import BotInfo, CommandInfo
from chatbot.dispatch.outcome import Ack, Outcome, Retry
from chatbot.dispatch.rate import Rate
from chatbot.dispatch.reply import PASS, Pass
from chatbot.dispatch.roster import Roster
from chatbot.dispatch.sent import SentMessage

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
