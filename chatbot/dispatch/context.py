"""What a handler holds while it handles one event: the facts, and the pen to write down what should be done.

A context never speaks to the service. What a handler asks for becomes wishes in a ledger; they are carried out
after the event was committed, each once, and none of them if the handler fails. The few things that cannot wait
(typing, who is there, a text that grows) go over the bot's open line.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, Self, overload

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
    expect_identifier,
    expect_text,
    piece_key,
    readable,
    readable_pieces,
)
from chatbot.conversation.memory import Memory
from chatbot.dispatch.durable import Durable
from chatbot.dispatch.ledger import Ledger
from chatbot.dispatch.line import writing
from chatbot.dispatch.occasion import BotInfo, CommandInfo, Occasion
from chatbot.dispatch.place import qualified_name
from chatbot.dispatch.plaintext import Quotation
from chatbot.dispatch.quote import quoted
from chatbot.dispatch.sent import SentMessage, target_of
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
    UserId,
)

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

E = TypeVar("E", bound=Event, covariant=True, default=MessageReceived)
P = ParamSpec("P")
T = TypeVar("T")


class Context(Durable, Generic[E]):
    """What a handler holds: the event and its surroundings, and everything that it can ask for.

    `Context` alone is `Context[MessageReceived]`. Everything asked for here is carried out after the handler has
    ended well, in order, effectively once; nothing of it if the handler fails.

    Args:
        occasion: the event, and the bot it happened to.
        handler: the qualified name of the handler.
        ledger: where wishes are written; shared by the handlers of one event.
    """

    __slots__ = ("_log",)

    def __init__(self, occasion: Occasion, *, handler: str, ledger: Ledger | None = None) -> None:
        super().__init__(occasion, handler, Ledger(occasion, Memory(occasion.event)) if ledger is None else ledger)
        self._log: FilteringBoundLogger | None = None

    def __enter__(self) -> Self:
        """Open while the handler runs; what is asked for later is refused."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_open = False

    def __repr__(self) -> str:
        return f"<Context of {type(self._occasion.event).__name__} {self._occasion.event.key} in {self._handler}>"

    @property
    def event(self) -> E:
        """What happened."""
        return self._occasion.event  # type: ignore[return-value]  # whoever builds a context matches it with E

    @property
    def bot(self) -> BotInfo:
        """Which bot this is."""
        return self._occasion.bot

    @property
    def commands(self) -> tuple[CommandInfo, ...]:
        """All commands of the bot, of all its plugins, in the order they were registered."""
        return self._occasion.commands

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
        return self._occasion.text

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
        return self._occasion.quoted

    @property
    def is_mentioned(self: Context[MessageEvent]) -> bool:
        """Whether the message mentions the bot, as the filter `mentioned` asks."""
        return self._occasion.is_mentioned

    @property
    def attachments(self: Context[MessageEvent]) -> tuple[Attachment, ...]:
        """What is attached to the message: names and links, never the bytes."""
        return self.event.message.attachments

    @property
    def actions(self) -> list[Action]:
        """What was asked for so far, by all handlers of this event."""
        return [wish.action for wish in self._ledger.wishes]

    @property
    def log(self) -> FilteringBoundLogger:
        """A logger that names bot, thread, event and handler on every line. Do not log people's words."""
        if self._log is not None:
            return self._log
        import structlog  # here, because only a handler that logs shall pay for it

        one = self._occasion
        log: FilteringBoundLogger = structlog.get_logger().bind(
            bot=one.bot.name, thread=one.thread, event_key=one.event.key, handler=self._handler
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
            return SentMessage(self._ledger.next_key(self._handler), thread, True, self)
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
        key = self._ledger.next_key(self._handler)
        actions = await self._ledger.line.stream(key, readable_pieces(source, self._handler))
        for number, action in enumerate(actions):
            # Further messages are pieces of this one, so that its handle edits and deletes them, too.
            is_piece = isinstance(action, SendMessage)
            self._ledger.put(piece_key(key, number) if is_piece else ActionKey(f"{key}.final.{number}"), action)
        return SentMessage(key, None, not actions, self)

    @asynccontextmanager
    async def typing(self: Context[ThreadEvent]) -> AsyncIterator[None]:
        """Show people that the bot is writing, for as long as the block lasts: `async with ctx.typing():`.

        A courtesy within the quota: it may fail without a word, threads of more than 20 people never see it, and
        handlers in an event stream show nothing.
        """
        self._check_open()
        async with writing(self._ledger.line):
            yield

    async def participants(self: Context[ThreadEvent]) -> Sequence[Participant]:
        """Who is in the thread, the bot included. Read from the service when it may have changed.

        Raises:
            ServiceError: the service does not say.
        """
        self._check_open()
        return await self._ledger.line.participants()

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
        pieces = await self._ledger.pieces(target)
        pieces_of_edit("edit()", content, pieces)
        self._wish(EditMessage(target, content, where), "edit", pieces=pieces)

    async def delete(self, message: SentMessage | MessageId | ActionKey, *, thread: ThreadId | None = None) -> None:
        """Take one of the bot's messages back, in all its pieces; arguments and errors as for `edit`."""
        target, where = target_of(message, thread)
        self._where(where)
        self._check_can_ask("delete")
        self._wish(DeleteMessage(target, where), "delete", pieces=await self._ledger.pieces(target))

    async def add_participants(self, *people: Participant | UserId, thread: ThreadId | None = None) -> None:
        """Bring people into the thread; whoever is in it already stays."""
        self._where(thread)
        everyone = tuple(self._participant(one, "add_participants()") for one in people)
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
        self._ledger.is_acknowledged = True

    def _wish(self, action: Action, method: str, *, pieces: int = 1) -> ActionKey:
        self._check_can_ask(method)
        return self._ledger.add(self._handler, action, pieces=pieces)

    def _quotable(self) -> str:
        if not isinstance(self._occasion.event, MessageEvent):
            msg = f"{type(self._occasion.event).__name__} has no message that reply(quote=True) could quote"
            raise StateError(msg)
        return self._occasion.text

    def _participant(self, who: Participant | UserId, call: str) -> Participant:
        participant = who if isinstance(who, Participant) else Participant(who)
        user = UserId(expect_identifier(participant.user, call))
        name = participant.display_name
        return Participant(user, name if name is None else readable(expect_text(name, call), self._handler))

    def _where(self, thread: ThreadId | None) -> None:
        if thread is not None:
            expect_identifier(thread, "thread=")
        if thread is None and self._occasion.thread is None:
            msg = f"{type(self._occasion.event).__name__} happens in no thread; say where: thread=…"
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
