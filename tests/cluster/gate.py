"""What separates a replica from the world: it can be closed (a paused process), cut (a partition), or shut for good."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
from azure.core.exceptions import ServiceRequestError
from azure.core.pipeline.transport import AsyncHttpResponse, HttpRequest

from chatbot.emulator import Emulator
from chatbot.testing.transport import AsgiTransport


class Gate:
    """Stands between a replica's code and everything that others see of it.

    While it is closed, the replica is as a stopped process (SIGSTOP): its tasks may run up to their next call of the
    store or the service, and get no further, whereas time passes. What was asked before the pause is answered after it.

    Args:
        clock: seconds of a monotonic clock; `drift` is added to it.

    Attributes:
        is_dead: the replica was killed; nothing passes any more.
        is_cut_from_database, is_cut_from_service: requests are refused.
        is_refusing: the database undoes each commit, whereas the session lives on.
        refusals: how many it has undone.
        is_slow: for those who set `delay`: each crossing takes long.
        is_silent: what is asked of the database while it is cut off fails only after a while, as if packets were lost.
        on_request: called with each request to the service after the replica was allowed to send it: here a pause falls
            between the check and the send.
        on_answer: called with each request that the service has answered, and the answer.
        delay: returns the seconds that each crossing takes; None without any.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._is_open = anyio.Event()
        self._is_open.set()
        self.is_dead = False
        self.is_cut_from_database = False
        self.is_cut_from_service = False
        self.is_refusing = self.is_slow = False
        self.refusals = 0
        self.is_silent = False
        self.on_request: Callable[[HttpRequest], None] = lambda _request: None
        self.on_answer: Callable[[HttpRequest, AsyncHttpResponse], None] = lambda _request, _answer: None
        self.delay: Callable[[], float] | None = None

    def now(self) -> float:
        """The replica's monotonic clock."""
        return self._clock()

    @property
    def is_closed(self) -> bool:
        """Whether the replica is paused."""
        return not self._is_open.is_set()

    def close(self) -> None:
        """Pause the replica."""
        if not self.is_closed:
            self._is_open = anyio.Event()

    def open(self) -> None:
        """Let it go on."""
        self._is_open.set()

    def die(self) -> None:
        """Let nothing pass any more."""
        self.is_dead = True
        self._is_open.set()

    async def passing(self) -> None:
        """Wait until the gate is open; a dead replica gets no further, and is being canceled."""
        if self.delay is not None:
            await anyio.sleep(self.delay())
        while self.is_closed:
            await self._is_open.wait()
        if self.is_dead:
            await anyio.sleep_forever()


def is_send(request: HttpRequest) -> bool:
    """Return whether a request sends a message."""
    return request.method == "POST" and request.url.partition("?")[0].endswith("/messages")


class GatedTransport(AsgiTransport):
    """The way of a replica to the service, through its gate."""

    def __init__(self, emulator: Emulator, gate: Gate) -> None:
        super().__init__(emulator)
        self._gate = gate

    async def send(self, request: HttpRequest, **options: Any) -> AsyncHttpResponse:
        """Send a request, unless the replica is cut off or dead; a pause delays it, or its answer."""
        self._gate.on_request(request)
        await self._gate.passing()
        if self._gate.is_cut_from_service:
            raise ServiceRequestError("the service cannot be reached")
        response = await super().send(request, **options)
        self._gate.on_answer(request, response)
        await self._gate.passing()
        return response
