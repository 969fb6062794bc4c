"""Service and token wrappers that count calls and record token expiry."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from inspect import iscoroutinefunction
from typing import Any, TypeVar, cast

from chatbot.errors import ServiceError
from chatbot.model import UserId
from chatbot.runtime.observe.counters import BotCounters
from chatbot.service.base import ChatService
from chatbot.service.credentials import TokenSource

T = TypeVar("T")


class CountedTokens:
    """Token source that records the expiry of each token.

    Args:
        tokens: The source to delegate to.
        counters: Where the expiry is recorded.
    """

    def __init__(self, tokens: TokenSource, counters: BotCounters) -> None:
        self._tokens = tokens
        self._counters = counters

    async def get_token(self, *scopes: str, **kwargs: Any) -> Any:
        """Return a valid token and record its expiry."""
        token = await self._tokens.get_token(*scopes, **kwargs)
        self._counters.token_expires_on = float(token.expires_on)
        return token

    async def renew(self, rejected: str | None = None) -> None:
        """Get a new token."""
        await self._tokens.renew(rejected)

    async def close(self) -> None:
        """Close the token source."""
        await self._tokens.close()


def counted(service: ChatService, counters: BotCounters) -> ChatService:
    """Return a view of a chat service that counts each call by its outcome; all pages of a listing are one call."""
    return cast(ChatService, _CountedService(service, counters))


class _CountedService:
    """Delegates every method of `ChatService`, whatever its arguments, so that none can be left uncounted."""

    def __init__(self, service: ChatService, counters: BotCounters) -> None:
        self._service = service
        self._counters = counters

    @property
    def user(self) -> UserId:
        return self._service.user  # each poll asks for it

    def __getattr__(self, name: str) -> Any:
        found, declared = getattr(self._service, name), getattr(ChatService, name, None)
        if not callable(declared):
            return found
        wrap = self._counting_call if iscoroutinefunction(declared) else self._counting_listing
        counting = wrap(name, found)
        setattr(self, name, counting)  # this method is called only once for each name
        return counting

    def _counting_call(self, name: str, call: Callable[..., Awaitable[T]]) -> Callable[..., Awaitable[T]]:
        async def calling(*args: Any, **options: Any) -> T:
            with self._counted(name):
                return await call(*args, **options)

        return calling

    def _counting_listing(self, name: str, listing: Callable[..., AsyncIterator[T]]) -> Callable[..., AsyncIterator[T]]:
        async def listed(*args: Any, **options: Any) -> AsyncIterator[T]:
            with self._counted(name):
                # Read everything first: the consumer's time and errors between items are not those of the call.
                items = [item async for item in listing(*args, **options)]
            for item in items:
                yield item

        return listed

    def _counted(self, operation: str) -> _Counted:
        return _Counted(self._counters, operation)


class _Counted:
    """Counts the call in its block; a generator in its place would cost two microseconds of every call."""

    __slots__ = ("_begun", "_counters", "_operation")

    def __init__(self, counters: BotCounters, operation: str) -> None:
        self._counters = counters
        self._operation = operation

    def __enter__(self) -> None:
        self._begun = time.perf_counter()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        outcome = "ok" if error is None else outcome_of(error) if isinstance(error, ServiceError) else "cancelled"
        self._counters.count_call(self._operation, outcome, time.perf_counter() - self._begun)


def outcome_of(error: ServiceError) -> str:
    """Return the outcome label of an error: its class name in snake_case (`throttled`, `outcome_unknown`, …)."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()
