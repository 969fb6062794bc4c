"""Serve the status pages at the address in bots.yaml, if there is one.

The pages run on a thread with an event loop of its own, so that a probe is answered while the bots' loop is blocked.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import structlog
from anyio.from_thread import start_blocking_portal

from chatbot.config import Config
from chatbot.errors import StateError
from chatbot.http_listener import CannotListen
from chatbot.worker_threads import run_in_thread

if TYPE_CHECKING:
    from starlette.applications import Starlette

Listen = tuple[str, int]


class StatusServer:
    """Serve the status pages at the address in bots.yaml, which can change while the bots run.

    Args:
        create_pages: Creates the application to serve. It is called on the bots' event loop, for each address.
    """

    def __init__(self, create_pages: Callable[[], Starlette]) -> None:
        self._create_pages = create_pages
        self._listen: Listen | None = None
        self._serving = AsyncExitStack()
        self._log = structlog.get_logger()

    @asynccontextmanager
    async def open(self, config: Config) -> AsyncIterator[None]:
        """Serve at the configured address until the block ends; `move` can change the address meanwhile.

        Raises:
            StateError: The address cannot be bound.
        """
        await self.move(config)
        try:
            yield
        finally:
            await self._serving.aclose()

    async def move(self, config: Config) -> None:
        """Switch to the address of this configuration, if it differs.

        Raises:
            StateError: The address cannot be bound. The pages stay at the previous address.
        """
        before, wanted = self._listen, config.server.listen if config.server else None
        if wanted == before:
            return
        await self._serve(None)  # stop first: the new address may include the old one (0.0.0.0 on the same port)
        try:
            await self._serve(wanted)
        except CannotListen as error:
            await self._serve(before)
            raise StateError(config.problem(("server", "listen"), str(error))) from error

    async def _serve(self, listen: Listen | None) -> None:
        await self._serving.aclose()
        self._listen = None
        if listen is not None:
            await run_in_thread(_import_pages)
            from chatbot.runtime.status_pages import serve_pages

            serving = serve_pages(self._create_pages(), *listen)
            address = await self._serving.enter_async_context(_in_a_thread(serving))
            self._listen = listen
            self._log.info("status.served", address=address)


def _import_pages() -> None:
    """Import the web framework, which takes 4 MB, for a daemon that serves pages."""
    import chatbot.runtime.status_pages  # noqa: F401


@asynccontextmanager
async def _in_a_thread(serving: AbstractAsyncContextManager[str]) -> AsyncIterator[str]:
    """Run a context manager on the event loop of its own thread, which lives as long as the block."""
    thread = start_blocking_portal("asyncio", name="chatbot-status-pages")
    portal = await run_in_thread(thread.__enter__)
    try:
        inside = portal.wrap_async_context_manager(serving)
        address = await run_in_thread(inside.__enter__)
        try:
            yield address
        finally:
            with anyio.CancelScope(shield=True):
                await run_in_thread(inside.__exit__, None, None, None)
    finally:
        with anyio.CancelScope(shield=True):
            await run_in_thread(thread.__exit__, None, None, None)
