"""Find the handler that answers an event, and run it.

Rules:
    1. A word that cancels a dialog comes first, then known commands, then the dialog that waits for this person, then
       all other handlers in the order of plugins and of registration.
    2. The first match answers. `PASS` hands on to the next handler; actions of the handler that passed are kept.
    3. An unknown `/x` is a message like any other. A similar command is suggested only if no handler answers.
    4. Timers and schedules call the function that they name, and no other.
    5. Events that may not be answered are not dispatched to handlers; see `access`.
    6. A handler that fails leaves no actions. Retries are up to the caller.

The dispatcher commits, sends and retries nothing. The bot's lane does, and calls `dispatch_failure` when an event will
not be retried.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Final, NamedTuple, Protocol, Self

from chatbot.actions import KeyedAction, SendMessage, make_encodable
from chatbot.conversation.dialog import is_cancel
from chatbot.conversation.schedules import Schedule
from chatbot.conversation.unit_of_work import LOST, UnitOfWork
from chatbot.dispatch.access import Access, AccessPolicy, Verdict
from chatbot.dispatch.action_buffer import ActionBuffer, HandlerScope, no_handler_scope
from chatbot.dispatch.arguments import BadArguments, TimerPayload
from chatbot.dispatch.author_code import AuthorCode, IsFatal, RunLimits
from chatbot.dispatch.binding import Match
from chatbot.dispatch.context import Context
from chatbot.dispatch.event_view import (
    BotInfo,
    CommandInfo,
    EventView,
    function_called_by,
    is_own,
    lines_of,
    without_bots,
)
from chatbot.dispatch.filters import NOTHING, part_of
from chatbot.dispatch.handler import Handler
from chatbot.dispatch.live import LiveChannel
from chatbot.dispatch.outcome import PASS, Ack, Outcome, Retry
from chatbot.dispatch.plugin_tasks import call_as_plugin, guard_tasks
from chatbot.dispatch.provider import ProviderCache
from chatbot.dispatch.registry import HandlerRegistry, unknown_function
from chatbot.errors import CannotStore, DialogDiverged, TimeTooFar, text_of
from chatbot.events import DialogTimedOut, Event, MessageReceived
from chatbot.model import MessageId
from chatbot.normalization import most_similar
from chatbot.stores.records import DialogRecord
from chatbot.stores.writes import Write

SUGGESTION: Final = "chatbot.suggestion"
"""The handler name of suggestions of similar commands."""

LOST_DIALOG: Final = "chatbot.dialog"
"""The handler name of messages about dialogs that cannot continue."""

APOLOGY_HANDLER: Final = "chatbot.apology"
"""The handler name of apologies for messages that could not be handled."""

LIMIT: Final = "chatbot.limit"
"""The handler name of messages about the rate limit."""

_NEAR: Final = 0.75  # /hepl is near /help, /hello is not: it may be meant for another bot in the thread


class _Listeners(NamedTuple):
    """The handlers of one class of events, in order: all, and those that also take messages without text.

    `by_part` has all of them, each with a text that occurs in every plain text that it matches (see `part_of`).
    """

    handlers: tuple[Handler, ...]
    without_text: tuple[Handler, ...]
    by_part: tuple[tuple[str, Handler], ...]

    def of_text(self, text: str) -> Sequence[Handler]:
        """Return the handlers that a plain text may match."""
        return [handler for part, handler in self.by_part if part in text]


class HandlerSource(Protocol):
    """Something that has handlers: a plugin."""

    def handlers(self) -> Sequence[Handler]:
        """Return all handlers, ready to run, in order."""
        ...


class Dispatcher:
    """A bot's handlers, in order. Use it as `async with` around all events: some providers live that long.

    Args:
        plugins: where the handlers come from, in the order of bots.yaml.
        bot: the bot.
        ack: when messages are marked as read, unless a handler sets its own.
        access: who may use the bot, and the rate limit.
        apology: what is sent to a person when all attempts to handle their message have failed; None sends nothing.
        ends_all: which errors end everything, rather than being failures of their event; none by default.

    Attributes:
        author_code: runs all code of the plugins.
        handlers: all handlers, in order.

    Raises:
        PluginError: two of them have the same name, or a handler cannot be prepared.
    """

    def __init__(
        self,
        plugins: Iterable[HandlerSource],
        *,
        bot: BotInfo,
        ack: Ack = Ack.HANDLED,
        access: Access | None = None,
        is_fatal: IsFatal | None = None,
        apology: str | None = None,
    ) -> None:
        self._apology = apology
        self.author_code = AuthorCode(is_fatal)
        registry = HandlerRegistry(handler for plugin in plugins for handler in plugin.handlers())
        handlers = registry.everyone
        self._bot = bot
        self._ack = ack
        self._access = AccessPolicy(bot, access or Access())
        self.handlers = registry.everyone
        self._commands = registry.commands
        self._by_name = registry.by_name
        self._timed = registry.timed
        self._others = tuple(
            handler for handler in handlers if handler.info is None and not handler.registration.is_called_by_name
        )
        self._payloads = {name: handler.payload for name, handler in self._timed.items() if handler.payload is not None}
        self._by_event: dict[type[Event], _Listeners] = {}
        self._infos = tuple(handler.info for handler in self._commands.values() if handler.info)
        self._lines = lines_of(self._commands)
        self._provider_cache = ProviderCache(provider for handler in handlers for provider in handler.providers)

    async def __aenter__(self) -> Self:
        """Create what plugins provide once per bot; it is torn down on exit, in reverse order."""
        guard_tasks()
        await self._provider_cache.__aenter__()
        await self.author_code.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        try:
            await self.author_code.__aexit__(*exc_info)
        finally:
            await self._provider_cache.__aexit__(*exc_info)

    def with_plugins(self, plugins: Iterable[HandlerSource]) -> Dispatcher:
        """Return a dispatcher of other plugins for the same bot, with the same rate limits and running code.

        Raises:
            PluginError: as for this one.
        """
        other = Dispatcher(plugins, bot=self._bot, ack=self._ack, apology=self._apology)
        other._access, other.author_code = self._access, self.author_code
        return other

    @property
    def bot(self) -> BotInfo:
        """The bot of these handlers."""
        return self._bot

    @property
    def commands(self) -> tuple[CommandInfo, ...]:
        """All commands, in order."""
        return self._infos

    @property
    def timers(self) -> Mapping[str, TimerPayload]:
        """The payloads of the bot's timers, by the qualified names of their functions."""
        return self._payloads

    @property
    def schedules(self) -> Mapping[str, Schedule]:
        """When schedules are due, by the qualified names of their functions."""
        schedules = {name: handler.registration.schedule for name, handler in self._timed.items()}
        return {name: schedule for name, schedule in schedules.items() if schedule is not None}

    def subscribes(self, event: type[Event]) -> bool:
        """Return whether any handler takes events of this class."""
        return bool(self._listeners_of(event).handlers) or (event is MessageReceived and bool(self._commands))

    async def dispatch(
        self,
        event: Event,
        unit_of_work: UnitOfWork | None = None,
        *,
        live: LiveChannel | None = None,
        handler_scope: HandlerScope = no_handler_scope,
        limits: RunLimits | None = None,
    ) -> Outcome:
        """Run the first handler that matches the event, and return its actions or its error.

        Args:
            event: the event.
            unit_of_work: what handlers read and change; without one, handlers that ask for state fail.
            live: for what handlers do while they run; without one, nothing is shown before the commit.
            handler_scope: makes a context manager, by the handler's name, that is entered while it runs.
            limits: the default timeout of handlers, and who is notified of long runs.

        Returns:
            The actions and the handler's name, or the handler's name and its error. Cancellation passes through.

        Raises:
            StoreError: the rate limit's state cannot be read.
        """
        if is_own(event, self._bot):
            return Outcome()
        name = function_called_by(event)
        if name is not None and name not in self._timed:
            return Outcome(handler=name, error=unknown_function(event, name), is_final=True)
        unit_of_work = unit_of_work or UnitOfWork(event)
        verdict = self._access.admit(event)
        if verdict is Verdict.ALLOWED and self._access.has_rate:
            verdict = await self._access.check_rate(event, unit_of_work)
        is_allowed = verdict is Verdict.ALLOWED
        if verdict is Verdict.DENIED:
            return Outcome()
        everyone, people = self._views(event)
        buffer = ActionBuffer(everyone, unit_of_work, live=live, handler_scope=handler_scope)
        considered = limits.considered if limits is not None else None
        for handler in self._candidates(everyone, name, unit_of_work.pending, considered is not None):
            view = people
            if people is not everyone and handler and handler.registration.options.from_bots:
                view = everyone
            if view is None:
                continue
            is_answered, match = False, None
            # Filters run before the access check: a person whom no handler would answer is not notified of a limit.
            try:
                if handler is not None:
                    found = NOTHING if handler.find is None else handler.find(view)
                    if found is None:
                        if considered is not None:
                            considered(handler, None)
                        continue
                    match = handler.bind(view, found)
            except BaseException as error:  # what `author_code.call` does, without a call for each handler
                return self._failed(handler, event, buffer, self.author_code.failure(error))
            if considered is not None and handler is not None:
                considered(handler, match)
            if handler and match is None:
                continue
            if limits is not None and limits.before is not None and is_allowed:
                await limits.before(handler.name if handler else _name_of(unit_of_work.pending))
            try:
                if is_allowed:
                    is_answered = await self._offer(handler, match, view, buffer, limits)
            except TimeTooFar as error:
                if handler is None or handler.is_dialog or not isinstance(event, MessageReceived):
                    return self._failed(handler, event, buffer, error)
                return self._explain(handler, event, buffer, error)
            except Exception as error:
                return self._failed(handler, event, buffer, error)
            if not is_allowed:
                await self._refuse(event, verdict, buffer)
                return self._done(None, event, buffer, is_owed=True)
            if is_answered:
                # Only answers count, and they count in the event's commit: an event that is retried counts once.
                if buffer.keyed_actions:
                    await self._access.note_answer(event, unit_of_work)
                handler = handler or self._by_name.get(_name_of(unit_of_work.pending))
                return self._done(handler, event, buffer, is_owed=True)
        if people is not None:
            self._suggest(people, buffer)
        return self._done(None, event, buffer, is_owed=people is not None)

    async def dispatch_failure(
        self,
        event: Event,
        failed: Outcome,
        unit_of_work: UnitOfWork | None = None,
        *,
        live: LiveChannel | None = None,
        handler_scope: HandlerScope = no_handler_scope,
        limits: RunLimits | None = None,
    ) -> Outcome:
        """Run the error handlers for an event that will not be retried, and return their actions.

        The first one that takes the error answers; those of the handler's own plugin come before those of plugins that
        include it. `PASS` hands on. If an error handler fails, its error is the outcome's, and its actions are dropped;
        the outcome has the apology instead.

        Args:
            event: the event that was given up.
            failed: the outcome of its last attempt.
            unit_of_work: as for `dispatch`.
            live, handler_scope, limits: as for `dispatch`.
        """
        error, handler = failed.error, self._by_name.get(failed.handler or "")
        everyone, people = self._views(event)
        is_for_bots = handler is not None and handler.registration.options.from_bots
        view = everyone if is_for_bots else people or everyone
        buffer = ActionBuffer(view, unit_of_work or UnitOfWork(event), live=live, handler_scope=handler_scope)
        for error_handler in handler.errors if handler and error is not None else ():
            if error is None or not isinstance(error, error_handler.errors):
                continue
            if limits is not None and limits.before is not None:
                await limits.before(error_handler.name)
            try:
                ctx: Context[Event] = Context(view, handler=error_handler.name, buffer=buffer)
                answer = error_handler.answer(ctx, error, self._provider_cache)
                timeout = limits.timeout if limits is not None else None
                with ctx, buffer.handler_scope(error_handler.name):
                    reply = await self.author_code.run(answer, error_handler, timeout=timeout, limits=limits)
                    if isinstance(reply, str):
                        await ctx.reply(reply)
            except Exception as worse:
                apology = self._apology_for(people)
                if apology:
                    self._access.count_in_row(event)
                return Outcome(tuple(apology), error_handler.name, worse, receipt=failed.receipt)
            if reply is not PASS:
                return self._done(handler, event, buffer, is_owed=True)
        if isinstance(error, DialogDiverged):
            buffer.add(LOST_DIALOG, SendMessage(LOST))
            return self._done(handler, event, buffer, is_owed=failed.receipt is not None)
        if apology := self._apology_for(people):
            await self._access.note_answer(event, buffer.unit_of_work)  # loop protection counts apologies, too
            buffer.keyed_actions += apology
        elif handler is None:
            return Outcome(handler=failed.handler, receipt=failed.receipt)
        return self._done(handler, event, buffer, is_owed=failed.receipt is not None)

    def _apology_for(self, people: EventView | None) -> list[KeyedAction]:
        """Return the apology for a message that was given up; nothing for other events, or if apologies are off."""
        if self._apology is None or people is None or not isinstance(people.event, MessageReceived):
            return []
        apology = ActionBuffer(people, UnitOfWork(people.event))
        apology.add(APOLOGY_HANDLER, SendMessage(self._apology))
        return apology.keyed_actions

    async def _refuse(self, event: Event, verdict: Verdict, buffer: ActionBuffer) -> None:
        """Report once that a sender is over a limit: to a person by a message, of a bot by a line in the log."""
        if not await self._access.should_report(event, verdict, buffer.unit_of_work):
            return
        if verdict is Verdict.RATE_LIMITED:
            buffer.add(LIMIT, SendMessage("That is a lot at once. Please give me a moment, and then ask again."))
            return
        import structlog  # here, because importing it is slow and most runs do not log

        thread, sender = buffer.view.thread, getattr(buffer.view.message, "sender", None)
        structlog.get_logger("chatbot").warning("loop.broken", bot=self._bot.name, thread=thread, sender=sender)

    def _views(self, event: Event) -> tuple[EventView, EventView | None]:
        """Return the event as handlers with `from_bots` see it, and as others do; None if others do not get it."""
        everyone, concerning_people = self._view(event), without_bots(event, self._bot)
        if concerning_people is event:
            return everyone, everyone
        return everyone, None if concerning_people is None else self._view(concerning_people)

    def _view(self, event: Event) -> EventView:
        return EventView(event, self._bot, self._infos, self._payloads, self._lines)

    def _candidates(
        self, view: EventView, name: str | None, pending: DialogRecord | None, is_each_shown: bool
    ) -> Iterable[Handler | None]:
        """Return the handlers to try, in order; None is the pending dialog.

        Args:
            view: the event.
            name: the function that the event calls.
            pending: the dialog that waits for this person.
            is_each_shown: whether to return also those that cannot match the text, for an inspector.
        """
        if name is not None:
            return (self._timed[name],)
        listeners = self._listeners_of(type(view.event))
        command: Handler | None = None
        line = view.command_line if self._commands and isinstance(view.event, MessageReceived) else None
        if line is not None:
            command = self._commands.get(line.name)
        others: Sequence[Handler]
        if command is not None:
            others = listeners.handlers
        elif not view.has_text:
            others = listeners.without_text
        elif view.is_plain and not is_each_shown:
            others = listeners.of_text(view.text)
        else:
            others = listeners.handlers
        first: tuple[Handler, ...] = () if command is None else (command,)
        if pending is None:
            return chain(first, others) if first else others
        if self._is_first(view, pending):
            return (None, *first, *others)
        return (*first, None, *others) if view.has_text else (*first, *others)

    def _is_first(self, view: EventView, pending: DialogRecord) -> bool:
        """Whether the pending dialog comes before the commands."""
        if isinstance(view.event, DialogTimedOut) or view.event.key == pending.event_key:
            return True
        handler = self._by_name.get(pending.handler)
        return handler is not None and is_cancel(view.text, handler.cancel_words)

    def _listeners_of(self, event: type[Event]) -> _Listeners:
        known = self._by_event.get(event)
        if known is None:
            everyone = tuple(handler for handler in self._others if issubclass(event, handler.registration.event))
            known = _Listeners(
                everyone,
                tuple(handler for handler in everyone if not handler.registration.needs_text),
                tuple((part_of(handler.registration.filter), handler) for handler in everyone),
            )
            self._by_event[event] = known
        return known

    async def _offer(
        self,
        handler: Handler | None,
        match: Match | None,
        view: EventView,
        buffer: ActionBuffer,
        limits: RunLimits | None,
    ) -> bool:
        """Run a handler, and return whether it took the event; its actions are in the buffer then."""
        if handler is None or match is None:
            handler, match = self._resumed(buffer.unit_of_work.resume(view.text))
        ctx: Context[Event] = Context(view, handler=handler.name, buffer=buffer)
        answer = handler.answer(ctx, match, self._provider_cache, buffer.unit_of_work)
        timeout = handler.timeout(limits.timeout if limits is not None else None)
        with ctx, buffer.handler_scope(handler.name):
            reply = await self.author_code.run(answer, handler, timeout=timeout, limits=limits)
            if reply is not None and type(reply) is not str:  # nearly always one of both
                reply = self.author_code.call(handler.checked, reply)
            if isinstance(reply, str):
                await ctx.reply(reply)
        # After the handler has succeeded, also with PASS: messages of a dialog are committed with the event, and those
        # of a failed attempt must not be.
        if buffer.unit_of_work.keyed_actions:
            buffer.keyed_actions += buffer.unit_of_work.take_keyed_actions()
        return reply is not PASS

    def _resumed(self, pending: DialogRecord) -> tuple[Handler, Match]:
        """Return the handler that continues a dialog, and the arguments that the dialog began with."""
        handler = self._by_name.get(pending.handler)
        if handler is not None and handler.is_dialog:
            # Match the event that began the dialog, not the answer: a replay must get the arguments it began with.
            view = self._view(pending.event)
            match = self.author_code.call(handler.match, view)
            if match is not None and not isinstance(match, BadArguments):
                return handler, match
        msg = (
            f"the dialog {pending.handler} was removed, or takes other arguments, while it was in progress;"
            " restore the code; then retry this dead letter, or drop it"
        )
        raise DialogDiverged(msg)

    def _suggest(self, view: EventView, buffer: ActionBuffer) -> None:
        if not isinstance(view.event, MessageReceived) or view.command_line is None:
            return
        name = view.command_line.name
        if name in self._commands:  # it exists, but its filter or the command itself passed
            return
        near = most_similar(name, self._commands, cutoff=_NEAR)
        if near is not None:
            info = self._commands[near].info
            shown = near if info is None else info.name
            buffer.add(SUGGESTION, SendMessage(f"There is no /{name}. Did you mean /{shown}?"))

    def _done(self, handler: Handler | None, event: Event, buffer: ActionBuffer, *, is_owed: bool) -> Outcome:
        is_manual = self._ack_of(handler) is Ack.MANUAL
        receipt = _receipt_of(event) if buffer.is_acknowledged or (is_owed and not is_manual) else None
        name, unit_of_work = handler.name if handler else None, buffer.unit_of_work
        try:
            writes = call_as_plugin(unit_of_work.writes) if unit_of_work.has_states else unit_of_work.writes()
        except CannotStore as error:
            if handler is not None:
                error = CannotStore(f"{handler.place}: {handler.name} left what cannot be stored: {text_of(error)}")
            return Outcome(handler=name, error=error, is_final=True, writes=self._dialog_writes(unit_of_work))
        except BaseException as error:  # classes of states, and how they are stored, are code of plugins
            return self._failed(handler, event, buffer, self.author_code.failure(error))
        return Outcome(tuple(buffer.keyed_actions), name, writes=tuple(writes), receipt=receipt)

    def _explain(self, handler: Handler, event: Event, buffer: ActionBuffer, error: TimeTooFar) -> Outcome:
        """Send the error's text to the person; the handler's other actions are dropped."""
        answer = ActionBuffer(buffer.view, UnitOfWork(event))
        answer.add(handler.name, SendMessage(make_encodable(text_of(error), handler.name)))
        return self._done(handler, event, answer, is_owed=True)

    def _failed(self, handler: Handler | None, event: Event, buffer: ActionBuffer, error: Exception) -> Outcome:
        unit_of_work = buffer.unit_of_work
        name = handler.name if handler else unit_of_work.pending.handler if unit_of_work.pending else None
        handler = handler or self._by_name.get(name or "")
        receipt = _receipt_of(event) if self._ack_of(handler) is Ack.RECEIVED else None
        retry = (handler.registration.options.retry if handler else None) or Retry()
        is_final = isinstance(error, CannotStore | DialogDiverged)
        return Outcome((), name, error, retry, is_final, self._dialog_writes(unit_of_work), receipt)

    def _dialog_writes(self, unit_of_work: UnitOfWork) -> tuple[Write, ...]:
        """Return writes with which a retry of the dead letter continues the dialog; none if they cannot be made."""
        try:
            return tuple(self.author_code.call(unit_of_work.dialog_writes_on_failure))
        except Exception:
            return ()

    def _ack_of(self, handler: Handler | None) -> Ack:
        return (handler.registration.options.ack if handler else None) or self._ack


def _name_of(pending: DialogRecord | None) -> str:
    return pending.handler if pending else ""


def _receipt_of(event: Event) -> MessageId | None:
    return event.message.id if isinstance(event, MessageReceived) else None
