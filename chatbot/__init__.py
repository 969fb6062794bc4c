"""Bots for Azure Communication Services Chat.

The names below are loaded when the first of them is asked for: `chatbot --help` needs none, and answers at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chatbot.actions import (
        Action,
        ActionKey,
        AddParticipants,
        DeleteMessage,
        EditMessage,
        RemoveParticipant,
        SendMessage,
        SendReadReceipt,
        UpdateTopic,
    )
    from chatbot.conversation import BotState, Dialog, ProfileState, State, UserState, migration
    from chatbot.dispatch.arguments import Rest
    from chatbot.dispatch.context import Context, SentMessage
    from chatbot.dispatch.event_view import BotInfo, CommandInfo
    from chatbot.dispatch.filters import (
        Filter,
        admin,
        from_user,
        has_attachment,
        in_thread,
        is_html,
        mentioned,
        regex,
        text,
    )
    from chatbot.dispatch.middleware import Middleware, Proceed
    from chatbot.dispatch.outcome import PASS, Ack, Pass, Reply, Retry
    from chatbot.dispatch.plaintext import Quotation
    from chatbot.errors import ChatbotError, DialogCancelled, DialogTimeout, PluginError, TimeTooFar
    from chatbot.events import (
        ActionFailed,
        BotStarted,
        BotStopping,
        DialogTimedOut,
        Event,
        MessageDeleted,
        MessageEdited,
        MessageEvent,
        MessageReceived,
        ParticipantsAdded,
        ParticipantsRemoved,
        ReadReceiptReceived,
        ScheduleFired,
        ThreadEvent,
        ThreadJoined,
        ThreadLeft,
        TimerFired,
        TopicUpdated,
    )
    from chatbot.model import Attachment, ChatMessage, MessageId, Participant, ThreadId, TimerId, UserId
    from chatbot.plugin import Plugin

__all__ = [
    "PASS",
    "Ack",
    "Action",
    "ActionFailed",
    "ActionKey",
    "AddParticipants",
    "Attachment",
    "BotInfo",
    "BotStarted",
    "BotState",
    "BotStopping",
    "ChatMessage",
    "ChatbotError",
    "CommandInfo",
    "Context",
    "DeleteMessage",
    "Dialog",
    "DialogCancelled",
    "DialogTimedOut",
    "DialogTimeout",
    "EditMessage",
    "Event",
    "Filter",
    "MessageDeleted",
    "MessageEdited",
    "MessageEvent",
    "MessageId",
    "MessageReceived",
    "Middleware",
    "Participant",
    "ParticipantsAdded",
    "ParticipantsRemoved",
    "Pass",
    "Plugin",
    "PluginError",
    "Proceed",
    "ProfileState",
    "Quotation",
    "ReadReceiptReceived",
    "RemoveParticipant",
    "Reply",
    "Rest",
    "Retry",
    "ScheduleFired",
    "SendMessage",
    "SendReadReceipt",
    "SentMessage",
    "State",
    "ThreadEvent",
    "ThreadId",
    "ThreadJoined",
    "ThreadLeft",
    "TimeTooFar",
    "TimerFired",
    "TimerId",
    "TopicUpdated",
    "UpdateTopic",
    "UserId",
    "UserState",
    "admin",
    "from_user",
    "has_attachment",
    "in_thread",
    "is_html",
    "mentioned",
    "migration",
    "regex",
    "text",
]

_MODULES = (
    "chatbot.actions",
    "chatbot.conversation",
    "chatbot.dispatch.arguments",
    "chatbot.dispatch.context",
    "chatbot.dispatch.filters",
    "chatbot.dispatch.middleware",
    "chatbot.dispatch.event_view",
    "chatbot.dispatch.outcome",
    "chatbot.dispatch.plaintext",
    "chatbot.dispatch.outcome",
    "chatbot.dispatch.context",
    "chatbot.errors",
    "chatbot.events",
    "chatbot.model",
    "chatbot.plugin",
)

if not TYPE_CHECKING:  # type checkers know the names from above, and flag those that do not exist

    def __getattr__(name: str) -> Any:
        if name in __all__:
            for module in map(import_module, _MODULES):
                if hasattr(module, name):
                    globals()[name] = value = getattr(module, name)
                    return value
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
