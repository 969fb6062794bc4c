"""Event Grid: the service's chat events, posted to a webhook after the validation handshake.

Delivered one by one, in the order they happened, again until the webhook takes them: at least once, as Event
Grid does (which also promises no order). The webhook proves itself by answering the validation code, or by
somebody opening the validation URL, as documented for webhook event delivery.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from chatbot.emulator.app import Emulator
from chatbot.emulator.events import EventPublisher
from chatbot.emulator.records import Record

if TYPE_CHECKING:
    import aiohttp

_log = logging.getLogger(__name__)

WAITS_SECONDS = (1.0, 3.0, 10.0, 30.0, 60.0, 300.0)
"""Between attempts; the real schedule begins at 10 seconds, which is too slow for tests."""

_QUEUE = 100_000
_FINAL = frozenset({400, 401, 403, 404, 413})


@contextlib.asynccontextmanager
async def event_grid(
    emulator: Emulator, webhook: str, *, waits_seconds: Sequence[float] = WAITS_SECONDS
) -> AsyncIterator[None]:
    """Post every chat event that happens within the block to `webhook`."""
    import aiohttp  # here, because it takes half as long to load as all the rest, and few need it

    send, receive = anyio.create_memory_object_stream[dict[str, Any]](_QUEUE)
    publisher = EventPublisher(emulator.world.state)
    listener = _Listener(emulator, publisher, send)
    emulator.world.state.listeners.append(listener)
    timeout = aiohttp.ClientTimeout(total=30)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, anyio.create_task_group() as tasks:
            tasks.start_soon(_Delivery(emulator, session, webhook, waits_seconds).run, receive)
            yield
            tasks.cancel_scope.cancel()
    finally:
        emulator.world.state.listeners.remove(listener)
        send.close()
        receive.close()


class _Listener:
    """Queues the events of every record; a full queue loses the newest, and says so."""

    def __init__(
        self, emulator: Emulator, publisher: EventPublisher, queue: MemoryObjectSendStream[dict[str, Any]]
    ) -> None:
        self._emulator = emulator
        self._publisher = publisher
        self._queue = queue

    def __call__(self, record: Record) -> None:
        for event in self._publisher.of(record, self._emulator.now()):
            try:
                self._queue.send_nowait(event)
            except anyio.WouldBlock:
                _log.warning("eventgrid.event_dropped: more than %d events wait for the webhook", _QUEUE)


class _Delivery:
    """The handshake, then one event after the other."""

    def __init__(
        self, emulator: Emulator, session: aiohttp.ClientSession, webhook: str, waits_seconds: Sequence[float]
    ) -> None:
        self._emulator = emulator
        self._session = session
        self._webhook = webhook
        self._waits_seconds = waits_seconds

    async def run(self, queue: MemoryObjectReceiveStream[dict[str, Any]]) -> None:
        await self._handshake()
        async for event in queue:
            await self._deliver(event)

    async def _handshake(self) -> None:
        code = self._emulator.world.state.new_guid().upper()
        opened = anyio.Event()
        self._emulator.validations[code] = opened.set
        event = {
            "id": self._emulator.world.state.new_guid(),
            "topic": "",
            "subject": "",
            "data": {
                "validationCode": code,
                "validationUrl": f"{self._emulator.endpoint}/emulator/eventgrid?code={code}",
            },
            "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
            "eventTime": self._emulator.iso_now(),
            "metadataVersion": "1",
            "dataVersion": "2",
        }
        for wait in self._waits():
            status, answer = await self._post(event, "SubscriptionValidation")
            if status < 300 and _validation_response(answer) == code:
                break
            if status < 300:
                _log.warning("eventgrid.validation_awaited: the webhook did not answer the code; open the URL")
                await opened.wait()
                break
            where = self._webhook.partition("?")[0]  # what follows may be a key
            _log.warning("eventgrid.validation_failed: %s answered %s", where, status or "nothing")
            await anyio.sleep(wait)
        del self._emulator.validations[code]

    async def _deliver(self, event: dict[str, Any]) -> None:
        for wait in self._waits():
            status, _ = await self._post(event, "Notification")
            if status < 300:
                return
            if status in _FINAL:
                _log.warning("eventgrid.event_refused: the webhook answered %d, which is final", status)
                return
            await anyio.sleep(wait)

    async def _post(self, event: dict[str, Any], kind: str) -> tuple[int, bytes]:
        """Status and body; 599 if there was no answer."""
        from aiohttp import ClientError

        headers = {
            "content-type": "application/json; charset=utf-8",
            "aeg-event-type": kind,
            "aeg-subscription-name": "EMULATOR",
            "aeg-delivery-count": "0",
            "aeg-data-version": str(event["dataVersion"]),
            "aeg-metadata-version": "1",
        }
        try:
            async with self._session.post(self._webhook, data=json.dumps([event]), headers=headers) as answer:
                return answer.status, await answer.read()
        except (ClientError, TimeoutError, OSError):
            return 599, b""

    def _waits(self) -> Iterator[float]:
        yield from self._waits_seconds
        while True:
            yield self._waits_seconds[-1]


def _validation_response(answer: bytes) -> str | None:
    with contextlib.suppress(ValueError):
        body = json.loads(answer)
        if isinstance(body, dict):
            return str(body.get("validationResponse", "")).upper()
    return None
