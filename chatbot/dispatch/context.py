"""What a handler receives: the event, and methods to reply and act.

A context never calls the service. Each method adds an action to the event's `ActionBuffer`. The actions are committed
together with the event and sent after that, each effectively once; if the handler fails, none of them is kept.
Exceptions are what cannot wait for the commit: typing indicators, the list of participants and `stream` use the live
channel, and `once` stores the result of an effect as soon as it is there.

`SentMessage` is the handle of a message: it can be edited or deleted, even before it was sent.
"""

from __future__ import annotations

import html
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, ParamSpec, Self, overload

from typing_extensions import TypeVar

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
    piece_key,
    readable,
    readable_pieces,
)
from chatbot.conversation.idempotency import refuse_inside_effect
from chatbot.conversation.unit_of_work import UnitOfWork
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
)

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

LONGEST: Final = 200
"""How many characters of a message are quoted."""


def quoted(said: str, answer: str, kind: Literal["text", "html"]) -> str:
    """An answer below what it answers.

    Args:
        said: the quoted message, as plain text.
        answer: the reply, as text or as html.
        kind: which of them it is.
    """
    beginning = said.strip()
    if len(beginning) > LONGEST:
        beginning = beginning[:LONGEST].rstrip() + "…"
    if not beginning:
        return answer
    if kind == "html":
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
        buffer: where wishes are written, with the unit_of_work of the event.
    """

    __slots__ = ("_buffer", "_handler", "_is_open", "_view")

    def __init__(self, view: EventView, handler: str, buffer: ActionBuffer) -> None:
        self._view = view
        self._handler = handler
        self._buffer = buffer
        self._is_open = True

    async def later(
        self, when: timedelta | datetime, timer: Callable[..., Coroutine[Any, Any, Reply]], /, **payload: object
    ) -> TimerId:
        """Have a `@plugin.timer` function called in this thread when the time has come; durable, like a reply.

        After a time without the bot, what was missed is called once, as soon as the bot is back.

        Args:
            when: how long from now, or a datetime with a time zone; one in the past is due at once.
            timer: the function.
            payload: what it is called with, besides its context; stored as its parameters are typed.

        Returns:
            What `cancel` takes; it can be kept in a state.

        Raises:
            StateError: the function is no timer of this bot, or the event happens in no thread.
            ValueError: a datetime without a time zone.
            TimeTooFar: more than 100 years from now; a handler of a message that lets it pass answers with its text.
            TypeError: the function takes other arguments, or `when` is no time.
            CannotStore: an argument is not of its declared type.
        """
        self._check_can_ask("later")
        name = qualified_name(timer)
        due, stored = self._plan_timer(when, name, payload)
        id = TimerId(self._buffer.next_key(self._handler))
        self._buffer.unit_of_work.set_timer(id, name, due, stored)
        return id

    def _plan_timer(self, when: timedelta | datetime, name: str, payload: Mapping[str, object]) -> tuple[datetime, str]:
        """When a timer is due, and the stored form of its payload; errors as for `later`."""
        takes = self._view.timers.get(name)
        if takes is None:
            msg = f"{name} is no timer of this bot; decorate it with @plugin.timer, in a plugin that the bot has"
            raise StateError(msg)
        if not isinstance(when, timedelta | datetime):
            msg = f"later() takes a timedelta or a datetime, not {type(when).__name__}"
            raise TypeError(msg)
        return due_on(self._buffer.unit_of_work.now, when), takes.encode(payload)

    async def cancel(self, timer: TimerId) -> None:
        """Have what `later` was asked for not happen; what has happened already stays."""
        self._check_can_ask("cancel")
        self._buffer.unit_of_work.drop_timer(expect_identifier(timer, "cancel()"))

    @overload
    async def once(self, key: str, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T: ...

    @overload
    async def once(self, key: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...

    async def once(self, key: str, function: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Do something outside of the chat once for this event, however often the handler is tried: a charge, a mail.

        The result is remembered before the handler goes on, and given to later tries in place of a second call. If
        the process dies between the effect and that, the function is called again: at least once, and rarely more.

        Args:
            key: names what is done; one handler may do several things.
            function: async or not; its result is stored as its return annotation says, else as plain JSON.
            args: what it is called with.
            kwargs: likewise.

        Raises:
            CannotStore: the result is not what it is annotated as.
            TypeError, ValueError: the key is no text, or has half of a surrogate pair.
            Exception: what the function raised; it will be called again by the next try.
        """
        self._check_open()
        expect_identifier(key, "once()")
        view = self._view
        name = action_key(view.bot.user, view.thread, view.event.key, f"{self._handler}:{key}", 0)
        return await self._buffer.unit_of_work.once(name, function, *args, **kwargs)

    def _check_can_ask(self, method: str) -> None:
        """Refuse to write down what waits for the commit where it would be lost."""
        self._check_open()
        remedy = (
            f"return what it needs, and write `await ctx.{method}(…)` behind that (in a dialog, `talk.{method}(…)`)"
        )
        refuse_inside_effect(f"ctx.{method}()", remedy=remedy)

    def _check_open(self) -> None:
        if not self._is_open:
            msg = f"{self._handler} has ended: what it asks for now would be lost; await everything in the handler"
            raise StateError(msg)


E = TypeVar("E", bound=Event, covariant=True, default=MessageReceived)


class Context(Durable, Generic[E]):
    """What a handler holds: the event and its surroundings, and everything that it can ask for.

    `Context` alone is `Context[MessageReceived]`. Everything asked for here is carried out after the handler has
    ended well, in order, effectively once; nothing of it if the handler fails.

    Args:
        view: the event, and the bot it happened to.
        handler: the qualified name of the handler.
        buffer: where wishes are written; shared by the handlers of one event.
    """

    __slots__ = ("_log",)

    def __init__(self, view: EventView, *, handler: str, buffer: ActionBuffer | None = None) -> None:
        super().__init__(view, handler, ActionBuffer(view, UnitOfWork(view.event)) if buffer is None else buffer)
        self._log: FilteringBoundLogger | None = None

    def __enter__(self) -> Self:
        """Open while the handler runs; what is asked for later is refused."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_open = False

    def __repr__(self) -> str:
        return f"<Context of {type(self._view.event).__name__} {self._view.event.key} in {self._handler}>"

    @property
    def event(self) -> E:
        """What happened."""
        return self._view.event  # type: ignore[return-value]  # whoever builds a context matches it with E

    @property
    def bot(self) -> BotInfo:
        """Which bot this is."""
        return self._view.bot

    @property
    def commands(self) -> tuple[CommandInfo, ...]:
        """All commands of the bot, of all its plugins, in the order they were registered."""
        return self._view.commands

    @property
    def thread(self: Context[ThreadEvent]) -> ThreadId:
        """Where it happened."""
        return self.event.thread

    @property
    def message(self: Context[MessageEvent]) -> ChatMessage:
        """The message it is about."""
        return self.event.message

    @property
    def sender(self: Context[MessageEvent]) -> Participant:
        """Who wrote the message, or caused the system message."""
        message = self.event.message
        user = message.sender or message.initiator
        if user is None:
            msg = f"message {message.id} has no sender: the service named nobody; use ctx.message"
            raise StateError(msg)
        return Participant(user, message.sender_display_name)

    @property
    def text(self: Context[MessageEvent]) -> str:
        """The message as plain text: html tags gone, entities decoded, blocks as newlines, without what it quotes."""
        return self._view.text

    @property
    def html(self: Context[MessageEvent]) -> str | None:
        """The message's html as the service gave it; None if it was written as text."""
        message = self.event.message
        return message.content if message.type is MessageType.HTML else None

    @property
    def quoted(self: Context[MessageEvent]) -> Quotation | None:
        """The earlier message that this one answers, as Teams quotes it; None if nothing is quoted.

        The quotation is no part of `ctx.text`. Nobody verifies it: do not take its author for an identity.
        """
        return self._view.quoted

    @property
    def is_mentioned(self: Context[MessageEvent]) -> bool:
        """Whether the message mentions the bot, as the filter `mentioned` asks."""
        return self._view.is_mentioned

    @property
    def attachments(self: Context[MessageEvent]) -> tuple[Attachment, ...]:
        """What is attached to the message: names and links, never the bytes."""
        return self.event.message.attachments

    @property
    def actions(self) -> list[Action]:
        """What was asked for so far, by all handlers of this event."""
        return [keyed.action for keyed in self._buffer.keyed_actions]

    @property
    def log(self) -> FilteringBoundLogger:
        """A logger that names bot, thread, event and handler on every line. Do not log people's words."""
        if self._log is not None:
            return self._log
        import structlog  # here, because only a handler that logs shall pay for it

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
        """Say something; returns a handle to edit it or take it back. An empty reply is no reply.

        Args:
            text: what to say, as plain text.
            html: what to say, as html; the service removes what it does not allow.
            quote: whether the beginning of the event's message stands above it.
            thread: where; by default in the thread of the event.
            metadata: kept with the message by the service; keys under `chatbot.` are refused.

        Raises:
            ValueError: neither or both of text and html, a reserved metadata key, or half of a surrogate pair in
                metadata (in a text that people read it is replaced by U+FFFD). Or html, a JSON text or metadata that
                are larger than a message takes; longer plain text is sent in several messages.
            TypeError: text, html or metadata are no text.
            StateError: the event has no thread and none was named, it has no message to quote, or the handler has
                ended.
        """
        if (text is None) == (html is None):
            msg = "reply() takes either a text or html=…"
            raise ValueError(msg)
        kind: Literal["text", "html"] = "text" if html is None else "html"
        content = readable(expect_text(text if html is None else html, "reply()"), self._handler)
        kept = _checked(metadata or {})
        self._where(thread)
        if quote and content.strip():
            content = quoted(self._quotable(), content, kind)
        check_message("reply()", content, kept, is_html=kind == "html")
        action = SendMessage(content, type=kind, thread=thread, metadata=kept)
        if not content.strip():
            return SentMessage(self._buffer.next_key(self._handler), thread, True, self)
        return SentMessage(self._wish(action, "reply"), thread, False, self)

    async def stream(self: Context[ThreadEvent], source: AsyncIterable[str]) -> SentMessage:
        """Say a text while it is still being made: one message, edited within the thread's quota as pieces arrive.

        The first send is journalled before it is made, so that another attempt finds its message and edits that one;
        the final text is a wish like any other, and comes out whole. Texts too long for one message go on in
        further ones. What is shown before the end ends with an ellipsis. What the handler asked for before becomes
        visible after it, as that waits for the commit.

        Args:
            source: the pieces, such as the tokens of a language model; read to its end.

        Raises:
            StateError: the handler has ended.
            TypeError: the source is no async iterable, or a piece is no text.
            Exception: what the source raises; what was shown then stays until another attempt replaces it.
        """
        self._check_can_ask("stream")
        if not isinstance(source, AsyncIterable):
            msg = f"stream() takes an async iterable of texts, not {type(source).__name__}; a text is for reply()"
            raise TypeError(msg)
        key = self._buffer.next_key(self._handler)
        actions = await self._buffer.live.stream(key, readable_pieces(source, self._handler))
        for number, action in enumerate(actions):
            # Further messages are pieces of this one, so that its handle edits and deletes them, too.
            is_piece = isinstance(action, SendMessage)
            self._buffer.put(piece_key(key, number) if is_piece else ActionKey(f"{key}.final.{number}"), action)
        return SentMessage(key, None, not actions, self)

    @asynccontextmanager
    async def typing(self: Context[ThreadEvent]) -> AsyncIterator[None]:
        """Show people that the bot is writing, for as long as the block lasts: `async with ctx.typing():`.

        A courtesy within the quota: it may fail without a word, threads of more than 20 people never see it, and
        handlers in an event stream show nothing.
        """
        self._check_open()
        async with show_typing_while(self._buffer.live):
            yield

    async def participants(self: Context[ThreadEvent]) -> Sequence[Participant]:
        """Who is in the thread, the bot included. Read from the service when it may have changed.

        Raises:
            ErrorResponse: the service does not say.
        """
        self._check_open()
        return await self._buffer.live.participants()

    async def edit(
        self, message: SentMessage | MessageId | ActionKey, content: str, *, thread: ThreadId | None = None
    ) -> None:
        """Replace the content of one of the bot's messages; one that was sent in several pieces is one message.

        The new content fills the first pieces, and the rest are deleted.

        Args:
            message: a handle, a handle's key from an earlier event, or the id of an own message.
            content: the new content, of the same type as before.
            thread: where the message is; by default the handle's thread, or that of the event.

        Raises:
            TypeError: the content is no text.
            ValueError: nothing to say; take the message back with `delete` instead. Or it needs more messages than
                the one to edit was sent in; the text says how large it is, and how large it may be.
            StateError: the event has no thread and none was named, the handler has ended, or the reply was empty,
                so that there is nothing to edit.
        """
        content = readable(expect_text(content, "edit()"), self._handler)
        if not content.strip():
            msg = "edit() has nothing to say; an empty message cannot be sent, use delete()"
            raise ValueError(msg)
        target, where = target_of(message, thread)
        self._where(where)
        self._check_can_ask("edit")
        pieces = await self._buffer.pieces(target)
        pieces_of_edit("edit()", content, pieces)
        self._wish(EditMessage(target, content, where), "edit", pieces=pieces)

    async def delete(self, message: SentMessage | MessageId | ActionKey, *, thread: ThreadId | None = None) -> None:
        """Take one of the bot's messages back, in all its pieces; arguments and errors as for `edit`."""
        target, where = target_of(message, thread)
        self._where(where)
        self._check_can_ask("delete")
        self._wish(DeleteMessage(target, where), "delete", pieces=await self._buffer.pieces(target))

    async def add_participants(self, *people: Participant | UserId, thread: ThreadId | None = None) -> None:
        """Bring people into the thread; whoever is in it already stays."""
        self._where(thread)
        everyone = tuple(self._participant(person, "add_participants()") for person in people)
        if everyone:
            self._wish(AddParticipants(everyone, thread), "add_participants")

    async def remove_participant(self, who: Participant | UserId, *, thread: ThreadId | None = None) -> None:
        """Take someone out of the thread."""
        self._where(thread)
        user = self._participant(who, "remove_participant()").user
        self._wish(RemoveParticipant(user, thread), "remove_participant")

    async def leave(self, *, thread: ThreadId | None = None) -> None:
        """Take the bot itself out of the thread; what was asked for before is still done."""
        await self.remove_participant(self.bot.user, thread=thread)

    async def update_topic(self, topic: str, *, thread: ThreadId | None = None) -> None:
        """Give the thread another topic."""
        topic = readable(expect_text(topic, "update_topic()"), self._handler)
        if not topic.strip():
            msg = "update_topic() got an empty topic; the service takes none"
            raise ValueError(msg)
        self._where(thread)
        self._wish(UpdateTopic(topic, thread), "update_topic")

    async def acknowledge(self: Context[MessageEvent]) -> None:
        """Show people that the message was read; only needed with `ack: manual`."""
        self._check_can_ask("acknowledge")
        self._buffer.is_acknowledged = True

    def _wish(self, action: Action, method: str, *, pieces: int = 1) -> ActionKey:
        self._check_can_ask(method)
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
        return Participant(user, name if name is None else readable(expect_text(name, call), self._handler))

    def _where(self, thread: ThreadId | None) -> None:
        if thread is not None:
            expect_identifier(thread, "thread=")
        if thread is None and self._view.thread is None:
            msg = f"{type(self._view.event).__name__} happens in no thread; say where: thread=…"
            raise StateError(msg)


class ContextOfDialog:
    """What a dialog asks of the context of the event in hand: a `DialogHost`.

    Args:
        ctx: the context.
    """

    __slots__ = ("_ctx",)

    def __init__(self, ctx: Context[Any]) -> None:
        self._ctx = ctx

    @property
    def log(self) -> FilteringBoundLogger:
        """The context's logger."""
        return self._ctx.log

    def name_of_timer(self, timer: Callable[..., Any]) -> str:
        """The qualified name that a timer's function is stored by."""
        return qualified_name(timer)

    def plan_timer(self, when: timedelta | datetime, name: str, payload: Mapping[str, object]) -> tuple[datetime, str]:
        """When a timer is due, and the stored form of its payload; errors as for `Context.later`."""
        return self._ctx._plan_timer(when, name, payload)

    async def participants(self) -> Sequence[Participant]:
        """Who is in the thread."""
        return await self._ctx.participants()

    def typing(self) -> AbstractAsyncContextManager[None]:
        """Show that the bot is writing."""
        return self._ctx.typing()


def _checked(metadata: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in metadata.items():
        expect_identifier(name, "a key of metadata=")
        expect_identifier(value, f"metadata[{name!r}]")
        if name.startswith(RESERVED_METADATA_PREFIX):
            msg = f"metadata key {name!r} is reserved: choose one that does not begin with {RESERVED_METADATA_PREFIX}"
            raise ValueError(msg)
    return dict(metadata)


@dataclass(frozen=True, slots=True)
class SentMessage:
    """A message that a handler asked for: it may still be edited or taken back while the handler runs.

    Args:
        key: names it for good; store it to edit or delete the message in a later event, with `ctx.edit(key, …)`.
        thread: where it goes; None is the thread of the event.
        is_empty: there was nothing to say, so nothing is sent.
    """

    key: ActionKey
    thread: ThreadId | None
    is_empty: bool
    _ctx: Context[Any] = field(repr=False, compare=False)

    async def edit(self, content: str) -> None:
        """Replace its content, of the same type as before."""
        await self._ctx.edit(self, content)

    async def delete(self) -> None:
        """Take it back."""
        await self._ctx.delete(self)


def target_of(
    message: SentMessage | MessageId | ActionKey, thread: ThreadId | None
) -> tuple[MessageId | ActionKey, ThreadId | None]:
    """The id or key of a message to change, and its thread.

    Raises:
        StateError: nothing was sent that could be changed.
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
