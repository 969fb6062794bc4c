"""A store on virtual time: while it works, on whatever threads it has, the virtual time stands still."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Self, cast

if TYPE_CHECKING:
    from chatbot.stores.base import Store
    from chatbot.testing.virtual_time import VirtualTimeLoop


def patient(store: Store, loop: VirtualTimeLoop) -> Store:
    """The same store, waited for in real time.

    Args:
        store: any store.
        loop: whose time is to stand still.
    """
    return cast("Store", _PatientStore(store, loop))


class _PatientStore:
    def __init__(self, store: Store, loop: VirtualTimeLoop) -> None:
        self._store = store
        self._loop = loop

    async def __aenter__(self) -> Self:
        with self._loop.work_outside():
            await self._store.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        with self._loop.work_outside():
            await self._store.__aexit__(*exc_info)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        return self._wait_for(found) if inspect.iscoroutinefunction(found) else found

    def _wait_for(self, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def wait(*args: Any, **options: Any) -> Any:
            with self._loop.work_outside():
                return await call(*args, **options)

        return wait
