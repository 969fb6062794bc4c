"""A dialog: a function that asks and waits for answers, and outlives the process meanwhile.

Nothing waits in memory. When a dialog asks, its journal is committed and the run ends; the person's next message
runs the function again, along its journal, to the line where it had asked. So everything it does between two
questions must do the same every time: what does not goes through `run`, and `chatbot check` looks for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ParamSpec, TypeVar, overload

from chatbot.actions import SendMessage, expect_identifier, expect_text
from chatbot.conversation.answers import NO, YES, agrees, choose, complaint
from chatbot.conversation.performance import Performance
from chatbot.events import MessageReceived
from chatbot.model import ThreadId, UserId

T = TypeVar("T")
C = TypeVar("C", bound=str)
P = ParamSpec("P")


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

    def __init__(self, performance: Performance) -> None:
        self._performance = performance

    def __repr__(self) -> str:
        return f"<Dialog {self._performance.record.id} in {self._performance.record.handler}>"

    @property
    def user(self) -> UserId:
        """With whom it is held."""
        return self._performance.record.user

    @property
    def thread(self) -> ThreadId:
        """Where it is held."""
        return self._performance.record.thread

    @property
    def event(self) -> MessageReceived:
        """The message that it began with."""
        event = self._performance.record.event
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
        self._performance.say(_message(text, html))

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
        if validate is not None and not callable(validate):
            msg = f"validate={validate!r} cannot be called; write a function that takes the answer, such as `int`"
            raise TypeError(msg)
        if choices is not None:
            if not choices:
                msg = f"there is nothing to choose from in {question!r}: choices= is empty; ask only where it is not"
                raise ValueError(msg)
            shown, given = f"{question} ({' / '.join(choices)})", choices
            return self._checked(shown, timeout, lambda answer: choose(answer, given))
        if validate is not None:
            return self._checked(question, timeout, validate)
        return self._performance.ask(_message(question, None), timeout)

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
        return self._checked(f"{question} ({yes[0]} / {no[0]})", timeout, lambda answer: agrees(answer, yes, no))

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
        return await self._performance.run(function, *args, **kwargs)

    async def now(self) -> datetime:
        """The time, UTC, the same in every run."""
        return datetime.fromtimestamp(await self.run(self._now_ms) / 1000, UTC)

    def _now_ms(self) -> int:
        return self._performance.now_ms

    def _checked(self, question: str, timeout: timedelta | None, validate: Callable[[str], T]) -> T:
        answer = self._performance.ask(_message(question, None), timeout)
        try:
            return validate(answer)
        except ValueError as error:
            self._performance.refuse(complaint(error, validate))
            raise


def _check_timeout(timeout: object) -> None:
    if timeout is not None and not isinstance(timeout, timedelta):
        msg = f"timeout={timeout!r} is not a time; write timeout=timedelta(seconds=60)"
        raise TypeError(msg)


def _message(text: str | None, html: str | None) -> SendMessage:
    if (text is None) == (html is None):
        msg = "say() takes either a text or html=…"
        raise ValueError(msg)
    content = expect_text(text if html is None else html, "a dialog")
    if not content.strip():
        msg = "a dialog has nothing to say here: the text is empty"
        raise ValueError(msg)
    return SendMessage(content, type="text" if html is None else "html")
