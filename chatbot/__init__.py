"""Bots for Azure Communication Services Chat."""

from chatbot.actions import (
    Action,
    AddParticipants,
    DeleteMessage,
    EditMessage,
    RemoveParticipant,
    SendMessage,
    SendReadReceipt,
    UpdateTopic,
)
from chatbot.dispatch.arguments import Rest
from chatbot.dispatch.context import Context, SentMessage
from chatbot.dispatch.filters import (
    Filter,
    from_user,
    has_attachment,
    in_thread,
    is_html,
    mentioned,
    regex,
    text,
)
from chatbot.dispatch.middleware import Middleware, Proceed
from chatbot.dispatch.occasion import BotInfo, CommandInfo
from chatbot.dispatch.outcome import Ack, Retry
from chatbot.dispatch.reply import PASS, Pass, Reply
from chatbot.errors import ChatbotError, PluginError
from chatbot.events import (
    ActionFailed,
    BotStarted,
    BotStopping,
    Event,
    MessageDeleted,
    MessageEdited,
    MessageEvent,
    MessageReceived,
    ParticipantsAdded,
    ParticipantsRemoved,
    ReadReceiptReceived,
    ThreadEvent,
    ThreadJoined,
    ThreadLeft,
    TopicUpdated,
)
from chatbot.model import Attachment, ChatMessage, MessageId, Participant, ThreadId, UserId
from chatbot.plugin import Plugin

__all__ = [
    "PASS",
    "Ack",
    "Action",
    "ActionFailed",
    "AddParticipants",
    "Attachment",
    "BotInfo",
    "BotStarted",
    "BotStopping",
    "ChatMessage",
    "ChatbotError",
    "CommandInfo",
    "Context",
    "DeleteMessage",
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
    "ReadReceiptReceived",
    "RemoveParticipant",
    "Reply",
    "Rest",
    "Retry",
    "SendMessage",
    "SendReadReceipt",
    "SentMessage",
    "ThreadEvent",
    "ThreadId",
    "ThreadJoined",
    "ThreadLeft",
    "TopicUpdated",
    "UpdateTopic",
    "UserId",
    "from_user",
    "has_attachment",
    "in_thread",
    "is_html",
    "mentioned",
    "regex",
    "text",
]
