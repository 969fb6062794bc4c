"""What a handler receives: the event, and methods to reply and act.

A context never calls the service. Each method adds an action to the event's `ActionBuffer`. The actions are committed
together with the event and sent after that, each effectively once; if the handler fails, none of them is kept.
Exceptions are what cannot wait for the commit: typing indicators, the list of participants and `stream` use the live
channel, and `once` stores the result of an effect as soon as it is there.

`SentMessage` is the handle of a message: it can be edited or deleted, even before it was sent.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, ParamSpec, Self, TypeVar, overload

from chatbot.actions import (
    Action,
    ActionKey,
    AddParticipants,
    DeleteMessage,
    EditMessage,
    RemoveParticipant,
    SendMessage,
    UpdateTopic,
    action_key,
    expect_identifier,
    expect_text,
    make_encodable,
    make_pieces_encodable,
    piece_key,
)
from chatbot.conversation.idempotency import refuse_inside_effect
from chatbot.dispatch.action_buffer import ActionBuffer
from chatbot.dispatch.event_view import BotInfo, CommandInfo, EventView
from chatbot.dispatch.live import show_typing_while
from chatbot.dispatch.outcome import Reply
from chatbot.dispatch.plaintext import Quotation
from chatbot.dispatch.source_location import qualified_name
from chatbot.durations import due_on
from chatbot.errors import StateError
from chatbot.events import Event, MessageEvent, MessageReceived, ThreadEvent
from chatbot.message_size import check_message, pieces_of_edit
from chatbot.model import (
    RESERVED_METADATA_PREFIX,
    Attachment,
    ChatMessage,
    MessageId,
    MessageType,
    Participant,
    ThreadId,
    TimerId,
    UserId,
    Value,
)

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

MAX_QUOTE: Final = 200
"""How many characters of a message are quoted."""


def quoted(quoted_text: str, answer: str, kind: Literal["text", "html"]) -> str:
    """Return an answer below a quotation of the message that it answers.

    Args:
        quoted_text: the quoted message, as plain text.
        answer: the reply, as text or HTML.
        kind: the type of the reply.
    """
    beginning = quoted_text.strip()
    if len(beginning) > MAX_QUOTE:
        beginning = beginning[:MAX_QUOTE].rstrip() + "…"
    if not beginning:
        return answer
    if kind == "html":
        import html

        lines = "<br>".join(html.escape(line, quote=False) for line in beginning.splitlines())
        return f"<blockquote>{lines}</blockquote>{answer}"
    return "\n".join(f"> {line}".rstrip() for line in beginning.splitlines()) + f"\n\n{answer}"


P = ParamSpec("P")
T = TypeVar("T")


class Durable:
    """The durable part of a context.

    Args:
        view: the event, and the bot it happened to.
        handler: the qualified name of the handler.
        buffer: collects actions; holds the unit of work of the event.
    """

    __slots__ = ("_buffer", "_handler", "_is_open", "_view")

    def __init__(self, view: EventView, *, handler: str, buffer: ActionBuffer) -> None:
        self._view = view
        self._handler = handler
        self._buffer = buffer
        self._is_open = True

    async def later(
        self, when: timedelta | datetime, timer: Callable[..., Coroutine[Any, Any, Reply]], /, **payload: object
    ) -> TimerId:
        """Set a durable timer that calls a `@plugin.timer` function in this thread.

        If the bot is not running when the timer is due, the function is called once after the bot has started.

        Args:
            when: a delay, or a datetime with a time zone; one in the past is due immediately.
            timer: the function.
            payload: its arguments after the context, stored by its annotations.

        Returns:
            The timer's id for `cancel`; it can be stored in a state.

        Raises:
            StateError: the function is not a timer of this bot, or the event happens in no thread.
            ValueError: a datetime without a time zone.
            TimeTooFar: more than 100 years from now. If a handler of a message does not catch it, its text is sent.
            TypeError: the function takes other arguments, or `when` is neither a timedelta nor a datetime.
            CannotStore: an argument is not of its declared type, or has half of a surrogate pair.
        """
        self._check_can_act("later")
        name = qualified_name(timer)
        due, stored = self._plan_timer(when, name, payload)
        id = TimerId(self._buffer.next_key(self._handler))
        self._buffer.unit_of_work.set_timer(id, name, due, stored)
        return id

    def _plan_timer(self, when: timedelta | datetime, name: str, payload: Mapping[str, object]) -> tuple[datetime, str]:
        """Return when a timer is due, and the stored form of its payload; errors as for `later`."""
        takes = self._view.timers.get(name)
        if takes is None:
            msg = f"{name} is not a timer of this bot; decorate it with @plugin.timer, in a plugin that the bot has"
            raise StateError(msg)
        if not isinstance(when, timedelta | datetime):
            msg = f"later() takes a timedelta or a datetime, not {type(when).__name__}"
            raise TypeError(msg)
        return due_on(self._buffer.unit_of_work.now, when), takes.encode(payload)

    async def cancel(self, timer: TimerId) -> None:
        """Cancel a timer that `later` has set; does nothing if it has been called already."""
        self._check_can_act("cancel")
        self._buffer.unit_of_work.drop_timer(expect_identifier(timer, "cancel()"))

    @overload
    async def once(self, key: str, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T: ...

    @overload
    async def once(self, key: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...

    async def once(self, key: str, function: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Call a function with effects outside the chat, such as a charge or a mail, once for this event.

        The result is stored before the handler goes on, and later attempts get it without a call. If the process dies
        after the effect and before that, the function is called again: it is called at least once, and rarely more
        often.

        Args:
            key: identifies the call within the handler.
            function: async or not; its result is stored by its return annotation, else as plain JSON.
            args: its positional arguments.
            kwargs: its keyword arguments.

        Raises:
            CannotStore: the result does not match its annotation.
            TypeError, ValueError: the key is not a `str`, or has half of a surrogate pair.
            Exception: what the function raised; the next attempt calls it again.
        """
        self._check_open()
        expect_identifier(key, "once()")
        view = self._view
        name = action_key(view.bot.user, view.thread, view.event.key, f"{self._handler}:{key}", 0)
        return await self._buffer.unit_of_work.once(name, function, *args, **kwargs)

    def _check_can_act(self, method: str) -> None:
        """Refuse actions where they would be lost: after the handler's end, and inside functions called once."""
        self._check_open()
        remedy = (
            f"return what it needs, and write `await ctx.{method}(…)` after that call (in a dialog, `talk.{method}(…)`)"
        )
        refuse_inside_effect(f"ctx.{method}()", remedy=remedy)

    def _check_open(self) -> None:
        if not self._is_open:
            msg = f"{self._handler} has ended, so its further actions would be lost; await everything in the handler"
            raise StateError(msg)


if TYPE_CHECKING:
    from typing_extensions import TypeVar as DefaultedTypeVar

    E = DefaultedTypeVar("E", bound=Event, covariant=True, default=MessageReceived)
else:  # type checkers alone use the default, and the library takes 3 ms to import
    E = TypeVar("E", bound=Event, covariant=True)


class Context(Durable, Generic[E]):
    """The event, and methods to reply and act.

    `Context` alone is `Context[MessageReceived]`. Actions are carried out in order after the handler has succeeded,
    each effectively once. If the handler fails, they are dropped.

    Args:
        view: the event, and the bot it happened to.
        handler: the qualified name of the handler.
        buffer: collects actions; shared by the handlers of one event.
    """

    __slots__ = ("_log",)
    _log: FilteringBoundLogger

    def __enter__(self) -> Self:
        """Accept actions while the handler runs; later ones are refused."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_open = False

    def __repr__(self) -> str:
        return f"<Context of {type(self._view.event).__name__} {self._view.event.key} in {self._handler}>"

    @property
    def event(self) -> E:
        """The event."""
        return self._view.event  # type: ignore[return-value]  # the event of a context is always an E

    @property
    def bot(self) -> BotInfo:
        """The bot."""
        return self._view.bot

    @property
    def commands(self) -> tuple[CommandInfo, ...]:
        """All commands of the bot, of all its plugins, in the order they were registered."""
        return self._view.commands

    @property
    def thread(self: Context[ThreadEvent]) -> ThreadId:
        """The thread of the event."""
        return self.event.thread

    @property
    def message(self: Context[MessageEvent]) -> ChatMessage:
        """The message of the event."""
        return self.event.message

    @property
    def sender(self: Context[MessageEvent]) -> Participant:
        """The person who wrote the message, or caused the system message."""
        message = self.event.message
        user = message.sender or message.initiator
        if user is None:
            msg = f"message {message.id} has no sender: the service named nobody; use ctx.message"
            raise StateError(msg)
        return Participant(user, message.sender_display_name)

    @property
    def text(self: Context[MessageEvent]) -> str:
        """The message as plain text, without HTML tags and quotations; entities are decoded, blocks become lines."""
        return self._view.text

    @property
    def html(self: Context[MessageEvent]) -> str | None:
        """The message's HTML as the service returned it; None for a plain-text message."""
        message = self.event.message
        return message.content if message.type is MessageType.HTML else None

    @property
    def quoted(self: Context[MessageEvent]) -> Quotation | None:
        """The earlier message that this one answers, as Teams quotes it; None if nothing is quoted.

        The quotation is not part of `ctx.text`. It is not verified: do not rely on its author as an identity.
        """
        return self._view.quoted

    @property
    def is_mentioned(self: Context[MessageEvent]) -> bool:
        """Whether the message mentions the bot, as the filter `mentioned` asks."""
        return self._view.is_mentioned

    @property
    def attachments(self: Context[MessageEvent]) -> tuple[Attachment, ...]:
        """The attachments of the message: names and links, without contents."""
        return self.event.message.attachments

    @property
    def actions(self) -> list[Action]:
        """The actions so far, of all handlers of this event."""
        return [keyed.action for keyed in self._buffer.keyed_actions]

    @property
    def log(self) -> FilteringBoundLogger:
        """A logger bound to bot, thread, event and handler. Do not log people's words."""
        if hasattr(self, "_log"):
            return self._log
        import structlog  # here, because importing it is slow and most handlers do not log

        view = self._view
        log: FilteringBoundLogger = structlog.get_logger().bind(
            bot=view.bot.name, thread=view.thread, event_key=view.event.key, handler=self._handler
        )
        self._log = log
        return log

    @overload
    async def reply(
        self,
        text: str,
        *,
        quote: bool = False,
        thread: ThreadId | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> SentMessage: ...

    @overload
    async def reply(
        self,
        *,
        html: str,
        quote: bool = False,
        thread: ThreadId | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> SentMessage: ...

    async def reply(
        self,
        text: str | None = None,
        *,
        html: str | None = None,
        quote: bool = False,
        thread: ThreadId | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> SentMessage:
        """Send a message, and return a handle to edit or delete it. An empty text sends nothing.

        Args:
            text: the message as plain text.
            html: the message as HTML; the service removes what it does not allow.
            quote: whether to quote the beginning of the event's message above it.
            thread: by default the thread of the event.
            metadata: stored with the message by the service; keys under `chatbot.` are reserved.

        Raises:
            ValueError: neither or both of `text` and `html`, a reserved metadata key, or half of a surrogate pair in
                metadata (in a text it is replaced by U+FFFD). Also HTML, a JSON text or metadata that exceed the size
                of a message; longer plain text is sent in several messages.
            TypeError: `text`, `html` or metadata are not `str`.
            StateError: the event has no thread and none was given, it has no message to quote, or the handler has
                ended.
        """
        if (text is None) == (html is None):
            msg = "reply() takes either a text or html=…"
            raise ValueError(msg)
        kind: Literal["text", "html"] = "text" if html is None else "html"
        content = make_encodable(expect_text(text if html is None else html, "reply()"), self._handler)
        kept = _checked(metadata or {})
        self._target_thread(thread)
        if quote and content.strip():
            content = quoted(self._quotable(), content, kind)
        check_message("reply()", content, kept, is_html=kind == "html")
        action = SendMessage(content, type=kind, thread=thread, metadata=kept)
        if not content.strip():
            return SentMessage(self._buffer.next_key(self._handler), thread, True, self)
        return SentMessage(self._add_action(action, "reply"), thread, False, self)

    async def stream(self: Context[ThreadEvent], source: AsyncIterable[str]) -> SentMessage:
        """Send a text while it is being generated: one message, edited within the thread's quota as pieces arrive.

        The first send is written to the store before it is made, so that a retry finds its message and edits it. The
        final text is an action like any other, and is complete. A text too long for one message continues in further
        ones. Until the end, the shown text ends with an ellipsis. Earlier actions of the handler become visible after
        the stream, because they wait for the commit.

        Args:
            source: the pieces, such as the tokens of a language model; read to its end.

        Raises:
            StateError: the handler has ended.
            TypeError: the source is not an async iterable, or a piece is not a `str`.
            Exception: what the source raises; the text shown so far stays until a retry replaces it.
        """
        self._check_can_act("stream")
        if not isinstance(source, AsyncIterable):
            msg = f"stream() takes an async iterable of texts, not {type(source).__name__}; a text is for reply()"
            raise TypeError(msg)
        key = self._buffer.next_key(self._handler)
        actions = await self._buffer.live.stream(key, make_pieces_encodable(source, self._handler))
        for number, action in enumerate(actions):
            # Further messages count as pieces of this one, so that its handle edits and deletes them, too.
            is_piece = isinstance(action, SendMessage)
            self._buffer.put(piece_key(key, number) if is_piece else ActionKey(f"{key}.final.{number}"), action)
        return SentMessage(key, None, not actions, self)

    @asynccontextmanager
    async def typing(self: Context[ThreadEvent]) -> AsyncIterator[None]:
        """Show the typing indicator while the block runs: `async with ctx.typing():`.

        Best effort, within the quota: errors are ignored, threads of more than 20 people never see it, and handlers in
        an event stream show nothing.
        """
        self._check_open()
        async with show_typing_while(self._buffer.live):
            yield

    async def participants(self: Context[ThreadEvent]) -> Sequence[Participant]:
        """Return who is in the thread, the bot included. Asks the service if the list may have changed.

        Raises:
            ServiceError: the service did not answer.
        """
        self._check_open()
        return await self._buffer.live.participants()

    async def edit(
        self, message: SentMessage | MessageId | ActionKey, content: str, *, thread: ThreadId | None = None
    ) -> None:
        """Replace the content of one of the bot's messages; a message that was sent in several pieces counts as one.

        The new content fills the first pieces, and the other pieces are deleted.

        Args:
            message: a handle, a handle's key from an earlier event, or the id of a message of the bot.
            content: the new content, of the same type as before.
            thread: the message's thread; by default the handle's, or that of the event.

        Raises:
            TypeError: the content is not a `str`.
            ValueError: the content is empty (use `delete`), or needs more messages than the original was sent in; the
                error names both sizes.
            StateError: the event has no thread and none was given, the handler has ended, or the reply was empty and
                was not sent.
        """
        content = make_encodable(expect_text(content, "edit()"), self._handler)
        if not content.strip():
            msg = "edit() has nothing to say; an empty message cannot be sent, use delete()"
            raise ValueError(msg)
        target, where = target_of(message, thread)
        self._target_thread(where)
        self._check_can_act("edit")
        pieces = await self._buffer.pieces(target)
        pieces_of_edit("edit()", content, pieces)
        self._add_action(EditMessage(target, content, where), "edit", pieces=pieces)

    async def delete(self, message: SentMessage | MessageId | ActionKey, *, thread: ThreadId | None = None) -> None:
        """Delete one of the bot's messages, with all its pieces; arguments and errors as for `edit`."""
        target, where = target_of(message, thread)
        self._target_thread(where)
        self._check_can_act("delete")
        self._add_action(DeleteMessage(target, where), "delete", pieces=await self._buffer.pieces(target))

    async def add_participants(self, *people: Participant | UserId, thread: ThreadId | None = None) -> None:
        """Add people to the thread; adding somebody who is in it changes nothing."""
        self._target_thread(thread)
        everyone = tuple(self._participant(person, "add_participants()") for person in people)
        if everyone:
            self._add_action(AddParticipants(everyone, thread), "add_participants")

    async def remove_participant(self, who: Participant | UserId, *, thread: ThreadId | None = None) -> None:
        """Remove a person from the thread."""
        self._target_thread(thread)
        user = self._participant(who, "remove_participant()").user
        self._add_action(RemoveParticipant(user, thread), "remove_participant")

    async def leave(self, *, thread: ThreadId | None = None) -> None:
        """Remove the bot from the thread, after its earlier actions."""
        await self.remove_participant(self.bot.user, thread=thread)

    async def update_topic(self, topic: str, *, thread: ThreadId | None = None) -> None:
        """Change the topic of the thread."""
        topic = make_encodable(expect_text(topic, "update_topic()"), self._handler)
        if not topic.strip():
            msg = "update_topic() got an empty topic; the service does not accept one"
            raise ValueError(msg)
        self._target_thread(thread)
        self._add_action(UpdateTopic(topic, thread), "update_topic")

    async def acknowledge(self: Context[MessageEvent]) -> None:
        """Send a read receipt for the message; only needed with `ack: manual`."""
        self._check_can_act("acknowledge")
        self._buffer.is_acknowledged = True

    def _add_action(self, action: Action, method: str, *, pieces: int = 1) -> ActionKey:
        self._check_can_act(method)
        return self._buffer.add(self._handler, action, pieces=pieces)

    def _quotable(self) -> str:
        if not isinstance(self._view.event, MessageEvent):
            msg = f"{type(self._view.event).__name__} has no message that reply(quote=True) could quote"
            raise StateError(msg)
        return self._view.text

    def _participant(self, who: Participant | UserId, call: str) -> Participant:
        participant = who if isinstance(who, Participant) else Participant(who)
        user = UserId(expect_identifier(participant.user, call))
        name = participant.display_name
        return Participant(user, name if name is None else make_encodable(expect_text(name, call), self._handler))

    def _target_thread(self, thread: ThreadId | None) -> None:
        if thread is not None:
            expect_identifier(thread, "thread=")
        if thread is None and self._view.thread is None:
            msg = f"{type(self._view.event).__name__} happens in no thread; say where: thread=…"
            raise StateError(msg)


class ContextDialogHost:
    """Implements `DialogHost` with the context of the current event."""

    __slots__ = ("_ctx",)

    def __init__(self, ctx: Context[Any]) -> None:
        self._ctx = ctx

    @property
    def log(self) -> FilteringBoundLogger:
        return self._ctx.log

    def name_of_timer(self, timer: Callable[..., Any]) -> str:
        return qualified_name(timer)

    def plan_timer(self, when: timedelta | datetime, name: str, payload: Mapping[str, object]) -> tuple[datetime, str]:
        return self._ctx._plan_timer(when, name, payload)

    async def participants(self) -> Sequence[Participant]:
        return await self._ctx.participants()

    def typing(self) -> AbstractAsyncContextManager[None]:
        return self._ctx.typing()


def _checked(metadata: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in metadata.items():
        expect_identifier(name, "a key of metadata=")
        expect_identifier(value, f"metadata[{name!r}]")
        if name.startswith(RESERVED_METADATA_PREFIX):
            msg = f"metadata key {name!r} is reserved: choose one that does not begin with {RESERVED_METADATA_PREFIX}"
            raise ValueError(msg)
    return dict(metadata)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SentMessage(Value):
    """The handle of a message that a handler sends; the message can be edited or deleted, also before it is sent.

    Args:
        key: its permanent key; store it to edit or delete the message in a later event, with `ctx.edit(key, …)`.
        thread: its thread; None is the thread of the event.
        is_empty: the text was empty, so nothing is sent.
    """

    key: ActionKey
    thread: ThreadId | None
    is_empty: bool
    _ctx: Context[Any] = field(repr=False, compare=False)

    async def edit(self, content: str) -> None:
        """Replace its content by one of the same type."""
        await self._ctx.edit(self, content)

    async def delete(self) -> None:
        """Delete it."""
        await self._ctx.delete(self)


def target_of(
    message: SentMessage | MessageId | ActionKey, thread: ThreadId | None
) -> tuple[MessageId | ActionKey, ThreadId | None]:
    """Return the id or key of a message to change, and its thread.

    Raises:
        StateError: the message was empty and was not sent.
        TypeError: it is neither a handle nor an id or a key.
        ValueError: it has half of a surrogate pair.
    """
    if not isinstance(message, SentMessage):
        expect_identifier(message, "the message to change")
        return message, thread
    if message.is_empty:
        msg = "the reply was empty, so nothing was sent that could be changed; check sent.is_empty"
        raise StateError(msg)
    return message.key, message.thread
