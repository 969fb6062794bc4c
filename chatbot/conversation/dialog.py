"""Dialogs: functions that ask questions and wait for answers, also across restarts.

Nothing waits in memory. When a dialog asks, its journal is committed and the run ends. The person's next message runs
the function again, along its journal, to the line where it had asked. The code between two questions must therefore do
the same in every run; what does not goes through `run`, and `chatbot check` warns of it.

Answers are interpreted here, too. The text of a `ValueError` tells the person which answers are valid.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Protocol, TypeVar, cast, overload

from chatbot.actions import ActionKey, SendMessage, expect_identifier, expect_result, expect_text
from chatbot.events import MessageReceived
from chatbot.message_size import check_message
from chatbot.model import Participant, ThreadId, TimerId, UserId
from chatbot.normalization import find_match, fold_name

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from chatbot.conversation.dialog_replay import Replay

C = TypeVar("C", bound=str)

NOT_UNDERSTOOD: Final = "Sorry, I did not understand that."

YES: Final = ("yes", "y", "yeah", "yep", "ok", "okay", "sure")
NO: Final = ("no", "n", "nope", "nah")


def choose(answer: str, choices: Sequence[C]) -> C:
    """Return the choice that an answer names, in any case, or by a beginning that no other choice has."""
    found = find_match(answer.strip(), ((choice, choice) for choice in choices))
    if found is not None:
        return found[1]
    typed = fold_name(answer)
    begun = [choice for choice in choices if typed and fold_name(choice).startswith(typed)]
    if len(begun) == 1:
        return begun[0]
    msg = f"Please answer with one of these: {', '.join(choices)}."
    raise ValueError(msg)


def is_yes(answer: str, yes: Sequence[str], no: Sequence[str]) -> bool:
    """Return whether an answer means yes; a `ValueError` if it means neither."""
    typed = _word(answer)
    if typed in map(fold_name, yes):
        return True
    if typed in map(fold_name, no):
        return False
    msg = f"Please answer with {yes[0]} or {no[0]}."
    raise ValueError(msg)


def complaint(error: ValueError, validate: Callable[[str], Any]) -> str:
    """Return an author's text of a validation error; texts of built-in functions are replaced."""
    plain = inspect.unwrap(validate)
    return str(error) if hasattr(plain, "__code__") and str(error) else NOT_UNDERSTOOD


CANCEL_WORDS: Final = ("cancel", "/cancel")
"""Words that cancel a dialog, unless a plugin sets its own."""


def is_cancel(answer: str, words: Sequence[str]) -> bool:
    """Return whether an answer cancels the dialog."""
    return _word(answer) in map(fold_name, words)


def _word(answer: str) -> str:
    """Return an answer in the form that is compared, without the period that phones and people add."""
    return fold_name(answer).rstrip(".!。").rstrip()


T = TypeVar("T")

P = ParamSpec("P")


class DialogHost(Protocol):
    """What a dialog needs from the current event; the dispatcher implements it."""

    @property
    def log(self) -> FilteringBoundLogger:
        """A logger bound to bot, thread, event and handler."""
        ...

    def name_of_timer(self, timer: Callable[..., Any]) -> str:
        """Return the qualified name under which a timer's function is stored."""
        ...

    def plan_timer(self, when: timedelta | datetime, name: str, payload: Mapping[str, object]) -> tuple[datetime, str]:
        """Return when a timer is due, and the stored form of its payload.

        Raises:
            StateError, ValueError, TypeError, CannotStore: as for `ctx.later`.
        """
        ...

    async def participants(self) -> Sequence[Participant]:
        """Return who is in the thread, the bot included."""
        ...

    def typing(self) -> AbstractAsyncContextManager[None]:
        """Show the typing indicator."""
        ...


class Dialog:
    """A dialog with the sender of a message: the first parameter of a handler that asks questions.

    ::

        @plugin.command("hello")
        async def hello(talk: Dialog) -> None:
            name = await talk.ask("What is your name?")
            await talk.say(f"Hi {name}!")

    The person's next message in the thread is the answer, unless it is a command. A dialog may pass itself to other
    functions: `await address(talk)`. If it returns a text, the text is sent.
    """

    def __init__(self, replay: Replay, host: DialogHost) -> None:
        self._replay = replay
        self._host = host

    def __repr__(self) -> str:
        return f"<Dialog {self._replay.record.id} in {self._replay.record.handler}>"

    @property
    def user(self) -> UserId:
        """The person."""
        return self._replay.record.user

    @property
    def thread(self) -> ThreadId:
        """The thread of the dialog."""
        return self._replay.record.thread

    @property
    def event(self) -> MessageReceived:
        """The message that began the dialog."""
        event = self._replay.record.event
        assert isinstance(event, MessageReceived)
        return event

    async def say(self, text: str | None = None, *, html: str | None = None) -> None:
        """Send a message.

        Args:
            text: as plain text.
            html: as HTML.

        Raises:
            ValueError: neither or both of `text` and `html`, or an empty one.
            TypeError: not a `str`.
        """
        self._replay.say(_message(text, html))

    @overload
    async def reply(self, text: str, *, thread: ThreadId | None = None) -> ActionKey: ...

    @overload
    async def reply(self, *, html: str, thread: ThreadId | None = None) -> ActionKey: ...

    async def reply(
        self, text: str | None = None, *, html: str | None = None, thread: ThreadId | None = None
    ) -> ActionKey:
        """Send a message to this thread or to another one.

        Args:
            text: as plain text.
            html: as HTML.
            thread: by default the dialog's. The bot must be in it.

        Returns:
            The message's key. Stored in a state, it lets the handler of a later event `ctx.edit(key, …)` the message.

        Raises:
            ValueError: neither or both of `text` and `html`, or an empty one.
            TypeError: not a `str`.
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
        """Ask a question, wait, and return the text of the person's next message.

        Args:
            question: the question. Changing it in the code ends dialogs that wait for its answer.
            choices: the valid answers; people may type them in any case, or only their beginning. Returns the choice.
            validate: converts the answer. The text of its `ValueError` is sent to the person, who may answer again. It
                is called again in every later run, and must do the same each time.
            timeout: how long to wait; without limit by default, and if it is more than 100 years.

        Raises:
            DialogTimeout: no answer came in time.
            DialogCancelled: the person cancelled the dialog (the plugin's `cancel_words`).
            TypeError: `question`, `timeout` or `validate` is of another type.
            ValueError: `choices` is empty, or the question has half of a surrogate pair. An answer is valid only for
                the exact words of its question, so nothing in them is replaced.
        """
        _check_timeout(timeout)
        expect_identifier(question, "ask()")
        written = _source_text(question, sys._getframe(1))
        if inspect.iscoroutinefunction(validate):
            msg = "validate= is async; write a plain function, and await what it needs after ask(), or in `talk.run`"
            raise TypeError(msg)
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
        """Ask a yes-or-no question.

        Args:
            question: the question; `(yes / no)` is appended.
            yes: words for yes; the first one is shown.
            no: words for no; the first one is shown.
            timeout: how long to wait; without limit by default.

        Raises:
            DialogTimeout: no answer came in time.
            DialogCancelled: the person cancelled the dialog.
        """
        _check_timeout(timeout)
        expect_identifier(question, "confirm()")
        written = _source_text(question, sys._getframe(1))
        return self._checked(
            f"{question} ({yes[0]} / {no[0]})", timeout, lambda answer: is_yes(answer, yes, no), written
        )

    @overload
    async def run(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T: ...

    @overload
    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...

    async def run(self, function: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Call a function that has effects, or whose result may differ between runs, once.

        The result is stored before the dialog goes on, and later runs get it without a call. If the process dies after
        the effect and before that, the function is called again: it is called at least once, and rarely more often.

        Args:
            function: async or not; its result is stored by its return annotation, else as plain JSON.
            args: its positional arguments.
            kwargs: its keyword arguments.

        Raises:
            CannotStore: the result does not match its annotation.
            Exception: what the function raised; a retry calls it again.
        """
        return await self._replay.run(function, *args, **kwargs)

    async def now(self) -> datetime:
        """Return the time, UTC; the same in every run."""
        return datetime.fromtimestamp(await self.run(self._now_ms) / 1000, UTC)

    async def later(
        self, when: timedelta | datetime, timer: Callable[..., Coroutine[Any, Any, Any]], /, **payload: object
    ) -> TimerId:
        """Set a timer that calls a `@plugin.timer` function in this thread, as `ctx.later` does.

        The timer is set once, together with the dialog's next question or its end.

        Args:
            when: a delay, or a datetime with a time zone; one in the past is due immediately.
            timer: the function.
            payload: its arguments after the context, stored by its annotations.

        Returns:
            The timer's id for `cancel`, here or in another handler; it can be stored in a state.

        Raises:
            StateError: the function is not a timer of this bot.
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
        """Cancel a timer that `later` has set; does nothing if it has been called already."""
        expect_identifier(timer, "cancel()")
        self._replay.cancel_timer(timer)

    async def participants(self) -> Sequence[Participant]:
        """Return who is in the thread, the bot included; in later runs, who was in it at the first run.

        Raises:
            ServiceError: the service did not answer.
        """
        return await self._replay.participants(self._host.participants)

    @asynccontextmanager
    async def typing(self) -> AsyncIterator[None]:
        """Show the typing indicator while the block runs: `async with talk.typing():`.

        Best effort, as `ctx.typing`. Replayed steps show nothing.
        """
        if self._replay.is_replaying:
            yield
            return
        async with self._host.typing():
            yield

    @property
    def log(self) -> FilteringBoundLogger:
        """A logger bound to bot, thread, event and handler. Do not log people's words.

        Replayed steps log nothing, so each line is written once.
        """
        return cast("FilteringBoundLogger", _ReplayLog(self._host.log, self._replay))

    def _now_ms(self) -> int:
        return self._replay.now_ms

    def _checked(
        self, question: str, timeout: timedelta | None, validate: Callable[[str], T], written: str | None
    ) -> T:
        expect_identifier(question, "ask()")  # choices and words are part of it by now
        answer = self._replay.ask(_message(question, None), timeout, written)
        try:
            return expect_result(validate(answer), "validate=")
        except ValueError as error:
            self._replay.reject(complaint(error, validate))
            raise


def _source_text(question: str, caller: FrameType) -> str | None:
    """Return the question if it is a constant in the author's source; None if it was computed and may quote people.

    Args:
        caller: the frame of the author's function.
    """
    code = caller.f_code
    if any(question is constant or (isinstance(constant, str) and question == constant) for constant in code.co_consts):
        return question
    return question if any(caller.f_globals.get(name) == question for name in code.co_names) else None


def _check_timeout(timeout: object) -> None:
    if timeout is not None and not isinstance(timeout, timedelta):
        msg = f"timeout={timeout!r} is not a time; write timeout=timedelta(seconds=60)"
        raise TypeError(msg)


class _ReplayLog:
    """A logger that is silent during replay. It checks at each line, because authors keep the logger in a variable."""

    def __init__(self, log: FilteringBoundLogger, replay: Replay) -> None:
        self._log = log
        self._replay = replay

    def __repr__(self) -> str:
        return f"<log of {self._replay.record.handler}>"

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._log, name)
        if name in _REBINDING:
            return lambda *args, **kwargs: _ReplayLog(found(*args, **kwargs), self._replay)
        if not callable(found) or not self._replay.is_replaying:
            return found
        return _ignore_async if name in _ASYNC_LEVELS else _ignore


_REBINDING = ("bind", "unbind", "try_unbind", "new")
_ASYNC_LEVELS = ("adebug", "ainfo", "awarning", "awarn", "aerror", "acritical", "afatal", "aexception", "alog")


def _ignore(*_args: object, **_kwargs: object) -> None:
    return None


async def _ignore_async(*_args: object, **_kwargs: object) -> None:
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
