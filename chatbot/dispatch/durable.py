"""What a handler asks for that outlives it, or is done but once: timers, and effects outside of the chat."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import datetime, timedelta
from typing import Any, ParamSpec, TypeVar, overload

from chatbot.actions import action_key, expect_identifier
from chatbot.conversation.once import refuse_inside_effect
from chatbot.dispatch.ledger import Ledger
from chatbot.dispatch.occasion import Occasion
from chatbot.dispatch.place import qualified_name
from chatbot.dispatch.reply import Reply
from chatbot.durations import due_on
from chatbot.errors import StateError
from chatbot.model import TimerId

P = ParamSpec("P")
T = TypeVar("T")


class Durable:
    """The durable part of a context.

    Args:
        occasion: the event, and the bot it happened to.
        handler: the qualified name of the handler.
        ledger: where wishes are written, with the memory of the event.
    """

    __slots__ = ("_handler", "_is_open", "_ledger", "_occasion")

    def __init__(self, occasion: Occasion, handler: str, ledger: Ledger) -> None:
        self._occasion = occasion
        self._handler = handler
        self._ledger = ledger
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
        id = TimerId(self._ledger.next_key(self._handler))
        self._ledger.memory.set_timer(id, name, due, stored)
        return id

    def _plan_timer(self, when: timedelta | datetime, name: str, payload: Mapping[str, object]) -> tuple[datetime, str]:
        """When a timer is due, and the stored form of its payload; errors as for `later`."""
        takes = self._occasion.timers.get(name)
        if takes is None:
            msg = f"{name} is no timer of this bot; decorate it with @plugin.timer, in a plugin that the bot has"
            raise StateError(msg)
        if not isinstance(when, timedelta | datetime):
            msg = f"later() takes a timedelta or a datetime, not {type(when).__name__}"
            raise TypeError(msg)
        return due_on(self._ledger.memory.now, when), takes.encode(payload)

    async def cancel(self, timer: TimerId) -> None:
        """Have what `later` was asked for not happen; what has happened already stays."""
        self._check_can_ask("cancel")
        self._ledger.memory.drop_timer(expect_identifier(timer, "cancel()"))

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
        one = self._occasion
        name = action_key(one.bot.user, one.thread, one.event.key, f"{self._handler}:{key}", 0)
        return await self._ledger.memory.once(name, function, *args, **kwargs)

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
