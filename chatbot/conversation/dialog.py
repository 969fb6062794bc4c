"""Dialogs: functions that ask and wait for answers, and outlive the process meanwhile.

Nothing waits in memory. When a dialog asks, its journal is committed and the run ends; the person's next message runs
the function again, along its journal, to the line where it had asked. So everything between two questions must do the
same in every run: what does not goes through `run`, and `chatbot check` looks for it.

What a person answers is interpreted here, too; a `ValueError` says to the person what would do.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Protocol, TypeVar, cast, overload

from chatbot.actions import ActionKey, SendMessage, expect_identifier, expect_text
from chatbot.conversation.dialog_replay import Replay
from chatbot.events import MessageReceived
from chatbot.message_size import check_message
from chatbot.model import Participant, ThreadId, TimerId, UserId
from chatbot.normalization import find_match, fold_name

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

C = TypeVar("C", bound=str)

NOT_UNDERSTOOD: Final = "Sorry, I did not understand that."

YES: Final = ("yes", "y", "yeah", "yep", "ok", "okay", "sure")
NO: Final = ("no", "n", "nope", "nah")


def choose(answer: str, choices: Sequence[C]) -> C:
    """The choice that an answer means: itself in any case, or a beginning that only it has."""
    found = find_match(answer.strip(), ((one, one) for one in choices))
    if found is not None:
        return found[1]
    typed = fold_name(answer)
    begun = [one for one in choices if typed and fold_name(one).startswith(typed)]
    if len(begun) == 1:
        return begun[0]
    msg = f"Please answer with one of these: {', '.join(choices)}."
    raise ValueError(msg)


def agrees(answer: str, yes: Sequence[str], no: Sequence[str]) -> bool:
    """Whether an answer means yes."""
    typed = _word(answer)
    if typed in map(fold_name, yes):
        return True
    if typed in map(fold_name, no):
        return False
    msg = f"Please answer with {yes[0]} or {no[0]}."
    raise ValueError(msg)


def complaint(error: ValueError, validate: Callable[[str], Any]) -> str:
    """What to tell the person: an author's own words, but not those of Python's own functions."""
    plain = inspect.unwrap(validate)
    return str(error) if hasattr(plain, "__code__") and str(error) else NOT_UNDERSTOOD


def is_cancel(answer: str, words: Sequence[str]) -> bool:
    """Whether somebody does not want to go on."""
    return _word(answer) in map(fold_name, words)


def _word(answer: str) -> str:
    """An answer of one word as it is compared; phones and people put a period behind it."""
    return fold_name(answer).rstrip(".!。").rstrip()


T = TypeVar("T")

P = ParamSpec("P")


class DialogHost(Protocol):
    """What a dialog asks of the event in hand; the dispatcher gives it."""

    @property
    def log(self) -> FilteringBoundLogger:
        """A logger bound to bot, thread, event and handler."""
        ...

    def name_of_timer(self, timer: Callable[..., Any]) -> str:
        """The qualified name that a timer's function is stored by."""
        ...

    def plan_timer(self, when: timedelta | datetime, name: str, payload: Mapping[str, object]) -> tuple[datetime, str]:
        """When a timer is due, and the stored form of its payload.

        Raises:
            StateError, ValueError, TypeError, CannotStore: as for `ctx.later`.
        """
        ...

    async def participants(self) -> Sequence[Participant]:
        """Who is in the thread, the bot included."""
        ...

    def typing(self) -> AbstractAsyncContextManager[None]:
        """Show that the bot is writing."""
        ...


class Dialog:
    """The first parameter of a handler that holds a dialog with the person whose message it got.

    ::

        @plugin.command("hello")
        async def hello(talk: Dialog) -> None:
            name = await talk.ask("What is your name?")
            await talk.say(f"Hi {name}!")

    The person's next message in the thread is the answer, unless it is a command. A dialog may await other functions
    that take it: `await address(talk)`. What it returns, if it is text, is said last.
    """

    def __init__(self, performance: Replay, host: DialogHost) -> None:
        self._replay = performance
        self._host = host

    def __repr__(self) -> str:
        return f"<Dialog {self._replay.record.id} in {self._replay.record.handler}>"

    @property
    def user(self) -> UserId:
        """With whom it is held."""
        return self._replay.record.user

    @property
    def thread(self) -> ThreadId:
        """Where it is held."""
        return self._replay.record.thread

    @property
    def event(self) -> MessageReceived:
        """The message that it began with."""
        event = self._replay.record.event
        assert isinstance(event, MessageReceived)
        return event

    async def say(self, text: str | None = None, *, html: str | None = None) -> None:
        """Say something.

        Args:
            text: as plain text.
            html: as html.

        Raises:
            ValueError: neither or both of text and html.
            TypeError: it is no text.
        """
        self._replay.say(_message(text, html))

    @overload
    async def reply(self, text: str, *, thread: ThreadId | None = None) -> ActionKey: ...

    @overload
    async def reply(self, *, html: str, thread: ThreadId | None = None) -> ActionKey: ...

    async def reply(
        self, text: str | None = None, *, html: str | None = None, thread: ThreadId | None = None
    ) -> ActionKey:
        """Say something, in this thread or in another one.

        Args:
            text: as plain text.
            html: as html.
            thread: where; by default where the dialog is held. The bot must be in it.

        Returns:
            The message's key: kept in a state, it lets a later event's handler `ctx.edit(key, …)` the message.

        Raises:
            ValueError: neither or both of text and html, or nothing to say.
        """
        return self._replay.say(_message(text, html, thread))

    @overload
    async def ask(self, question: str, *, timeout: timedelta | None = None) -> str: ...

    @overload
    async def ask(self, question: str, *, choices: Sequence[C], timeout: timedelta | None = None) -> C: ...

    @overload
    async def ask(self, question: str, *, validate: Callable[[str], T], timeout: timedelta | None = None) -> T: ...

    async def ask(
        self,
        question: str,
        *,
        choices: Sequence[str] | None = None,
        validate: Callable[[str], Any] | None = None,
        timeout: timedelta | None = None,
    ) -> Any:
        """Ask, and wait for an answer: the text of the person's next message.

        Args:
            question: what to ask; changed while somebody is being asked, it ends that dialog.
            choices: the only answers there are; people may type them in any case, or begin them. Gives the choice.
            validate: makes a value of the answer; its `ValueError` is said to the person, who is asked again. It is
                called again for every later step, and must do the same each time.
            timeout: how long to wait; by default, and if it is more than 100 years, for ever.

        Raises:
            DialogTimeout: no answer came in time.
            DialogCancelled: the person does not want to go on (the plugin's `cancel_words`).
            TypeError: `question`, `timeout` or `validate` is of another type.
            ValueError: there is nothing to choose from, or the question has half of a surrogate pair: an answer
                belongs to the words of its question, so nothing in them is replaced.
        """
        _check_timeout(timeout)
        expect_identifier(question, "ask()")
        written = _as_written(question, sys._getframe(1))
        if validate is not None and not callable(validate):
            msg = f"validate={validate!r} cannot be called; write a function that takes the answer, such as `int`"
            raise TypeError(msg)
        if choices is not None:
            if not choices:
                msg = f"there is nothing to choose from in {question!r}: choices= is empty; ask only where it is not"
                raise ValueError(msg)
            shown, given = f"{question} ({' / '.join(choices)})", choices
            return self._checked(shown, timeout, lambda answer: choose(answer, given), written)
        if validate is not None:
            return self._checked(question, timeout, validate, written)
        return self._replay.ask(_message(question, None), timeout, written)

    async def confirm(
        self,
        question: str,
        *,
        yes: Sequence[str] = YES,
        no: Sequence[str] = NO,
        timeout: timedelta | None = None,
    ) -> bool:
        """Ask for a yes or a no.

        Args:
            question: what to ask; `(yes / no)` is added.
            yes: the words for yes, the one to show first.
            no: the words for no, likewise.
            timeout: how long to wait; by default for ever.

        Raises:
            DialogTimeout: no answer came in time.
            DialogCancelled: the person does not want to go on.
        """
        _check_timeout(timeout)
        expect_identifier(question, "confirm()")
        written = _as_written(question, sys._getframe(1))
        return self._checked(
            f"{question} ({yes[0]} / {no[0]})", timeout, lambda answer: agrees(answer, yes, no), written
        )

    @overload
    async def run(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T: ...

    @overload
    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...

    async def run(self, function: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Do something with the world outside, or whatever may come out differently another time, once.

        The result is remembered before the dialog goes on, and given to later runs in place of a second call. If the
        process dies between the effect and that, the function is called again: at least once, and rarely more.

        Args:
            function: async or not; its result is stored as its return annotation says, else as plain JSON.
            args: what it is called with.
            kwargs: likewise.

        Raises:
            CannotStore: the result is not what it is annotated as.
            Exception: what the function raised; a retry calls it again.
        """
        return await self._replay.run(function, *args, **kwargs)

    async def now(self) -> datetime:
        """The time, UTC, the same in every run."""
        return datetime.fromtimestamp(await self.run(self._now_ms) / 1000, UTC)

    async def later(
        self, when: timedelta | datetime, timer: Callable[..., Coroutine[Any, Any, Any]], /, **payload: object
    ) -> TimerId:
        """Have a `@plugin.timer` function called in this thread later, as `ctx.later` does.

        The timer is set once, together with the dialog's next question or its end.

        Args:
            when: how long from now, or a datetime with a time zone; one in the past is due at once.
            timer: the function.
            payload: what it is called with, besides its context; stored as its parameters are typed.

        Returns:
            What `cancel` takes, here or in another handler; it can be kept in a state.

        Raises:
            StateError: the function is no timer of this bot.
            ValueError: a datetime without a time zone.
            TypeError: the function takes other arguments.
            CannotStore: an argument is not of its declared type.
        """
        name = self._host.name_of_timer(timer)

        def plan() -> tuple[int, str]:
            due, stored = self._host.plan_timer(when, name, payload)
            return int(due.timestamp() * 1000), stored

        return self._replay.set_timer(name, plan, self.user)

    async def cancel(self, timer: TimerId) -> None:
        """Cancel a timer that `later` has set; one that was called already changes nothing."""
        expect_identifier(timer, "cancel()")
        self._replay.cancel_timer(timer)

    async def participants(self) -> Sequence[Participant]:
        """Who is in the thread, the bot included; in later runs, who was in it then.

        Raises:
            ErrorResponse: the service does not say.
        """
        return await self._replay.participants(self._host.participants)

    @asynccontextmanager
    async def typing(self) -> AsyncIterator[None]:
        """Show people that the bot is writing, for as long as the block lasts: `async with talk.typing():`.

        A courtesy, as `ctx.typing`. Steps that are only replayed show nothing.
        """
        if self._replay.is_replaying:
            yield
            return
        async with self._host.typing():
            yield

    @property
    def log(self) -> FilteringBoundLogger:
        """A logger that names bot, thread, event and handler on every line. Do not log people's words.

        Steps that are only replayed log nothing, so that each line is written once.
        """
        return cast("FilteringBoundLogger", _ReplayLog(self._host.log, self._replay))

    def _now_ms(self) -> int:
        return self._replay.now_ms

    def _checked(
        self, question: str, timeout: timedelta | None, validate: Callable[[str], T], written: str | None
    ) -> T:
        answer = self._replay.ask(_message(question, None), timeout, written)
        try:
            return validate(answer)
        except ValueError as error:
            self._replay.refuse(complaint(error, validate))
            raise


def _as_written(question: str, caller: FrameType) -> str | None:
    """The question, if it stands in the source of who asks it; None of one that was computed: it may quote people.

    Args:
        caller: the frame of the author's function.
    """
    code = caller.f_code
    if any(question is one or (isinstance(one, str) and question == one) for one in code.co_consts):
        return question
    return question if any(caller.f_globals.get(name) == question for name in code.co_names) else None


def _check_timeout(timeout: object) -> None:
    if timeout is not None and not isinstance(timeout, timedelta):
        msg = f"timeout={timeout!r} is not a time; write timeout=timedelta(seconds=60)"
        raise TypeError(msg)


class _ReplayLog:
    """A logger that is silent while a dialog is replayed; asked at each line, as authors keep the logger."""

    def __init__(self, log: FilteringBoundLogger, performance: Replay) -> None:
        self._log = log
        self._replay = performance

    def __repr__(self) -> str:
        return f"<log of {self._replay.record.handler}>"

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._log, name)
        if name in _REBINDING:
            return lambda *args, **kwargs: _ReplayLog(found(*args, **kwargs), self._replay)
        if not callable(found) or not self._replay.is_replaying:
            return found
        return _say_nothing_later if name in _ASYNC_LEVELS else _say_nothing


_REBINDING = ("bind", "unbind", "try_unbind", "new")
_ASYNC_LEVELS = ("adebug", "ainfo", "awarning", "awarn", "aerror", "acritical", "afatal", "aexception", "alog")


def _say_nothing(*_args: object, **_kwargs: object) -> None:
    return None


async def _say_nothing_later(*_args: object, **_kwargs: object) -> None:
    return None


def _message(text: str | None, html: str | None, thread: ThreadId | None = None) -> SendMessage:
    if (text is None) == (html is None):
        msg = "a dialog says either a text or html=…"
        raise ValueError(msg)
    content = expect_text(text if html is None else html, "a dialog")
    if not content.strip():
        msg = "a dialog has nothing to say here: the text is empty"
        raise ValueError(msg)
    check_message("a dialog", content, is_html=html is not None)
    return SendMessage(content, type="text" if html is None else "html", thread=thread)
