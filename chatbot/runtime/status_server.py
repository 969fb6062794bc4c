"""The status pages, at the address where bots.yaml wants them at the moment, if it wants them at all.

They are served by a thread with an event loop of its own, so that a probe is answered while the bots' loop is blocked.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import anyio
import anyio.to_thread
import structlog
from anyio.from_thread import start_blocking_portal
from starlette.applications import Starlette

from chatbot.config import Config
from chatbot.errors import StateError
from chatbot.runtime.observe.serving import CannotListen, serve_pages

Listen = tuple[str, int]


class StatusServer:
    """Serves pages; can be moved.

    Args:
        pages: which.
    """

    def __init__(self, pages: Starlette) -> None:
        self._pages = pages
        self._listen: Listen | None = None
        self._serving = AsyncExitStack()
        self._log = structlog.get_logger()

    @asynccontextmanager
    async def open(self, config: Config) -> AsyncIterator[None]:
        """Serve where this configuration says, or wherever it was moved to, until the block ends.

        Raises:
            StateError: nobody can listen there.
        """
        await self.move(config)
        try:
            yield
        finally:
            await self._serving.aclose()

    async def move(self, config: Config) -> None:
        """Serve where this configuration says.

        Raises:
            StateError: nobody can listen there; the pages are where they were.
        """
        before, wanted = self._listen, config.server.listen if config.server else None
        if wanted == before:
            return
        await self._serve(None)  # first, because the new address may contain the old one: 0.0.0.0 on the same port
        try:
            await self._serve(wanted)
        except CannotListen as error:
            await self._serve(before)
            raise StateError(config.problem(("server", "listen"), str(error))) from error

    async def _serve(self, listen: Listen | None) -> None:
        await self._serving.aclose()
        self._listen = None
        if listen is not None:
            address = await self._serving.enter_async_context(_in_a_thread(serve_pages(self._pages, *listen)))
            self._listen = listen
            self._log.info("status.served", address=address)


@asynccontextmanager
async def _in_a_thread(serving: AbstractAsyncContextManager[str]) -> AsyncIterator[str]:
    """Enter it, and leave it, on the event loop of a thread that lives as long as the block."""
    thread = start_blocking_portal("asyncio", name="chatbot-status-pages")
    portal = await anyio.to_thread.run_sync(thread.__enter__)
    try:
        inside = portal.wrap_async_context_manager(serving)
        address = await anyio.to_thread.run_sync(inside.__enter__)
        try:
            yield address
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(inside.__exit__, None, None, None)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(thread.__exit__, None, None, None)
