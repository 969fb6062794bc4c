"""Events, actions and errors, as type checkers see them. Checked by mypy --strict and pyright, never run."""

# pyright: reportUnnecessaryTypeIgnoreComment=true, reportUnusedFunction=false

from __future__ import annotations

from datetime import datetime
from typing import assert_type

from chatbot import (
    Action,
    ActionFailed,
    ActionKey,
    AddParticipants,
    BotStarted,
    BotStopping,
    ChatbotError,
    ChatMessage,
    Context,
    DeleteMessage,
    DialogCancelled,
    DialogTimedOut,
    DialogTimeout,
    EditMessage,
    Event,
    MessageDeleted,
    MessageEdited,
    MessageEvent,
    MessageId,
    MessageReceived,
    Participant,
    ParticipantsAdded,
    ParticipantsRemoved,
    Plugin,
    PluginError,
    Quotation,
    ReadReceiptReceived,
    RemoveParticipant,
    ScheduleFired,
    SendMessage,
    SendReadReceipt,
    ThreadEvent,
    ThreadId,
    ThreadJoined,
    ThreadLeft,
    TimerFired,
    TimeTooFar,
    TopicUpdated,
    UpdateTopic,
    UserId,
)

plugin = Plugin("words")

# Every event that can be asked for, and what it holds.


@plugin.on(MessageReceived)
async def received(ctx: Context[MessageReceived]) -> str:
    assert_type(ctx.event.message, ChatMessage)
    assert_type(ctx.quoted, Quotation | None)
    return ctx.text


@plugin.on(MessageEdited)
async def edited(ctx: Context[MessageEdited]) -> str:
    return ctx.text


@plugin.on(MessageDeleted)
async def deleted(ctx: Context[MessageDeleted]) -> None:
    assert_type(ctx.message.deleted_on, datetime | None)


@plugin.on(ParticipantsAdded)
async def added(ctx: Context[ParticipantsAdded]) -> None:
    assert_type(ctx.event.participants, tuple[Participant, ...])
    assert_type(ctx.event.initiator, UserId | None)


@plugin.on(ParticipantsRemoved)
async def removed(ctx: Context[ParticipantsRemoved]) -> None:
    assert_type(ctx.event.participants, tuple[Participant, ...])


@plugin.on(TopicUpdated)
async def topic(ctx: Context[TopicUpdated]) -> str:
    assert_type(ctx.event.topic, str)
    return ctx.event.topic


@plugin.on(ReadReceiptReceived)
async def read(ctx: Context[ReadReceiptReceived]) -> None:
    assert_type(ctx.event.receipt.reader, UserId)
    assert_type(ctx.event.receipt.message, MessageId)


@plugin.on(ThreadJoined)
async def arrived(ctx: Context[ThreadJoined]) -> str:
    assert_type(ctx.event.arrival, MessageId | None)
    return "Hello, everybody."


@plugin.on(ThreadLeft)
async def gone(ctx: Context[ThreadLeft]) -> None:
    assert_type(ctx.event.is_deleted, bool)


@plugin.on(ActionFailed)
async def refused(ctx: Context[ActionFailed]) -> None:
    assert_type(ctx.event.action, Action)
    assert_type(ctx.event.action_key, ActionKey)
    assert_type(ctx.event.reason, str)


@plugin.on(BotStarted)
async def started(ctx: Context[BotStarted]) -> None:
    assert_type(ctx.event.bot, UserId)
    assert_type(ctx.event.occurred_on, datetime)


@plugin.on(BotStopping)
async def stopping(ctx: Context[BotStopping]) -> None:
    assert_type(ctx.event.key, str)


@plugin.on(MessageEvent)
async def about_messages(ctx: Context[MessageEvent]) -> None:
    assert_type(ctx.thread, ThreadId)


@plugin.on(ThreadEvent)
async def in_threads(ctx: Context[ThreadEvent]) -> None:
    assert_type(ctx.thread, ThreadId)


@plugin.on(Event)
async def anything(ctx: Context[Event]) -> None:
    match ctx.event:
        case TimerFired() | ScheduleFired():
            assert_type(ctx.event.due, datetime)
        case DialogTimedOut():
            assert_type(ctx.event.user, UserId)
        case _:
            pass


# Another event than the one that was asked for.


@plugin.on(MessageEdited)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def not_edited(ctx: Context[MessageDeleted]) -> None: ...


@plugin.on(MessageDeleted)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def not_deleted(ctx: Context[MessageReceived]) -> None: ...


@plugin.on(ParticipantsRemoved)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def not_removed(ctx: Context[ParticipantsAdded]) -> None: ...


@plugin.on(TopicUpdated)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def not_a_topic(ctx: Context[ParticipantsAdded]) -> None: ...


@plugin.on(ReadReceiptReceived)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def a_receipt_is_no_message(ctx: Context[MessageEvent]) -> None: ...


@plugin.on(ThreadJoined)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def not_joined(ctx: Context[ThreadLeft]) -> None: ...


@plugin.on(ActionFailed)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def not_failed(ctx: Context[ReadReceiptReceived]) -> None: ...


@plugin.on(BotStarted)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def a_start_has_no_thread(ctx: Context[ThreadEvent]) -> None: ...


@plugin.on(ThreadEvent)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def narrower_than_asked_for(ctx: Context[MessageEvent]) -> None: ...


plugin.on(Action)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
plugin.on(MessageReceived, "hi")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

# Actions, as tests compare them.

USER, THREAD, MESSAGE, KEY = UserId("8:acs:x"), ThreadId("19:x"), MessageId("1"), ActionKey("k")

ACTIONS: list[Action] = [
    SendMessage("hi"),
    SendMessage("<b>hi</b>", type="html", thread=THREAD, display_name="Bot", metadata={"a": "b"}),
    EditMessage(MESSAGE, "hello"),
    EditMessage(KEY, "hello", THREAD),
    DeleteMessage(KEY),
    SendReadReceipt(MESSAGE),
    AddParticipants((Participant(USER, "Ann"),)),
    RemoveParticipant(USER, THREAD),
    UpdateTopic("Lunch"),
]

SendMessage()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
SendMessage("hi", type="markdown")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
EditMessage("1", "hello")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
DeleteMessage(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
SendReadReceipt(THREAD)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
AddParticipants([Participant(USER)])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
RemoveParticipant(Participant(USER))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
UpdateTopic(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
SendMessage("hi").content = "ho"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]

# Errors: one except for all, and for those that have a meaning of their own.


def explained(error: Exception) -> str:
    match error:
        case DialogTimeout():
            assert_type(error, DialogTimeout)
            return "too late"
        case TimeTooFar():
            assert_type(error, TimeTooFar)
            return "too far"
        case DialogCancelled() | PluginError():
            return str(error)
        case ChatbotError():
            return "another one of ours"
        case _:
            return "somebody else's"


def is_late(error: DialogTimeout) -> TimeoutError:
    return error
