"""Event Grid: the service's chat events, posted to a webhook after the validation handshake.

There are sixteen types of events, eight per thread and eight per user. Per-thread events come once; per-user events
once for everybody in the thread but the one who caused them. Bodies follow the published examples of
`Microsoft.Communication` (Event Grid schema, data version 1.0).

Events are delivered one by one, in the order in which they happened, and again until the webhook accepts them: at least
once, as Event Grid does (which promises no order). The webhook proves itself by answering the validation code, or by
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
from chatbot.emulator.cursors import precise_time
from chatbot.emulator.records import Listed, Message, Record, ThreadEntry
from chatbot.emulator.state import ThreadContents, WorldState

if TYPE_CHECKING:
    import aiohttp

Json = dict[str, Any]
_PREFIX = "Microsoft.Communication."


class EventPublisher:
    """Converts stored records to events."""

    def __init__(self, state: WorldState) -> None:
        self._state = state
        self.reset()

    def reset(self) -> None:
        """Take every thread as it is now for what it was before."""
        self._heads = {room.head.id: room.head for room in self._state.rooms.values()}

    def of(self, record: Record, now: int) -> list[Json]:
        """Yield the events of a record, with their envelopes."""
        events: Iterator[tuple[str, str, Json]] = iter(())
        if isinstance(record, ThreadEntry):
            events = self._thread(record)
        elif isinstance(record, Message):
            events = self._message(record)
        return [self._envelope(kind, subject, data, now) for kind, subject, data in events]

    def _envelope(self, kind: str, subject: str, data: Json, now: int) -> Json:
        resource = self._state.resource.id
        group = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/emulator"
        return {
            "id": self._state.new_guid(),
            "topic": f"{group}/providers/Microsoft.Communication/communicationServices/{resource}",
            "subject": subject,
            "data": data,
            "eventType": _PREFIX + kind,
            "dataVersion": "1.0",
            "metadataVersion": "1",
            "eventTime": _zulu(now),
        }

    def _thread(self, head: ThreadEntry) -> Iterator[tuple[str, str, Json]]:
        before = self._heads.get(head.id)
        self._heads[head.id] = head
        if before is None:
            return
        room = self._state.rooms[head.id]
        if head.deleted is not None and before.deleted is None:
            yield from self._deleted(room)
        elif head.metadata != before.metadata and head.topic == before.topic:
            yield from self._changed(room, head.changed_by, room.version)

    def _message(self, message: Message) -> Iterator[tuple[str, str, Json]]:
        room = self._state.rooms[message.thread]
        if not message.is_system:
            yield from self._message_sent(room, message)
        elif message.type == "participantAdded" and message.sequence == 1:
            yield from self._created(room, message)
        elif message.type == "topicUpdated" and message.sequence > 2:
            yield from self._changed(room, message.sender, message.version)
        elif message.type == "participantAdded":
            yield from self._participants_changed(room, message, "Added", "added")
        elif message.type == "participantRemoved":
            yield from self._participants_changed(room, message, "Removed", "removed")

    def _message_sent(self, room: ThreadContents, message: Message) -> Iterator[tuple[str, str, Json]]:
        kind = "ChatMessageReceived"
        extra: dict[str, int] = {}
        body: Json = {"messageBody": message.text}
        if message.deleted is not None:
            kind, extra, body = "ChatMessageDeleted", {"deleteTime": message.deleted}, {}
        elif message.edited is not None:
            kind, extra = "ChatMessageEdited", {"editTime": message.edited}
        common: Json = {**body, "messageId": str(message.id)}
        if body and message.metadata:
            common["metadata"] = dict(message.metadata)
        where = f"thread/{room.head.id}/sender/{message.sender}"
        sender = {"senderCommunicationIdentifier": _identifier(message.sender)}
        times = {name: precise_time(at) for name, at in extra.items()}
        data: Json = {
            "type": message.type.capitalize(),
            "version": str(message.version),
            "senderDisplayName": message.display_name,
            **sender,
            "composeTime": precise_time(message.id),
        }
        yield f"{kind}InThread", where, {**times, **common, **data, **self._tail(room)}
        times = {name: _zulu(at) for name, at in extra.items()}
        data = {
            "senderId": message.sender,
            **sender,
            "senderDisplayName": message.display_name,
            "composeTime": _zulu(message.id),
            "type": message.type.capitalize(),
            "version": message.version,
        }
        for recipient in self._others(room, message.sender):
            to = _recipient(recipient)
            yield kind, f"{where}/recipient/{recipient}", {**times, **common, **data, **to, **self._tail(room)}

    def _created(self, room: ThreadContents, message: Message) -> Iterator[tuple[str, str, Json]]:
        head = room.head
        where = f"thread/{head.id}/createdBy/{head.creator}"
        by = {"createdByCommunicationIdentifier": _identifier(head.creator)}
        people = {"participants": [self._participant(room, person) for person in message.participants]}
        members = {"members": [_member(person) for person in message.participants]}
        properties = {"properties": {"topic": head.topic}}
        tail = {"createTime": precise_time(head.created), "version": message.version}
        metadata = {"metadata": dict(head.metadata)} if head.metadata else {}
        yield "ChatThreadCreated", where, {**by, **properties, **people, **metadata, **tail, **self._tail(room)}
        for person in message.participants:
            if person.user != head.creator:
                yield (
                    "ChatThreadCreatedWithUser",
                    f"{where}/recipient/{person.user}",
                    {
                        "createdBy": head.creator,
                        **by,
                        **properties,
                        **members,
                        **people,
                        **metadata,
                        "createTime": _zulu(head.created),
                        "version": message.version,
                        **_recipient(person.user),
                        **self._tail(room),
                    },
                )

    def _changed(self, room: ThreadContents, editor: str, version: int) -> Iterator[tuple[str, str, Json]]:
        head = room.head
        where = f"thread/{head.id}/editedBy/{editor}"
        by = {"editedByCommunicationIdentifier": _identifier(editor)}
        properties: Json = {"properties": {"topic": head.topic}}
        if head.metadata:
            properties["metadata"] = dict(head.metadata)
        times = {"editTime": precise_time(version)}
        tail = {"createTime": precise_time(head.created), "version": version}
        yield "ChatThreadPropertiesUpdated", where, {**by, **times, **properties, **tail, **self._tail(room)}
        for recipient in self._others(room, editor):
            data = {"editedBy": editor, **by, "editTime": _zulu(version), **properties}
            tail = {"createTime": _zulu(head.created), "version": version}
            yield (
                "ChatThreadPropertiesUpdatedPerUser",
                f"{where}/recipient/{recipient}",
                {**data, **tail, **_recipient(recipient), **self._tail(room)},
            )

    def _deleted(self, room: ThreadContents) -> Iterator[tuple[str, str, Json]]:
        head = room.head
        by = head.changed_by or head.creator
        where = f"thread/{head.id}/deletedBy/{by}"
        who = {"deletedByCommunicationIdentifier": _identifier(by)}
        deleted = head.deleted or 0
        times = {"deleteTime": precise_time(deleted), "createTime": precise_time(head.created)}
        yield "ChatThreadDeleted", where, {**who, **times, "version": deleted, **self._tail(room)}
        for recipient in self._others(room, by):
            times = {"deleteTime": _zulu(deleted), "createTime": _zulu(head.created)}
            data = {"deletedBy": by, **who, **times, "version": deleted}
            yield (
                "ChatThreadWithUserDeleted",
                f"{where}/recipient/{recipient}",
                {**data, **_recipient(recipient), **self._tail(room)},
            )

    def _participants_changed(
        self, room: ThreadContents, message: Message, kind: str, verb: str
    ) -> Iterator[tuple[str, str, Json]]:
        way = "AddedTo" if kind == "Added" else "RemovedFrom"
        for person in message.participants:
            data = {
                "time": precise_time(message.version),
                f"{verb}ByCommunicationIdentifier": _identifier(message.sender),
                f"participant{kind}": self._participant(room, person),
            }
            tail = {"createTime": precise_time(room.head.created), "version": message.version}
            where = f"thread/{room.head.id}/participant{verb}/{person.user}"
            yield f"ChatThreadParticipant{kind}", where, {**data, **tail, **self._tail(room)}
            for recipient in self._others(room, message.sender):
                to = {"recipientCommunicationIdentifier": _identifier(recipient)}
                late = {"time": _zulu(message.version)}
                tail = {"createTime": _zulu(room.head.created), "version": message.version}
                subject = f"thread/{room.head.id}/participant{kind}/{person.user}/recipient/{recipient}"
                yield (
                    f"ChatParticipant{way}ThreadWithUser",
                    subject,
                    {**data, **late, **to, **tail, **self._tail(room)},
                )

    def _participant(self, room: ThreadContents, person: Listed) -> Json:
        name = {"displayName": person.display_name} if person.display_name is not None else {}
        member = room.members.get(person.user)
        metadata = {"metadata": dict(member.metadata)} if member is not None and member.metadata else {}
        return {**name, "participantCommunicationIdentifier": _identifier(person.user), **metadata}

    def _tail(self, room: ThreadContents) -> Json:
        number = self._state.random.getrandbits(31)
        return {"threadId": room.head.id, "transactionId": f"{self._state.new_vector()}.1.1.1.1.{number}.1"}

    @staticmethod
    def _others(room: ThreadContents, causer: str) -> list[str]:
        return [member.user for member in room.present() if member.user != causer]


def _identifier(user: str) -> Json:
    return {"rawId": user, "communicationUser": {"id": user}}


def _recipient(user: str) -> Json:
    return {"recipientId": user, "recipientCommunicationIdentifier": _identifier(user)}


def _member(person: Listed) -> Json:
    name = {"displayName": person.display_name} if person.display_name is not None else {}
    return {**name, "memberId": person.user}


def _zulu(millis: int) -> str:
    return precise_time(millis).replace("+00:00", "Z")


_log = logging.getLogger(__name__)

RETRY_SECONDS = (1.0, 3.0, 10.0, 30.0, 60.0, 300.0)
"""Seconds between attempts; the real schedule begins at 10 seconds, which is too slow for tests."""

_QUEUE = 100_000
_FINAL = frozenset({400, 401, 403, 404, 413})


@contextlib.asynccontextmanager
async def event_grid(
    emulator: Emulator, webhook: str, *, waits_seconds: Sequence[float] = RETRY_SECONDS
) -> AsyncIterator[None]:
    """Post every chat event within the block to `webhook`."""
    import aiohttp  # here, because it takes half as long to load as all the rest, and few need it

    send, receive = anyio.create_memory_object_stream[dict[str, Any]](_QUEUE)
    publisher = EventPublisher(emulator.world.state)
    listener = _Listener(emulator, publisher, send)
    emulator.world.state.listeners.append(listener)
    emulator.world.state.replacement_listeners.append(publisher.reset)
    timeout = aiohttp.ClientTimeout(total=30)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, anyio.create_task_group() as tasks:
            tasks.start_soon(_Delivery(emulator, session, webhook, waits_seconds).run, receive)
            yield
            tasks.cancel_scope.cancel()
    finally:
        emulator.world.state.listeners.remove(listener)
        emulator.world.state.replacement_listeners.remove(publisher.reset)
        send.close()
        receive.close()


class _Listener:
    """Queues the events of every record; if the queue is full, new events are dropped and logged."""

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
    """Performs the handshake, then delivers the events one by one."""

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
        for wait in self._pauses():
            status, answer = await self._post(event, "SubscriptionValidation")
            if status < 300 and _validation_response(answer) == code:
                break
            if status < 300:
                _log.warning("eventgrid.validation_awaited: the webhook did not answer the code; open the URL")
                await opened.wait()
                break
            where = self._webhook.partition("?")[0]  # the query may be a key
            _log.warning("eventgrid.validation_failed: %s answered %s", where, status or "nothing")
            await anyio.sleep(wait)
        del self._emulator.validations[code]

    async def _deliver(self, event: dict[str, Any]) -> None:
        for wait in self._pauses():
            status, _ = await self._post(event, "Notification")
            if status < 300:
                return
            if status in _FINAL:
                _log.warning("eventgrid.event_refused: the webhook answered %d, which is final", status)
                return
            await anyio.sleep(wait)

    async def _post(self, event: dict[str, Any], kind: str) -> tuple[int, bytes]:
        """Post an event; return status and body, 599 if there was no response."""
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

    def _pauses(self) -> Iterator[float]:
        yield from self._waits_seconds
        while True:
            yield self._waits_seconds[-1]


def _validation_response(answer: bytes) -> str | None:
    with contextlib.suppress(ValueError):
        body = json.loads(answer)
        if isinstance(body, dict):
            return str(body.get("validationResponse", "")).upper()
    return None
