"""The story of each event: what a bot did with it, step by step, for the inspector of the playground.

A story contains people's words, states and tracebacks. So it is recorded only for bots on the embedded emulator, kept
in memory only, and handed to nobody but the playground, which asks for a token. Without a `Stories` object nothing here
is created, and the bots run as if this module did not exist.

`StoryTracer`, `StoryStore` and `StoryService` wrap the bot's tracer, store and service. A context variable connects
what they see to the event that is being handled, also in tasks that a handler starts.
"""

from __future__ import annotations

import json
import time
import traceback
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from inspect import iscoroutinefunction
from itertools import count
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import chatbot
from chatbot.actions import Action
from chatbot.bot.monitoring import Block
from chatbot.bot.retries import TryAgain
from chatbot.dispatch.event_view import BotInfo, EventView
from chatbot.dispatch.handler import Handler
from chatbot.errors import ServiceError
from chatbot.events import Event, MessageEvent, MessageReceived, ThreadEvent
from chatbot.model import MessageId, ThreadId, UserId
from chatbot.normalization import normalize
from chatbot.runtime.observe.instrumented_service import outcome_of
from chatbot.runtime.observe.log_context import CURRENT_WORK, LoggedWork
from chatbot.service.base import ChatService
from chatbot.service.budget import Operation
from chatbot.stores.base import Store
from chatbot.stores.records import OutboxRow, StateKey, StoredState
from chatbot.stores.writes import (
    DropDeadLetter,
    DropDialog,
    DropTimer,
    SaveDeadLetter,
    SaveDialog,
    SaveResult,
    SaveState,
    SetTimer,
    SettleRow,
    Write,
)

T = TypeVar("T")

MAX_STORIES: Final = 1_000
"""Number of stories kept in a process; the oldest are dropped."""

MAX_STEPS: Final = 300
"""Number of steps kept of a story."""

MAX_TEXT: Final = 4_000
"""Characters of a text or a traceback that are kept."""

MAX_KEPT: Final = 64 * 1024
"""Characters of a result or a journal that is kept for forks; longer ones are known as long as the store has them."""

Json = dict[str, Any]


class Story:
    """What one bot did with one event."""

    __slots__ = ("_changed", "_started", "data", "row_keys", "unproved")

    def __init__(self, data: Json, changed: Callable[[Json], None]) -> None:
        self.data = data
        self.row_keys: list[str] = []
        self.unproved: set[str] = set()
        self._changed = changed
        self._started = time.perf_counter()

    def add(self, kind: str, **facts: Any) -> Json:
        """Append a step; return it, so that it can be completed later."""
        step = {"kind": kind, "at": round((time.perf_counter() - self._started) * 1000, 1)}
        step |= {name: value for name, value in facts.items() if value is not None}
        if len(self.data["steps"]) < MAX_STEPS:
            self.data["steps"].append(step)
        self._changed(self.data)
        return step

    def changed(self) -> None:
        """Report that a step was completed."""
        self._changed(self.data)


_CURRENT: Final[ContextVar[Story | None]] = ContextVar("STORY", default=None)


def current_story() -> Story | None:
    """Return the story of the event that the current task handles; None outside of one."""
    return _CURRENT.get()


class Stories:
    """The latest stories of all bots of the process, and who listens to them.

    Args:
        most: Number of stories kept; `MAX_STORIES` by default. The oldest are dropped.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most or MAX_STORIES
        self._stories: OrderedDict[tuple[str, ...], Story] = OrderedDict()
        self._by_action: dict[str, Story] = {}
        self._listeners: list[Callable[[Json], None]] = []
        self._numbers = count(1)
        self._journals: OrderedDict[tuple[UserId, str], str] = OrderedDict()
        self._results: OrderedDict[tuple[UserId, str], str] = OrderedDict()

    def listen(self, listener: Callable[[Json], None]) -> Callable[[], None]:
        """Call `listener` with a story whenever it changes; return a function that ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def all(self) -> list[Json]:
        """Return all stories, oldest first."""
        return [story.data for story in self._stories.values()]

    def begin(self, bot: str, event: Event, info: BotInfo) -> Story:
        """Return the story of an event; a further attempt continues it."""
        thread = event.thread if isinstance(event, ThreadEvent) else None
        key = (bot, thread or "", type(event).__name__, event.key)
        story = self._stories.get(key)
        if story is None:
            data = {
                "id": next(self._numbers),
                "bot": bot,
                "event": type(event).__name__,
                "event_key": event.key,
                "thread": thread,
                "occurred_on": event.occurred_on.isoformat(),
                "began_ms": round(time.time() * 1000),
                "steps": [],
                **_message(event, info),
            }
            story = self._stories[key] = Story(data, self._report)
            if len(self._stories) > self._most:
                _, oldest = self._stories.popitem(last=False)
                for row in oldest.row_keys:
                    self._by_action.pop(row, None)
        return story

    def journalled(self, story: Story, row: OutboxRow) -> None:
        """Remember which story an action belongs to: it is carried out after the event."""
        self._by_action[row.key] = story
        story.row_keys.append(row.key)

    def of_action(self, key: str) -> Story | None:
        """Return the story of an action; None for actions of an earlier process."""
        return self._by_action.get(key)

    def of_message(self, bot: str, thread: ThreadId, message: MessageId) -> Story | None:
        """Return the story of a message that was received; None if there is none."""
        return self._stories.get((bot, thread, MessageReceived.__name__, message))

    def keep(self, bot: UserId, writes: Sequence[Write]) -> None:
        """Keep results of `once` and `talk.run`, for a fork: the store forgets them with the dialog, or later."""
        for write in writes:
            match write:
                case SaveDialog(record=record):
                    _keep(self._journals, (bot, record.id), record.journal)
                case SaveResult(key=key, value=value):
                    _keep(self._results, (bot, key), value)
                case _:
                    pass

    def kept(self) -> tuple[dict[tuple[UserId, str], str], dict[tuple[UserId, str], str]]:
        """Return the results of `once` by bot and key, and the journals of dialogs by bot and id."""
        return dict(self._results), dict(self._journals)

    def _report(self, data: Json) -> None:
        for listener in self._listeners:
            listener(data)


def _keep(kept: OrderedDict[tuple[UserId, str], str], key: tuple[UserId, str], text: str) -> None:
    if len(text) > MAX_KEPT:
        kept.pop(key, None)
        return
    kept[key] = text
    kept.move_to_end(key)
    if len(kept) > MAX_STORIES:
        kept.popitem(last=False)


def _message(event: Event, info: BotInfo) -> Json:
    if not isinstance(event, MessageEvent):
        return {}
    view = EventView(event, info)
    text = view.text
    return {
        "message": event.message.id,
        "sender": event.message.sender,
        "text": _clipped(text),
        "normalized": _clipped(normalize(text)),
        "is_mentioned": view.is_mentioned,
        "command": None if view.command_line is None else view.command_line.name,
    }


class StoryTracer:
    """Tracer that records the story of each event, and passes everything on to another tracer.

    Args:
        bot: Name of the bot.
        inner: The tracer for logs and traces.
        stories: Where the stories are kept.
        info: The bot, for the text as its handlers see it.

    Attributes:
        handlers: Returns the bot's current handlers, in order; set once the bot exists.
    """

    def __init__(self, bot: str, inner: LoggedWork, stories: Stories, info: BotInfo) -> None:
        self._bot = bot
        self._inner = inner
        self._stories = stories
        self._info = info
        self._polls: dict[ThreadId, float] = {}
        self.handlers: Callable[[], Iterable[Handler]] = tuple

    def log_texts(self, texts: bool) -> None:
        """Switch the logging of message and reply texts on or off."""
        self._inner.log_texts(texts)

    def polled(self, thread: ThreadId, seconds: float) -> None:
        """Keep the duration of the poll for the events that it has shown."""
        self._polls[thread] = seconds
        self._inner.polled(thread, seconds)

    @contextmanager
    def attempt(self, event: Event, number: int) -> Iterator[object]:
        """Begin or continue the story of the event."""
        story = self._stories.begin(self._bot, event, self._info)
        token = _CURRENT.set(story)
        try:
            with self._inner.attempt(event, number) as block:
                work = CURRENT_WORK.get()
                if work is not None and "trace" in work.facts:
                    story.data["trace"] = work.facts["trace"]
                if number == 1 and isinstance(event, MessageEvent) and event.thread in self._polls:
                    story.add("poll", seconds=self._polls[event.thread])
                step, begun = story.add("attempt", number=number), time.perf_counter()
                try:
                    yield block
                except TryAgain as again:
                    story.add("retry", pause=round(again.pause, 2))
                    raise
                finally:
                    step["seconds"] = time.perf_counter() - begun
                    story.data["others"] = self._others(event, story)
                    story.changed()
        finally:
            _CURRENT.reset(token)

    def _others(self, event: Event, story: Story) -> list[Json]:
        """Return the handlers that were not tried, each with the reason; timers and schedules are left out."""
        tried = {step.get("handler") for step in story.data["steps"]}
        chosen = story.data.get("handler")
        others: list[Json] = []
        for handler in self.handlers():
            registration = handler.registration
            if handler.name in tried or registration.is_called_by_name:
                continue
            if not isinstance(event, registration.event):
                reason = f"takes {registration.event.__name__}"
            elif registration.command is not None:
                reason = f"the message does not begin with /{registration.command}"
            elif chosen is not None:
                reason = f"not tried: {chosen} came first"
            else:
                reason = "not tried: it takes neither messages without text nor those of other bots"
            others.append({**_facts_of(handler), "reason": reason})
        return others

    def considered(self, handler: Handler, match: object) -> None:
        """Record a handler that was tried: what it is called with, or why not."""
        story = _CURRENT.get()
        if story is None:
            return
        facts = _facts_of(handler)
        if match is None:
            story.add("skipped", **facts, reason=_reason(handler))
            return
        named = getattr(match, "named", None)
        if named is None:
            story.add("chosen", **facts, refused=_clipped(str(match)))
        else:
            arguments = {name: _shown(value) for name, value in named.items()}
            story.add("chosen", **facts, arguments=arguments, rest=[_shown(one) for one in match.many] or None)  # type: ignore[attr-defined]

    @contextmanager
    def handler(self, name: str) -> Iterator[object]:
        """Record a handler that runs, with its error."""
        story = _CURRENT.get()
        if story is None:
            with self._inner.handler(name) as block:
                yield block
            return
        story.data["handler"] = name
        found = next((handler for handler in self.handlers() if handler.name == name), None)
        step, begun = story.add("handler", **(_facts_of(found) if found else {"handler": name})), time.perf_counter()
        if found is not None:
            story.data["place"] = found.place
        try:
            with self._inner.handler(name) as block:
                yield block
        except BaseException as error:
            step["error"] = type(error).__qualname__
            step["text"] = _clipped(str(error))
            step["traceback"] = _traceback(error)
            raise
        finally:
            step["seconds"] = time.perf_counter() - begun
            story.changed()

    def commit(self) -> Block:
        """Pass on; `StoryStore` records commits."""
        return self._inner.commit()

    def journalled(self, rows: Sequence[OutboxRow]) -> None:
        """Record the actions of the current event."""
        self._inner.journalled(rows)
        story = _CURRENT.get()
        if story is None:
            return
        for row in rows:
            self._stories.journalled(story, row)
            story.add("action", key=row.key, action=type(row.action).__name__, values=_values_of(row.action))

    @contextmanager
    def action(self, row: OutboxRow) -> Iterator[object]:
        """Record that an action is carried out."""
        story = self._stories.of_action(row.key)
        with self._carrying_out(story, "sent", key=row.key), self._inner.action(row) as block:
            yield block

    @contextmanager
    def receipt(self, thread: ThreadId, message: MessageId) -> Iterator[object]:
        """Record that the read receipt is sent."""
        story = self._stories.of_message(self._bot, thread, message)
        with self._carrying_out(story, "receipt", message=message), self._inner.receipt(thread, message) as block:
            yield block

    @contextmanager
    def _carrying_out(self, story: Story | None, kind: str, **facts: Any) -> Iterator[None]:
        token = _CURRENT.set(story)
        begun, error = time.perf_counter(), None
        try:
            yield
        except BaseException as raised:
            error = (
                f"{type(raised).__qualname__}: {raised}" if isinstance(raised, ServiceError) else type(raised).__name__
            )
            raise
        finally:
            if story is not None:
                story.add(kind, **facts, seconds=time.perf_counter() - begun, error=error)
                if error is not None and "key" in facts:
                    story.unproved.add(facts["key"])
            _CURRENT.reset(token)


class StoryStore:
    """Store that records the states which an event reads, and what is committed for it; delegates everything.

    Args:
        store: The store, opened by somebody else.
        stories: Where the stories are kept.
    """

    def __init__(self, store: Store, stories: Stories) -> None:
        self._store = store
        self._stories = stories
        self._read: OrderedDict[tuple[UserId, StateKey], str | None] = OrderedDict()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def kept(self) -> tuple[dict[tuple[UserId, str], str], dict[tuple[UserId, str], str]]:
        """Return the results of `once` and the journals of dialogs that are kept; see `Stories.kept`."""
        return self._stories.kept()

    async def state(self, bot: UserId, key: StateKey) -> StoredState | None:
        """Return a state, and keep it for the comparison with what is committed."""
        found = await self._store.state(bot, key)
        if _CURRENT.get() is not None:
            self._read[bot, key] = None if found is None else found.value
            if len(self._read) > MAX_STORIES:
                self._read.popitem(last=False)
        return found

    async def result(self, bot: UserId, key: str) -> str | None:
        """Return the result of a call that is made once, and record that it was not made again."""
        found = await self._store.result(bot, key)
        story = _CURRENT.get()
        if found is not None and story is not None:
            story.add("recalled", call="ctx.once", result=_clipped(found))
        return found

    async def commit(
        self, bot: UserId, writes: Sequence[Write], *, shards: Collection[int] = (), notes: Sequence[str] = ()
    ) -> None:
        """Commit, and record what was written."""
        story = _CURRENT.get()
        if story is None:
            await self._store.commit(bot, writes, shards=shards, notes=notes)
            self._stories.keep(bot, writes)
            self._note_settled(writes)
            return
        begun, error = time.perf_counter(), None
        try:
            await self._store.commit(bot, writes, shards=shards, notes=notes)
            self._stories.keep(bot, writes)
            self._note_settled(writes)
        except BaseException as raised:
            error = type(raised).__name__
            raise
        finally:
            kinds = [type(write).__name__ for write in writes]
            step = story.add("commit", seconds=time.perf_counter() - begun, writes=kinds, error=error)
            if error is None:
                step["changes"] = [change for write in writes if (change := self._change(bot, write)) is not None]
                for write in writes:
                    if isinstance(write, SaveDeadLetter):
                        story.data["dead_letter"] = write.letter.id
                    elif isinstance(write, DropDeadLetter) and story.data.get("dead_letter") == write.id:
                        del story.data["dead_letter"]

    def _note_settled(self, writes: Sequence[Write]) -> None:
        """Record actions whose sending seemed to fail, and that are settled now: by a proof, or because they failed."""
        for write in writes:
            story = self._stories.of_action(write.key) if isinstance(write, SettleRow) else None
            if story is not None and isinstance(write, SettleRow) and write.key in story.unproved:
                story.unproved.discard(write.key)
                story.add("settled", key=write.key, status=write.status.name.lower(), reason=write.reason)

    def _change(self, bot: UserId, write: Write) -> Json | None:
        match write:
            case SaveState(key=key, value=value):
                before = self._read.get((bot, key))
                whose = [part for part in (key.thread and "of the thread", key.user and f"of {key.user}") if part]
                self._read[bot, key] = value
                return {
                    "kind": "state",
                    "name": key.name,
                    "whose": " ".join(whose) or "of the bot",
                    "before": _state(before),
                    "after": _state(value),
                }
            case SaveDialog(record=record):
                state = "waits" if record.is_waiting else "goes on"
                return {
                    "kind": "dialog",
                    "name": record.handler,
                    "state": state,
                    "deadline_ms": record.deadline_ms,
                    "journal": _parsed(record.journal),
                }
            case DropDialog(id=id):
                return {"kind": "dialog", "name": id, "state": "ended"}
            case SetTimer(record=record):
                return {"kind": "timer", "name": record.handler, "due_ms": record.due_ms, "payload": record.payload}
            case DropTimer(id=id):
                return {"kind": "timer", "name": id, "state": "ended"}
            case DropDeadLetter(id=id):
                return {"kind": "dead letter", "name": id, "state": "ended"}
            case SaveDeadLetter(letter=letter):
                return {"kind": "dead letter", "name": letter.id, "error": _clipped(letter.error)}
            case _:
                return None


QuotaLeft = Callable[[Operation, ThreadId | None], int | None]

_OPERATIONS: Final = {
    "list_threads": Operation.LIST_THREADS,
    "get_thread": Operation.GET_THREAD,
    "update_topic": Operation.UPDATE_THREAD,
    "send_message": Operation.WRITE_MESSAGE,
    "edit_message": Operation.WRITE_MESSAGE,
    "delete_message": Operation.WRITE_MESSAGE,
    "get_message": Operation.GET_MESSAGE,
    "list_messages": Operation.LIST_MESSAGES,
    "add_participants": Operation.CHANGE_PARTICIPANTS,
    "remove_participant": Operation.CHANGE_PARTICIPANTS,
    "list_participants": Operation.LIST_PARTICIPANTS,
    "send_receipt": Operation.SEND_RECEIPT,
    "list_receipts": Operation.LIST_RECEIPTS,
    "send_typing": Operation.SEND_TYPING,
}
"""The quota that a method of the service uses; methods without an entry have none."""


def recorded(service: ChatService, quota_left: QuotaLeft) -> ChatService:
    """Return a view of a chat service that adds each call to the current story.

    Args:
        service: The service.
        quota_left: Returns how many requests of an operation the bot may still make now, in a thread; None if there is
            no limit.
    """
    return cast(ChatService, _RecordedService(service, quota_left))


class _RecordedService:
    """Delegates every method of `ChatService`; calls outside a story are not recorded."""

    def __init__(self, service: ChatService, quota_left: QuotaLeft) -> None:
        self._service = service
        self._quota_left = quota_left

    def __getattr__(self, name: str) -> Any:
        found, declared = getattr(self._service, name), getattr(ChatService, name, None)
        if not callable(declared):
            return found
        wrap = self._recording_call if iscoroutinefunction(declared) else self._recording_listing
        recording = wrap(name, found)
        setattr(self, name, recording)
        return recording

    def _recording_call(self, name: str, call: Callable[..., Awaitable[T]]) -> Callable[..., Awaitable[T]]:
        async def calling(*args: Any, **options: Any) -> T:
            with self._recording(name, args):
                return await call(*args, **options)

        return calling

    def _recording_listing(
        self, name: str, listing: Callable[..., AsyncIterator[T]]
    ) -> Callable[..., AsyncIterator[T]]:
        async def listed(*args: Any, **options: Any) -> AsyncIterator[T]:
            with self._recording(name, args):
                items = [item async for item in listing(*args, **options)]
            for item in items:
                yield item

        return listed

    @contextmanager
    def _recording(self, name: str, args: tuple[Any, ...]) -> Iterator[None]:
        story = _CURRENT.get()
        if story is None:
            yield
            return
        begun = time.perf_counter()
        outcome: str
        status: int | None = None
        outcome = "ok"
        try:
            yield
        except ServiceError as error:
            outcome, status = outcome_of(error), error.status
            raise
        except BaseException:
            outcome = "canceled"
            raise
        finally:
            seconds, operation = time.perf_counter() - begun, _OPERATIONS.get(name)
            left = None if operation is None else self._quota_left(operation, args[0] if args else None)
            story.add("call", operation=name, outcome=outcome, status=status, seconds=seconds, quota_left=left)


_OWN_FILES: Final = str(Path(chatbot.__file__).parent)


def _traceback(error: BaseException) -> str:
    """Return the traceback from the author's first line on: what leads there is the same for every handler."""
    at = error.__traceback__
    while at is not None and at.tb_frame.f_code.co_filename.startswith(_OWN_FILES):
        at = at.tb_next
    lines = traceback.format_exception(type(error), error, at or error.__traceback__)
    return "".join(lines)[-MAX_TEXT:]


def _facts_of(handler: Handler) -> Json:
    command = handler.registration.command
    return {"handler": handler.name, "place": handler.place, "command": command and f"/{command}"}


def _reason(handler: Handler) -> str:
    registration = handler.registration
    if registration.filter is not None:
        return f"the filter {_shown(registration.filter)} does not match"
    return "the event does not match"


def _values_of(action: Action) -> Json:
    assert is_dataclass(action)
    return {field.name: _shown(value) for field in fields(action) if (value := getattr(action, field.name)) is not None}


def _shown(value: object) -> str:
    if isinstance(value, str):
        return _clipped(value)
    try:
        return _clipped(repr(value))
    except BaseException:  # it may be of a class of a plugin, and no event may fail of its own story
        return f"<{type(value).__name__}>"


def _clipped(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"


def _state(text: str | None) -> Any:
    """Return a state without the version of its form."""
    found = _parsed(text)
    return found.get("value", found) if isinstance(found, dict) else found


def _parsed(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text) if len(text) <= MAX_TEXT * 4 else _clipped(text)
    except ValueError:
        return _clipped(text)
