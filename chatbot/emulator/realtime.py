"""Real-time notifications for browsers, with the protocol of Microsoft's JavaScript SDK.

The way of a client: it reads where the channel is (`/chat/config/realTimeNotifications`), asks for a connection
(`POST /v4/a`), opens a session (`GET /socket.io/1/`), connects its websocket (`/socket.io/1/websocket/{session}`) and
registers (`POST /v3/registrations`). The websocket speaks socket.io 0.9. A browser cannot send headers with it, so that
it proves itself by the session and by the ticket (`sig`) that it was given.

An event goes to every connection of everybody it concerns, the one who caused it included, and is kept for nobody: a
client that was away lists messages when it is back. What the events say is in `notifications.py`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from chatbot.emulator.errors import ErrorResponse
from chatbot.emulator.identities import CHAT_SCOPES, unauthorized
from chatbot.emulator.notifications import Notification, Notifier
from chatbot.emulator.records import Record, Typing
from chatbot.emulator.request import Request, Response, parse_path, parse_query
from chatbot.emulator.routing import Receive, Scope, Send
from chatbot.emulator.serialization import dump
from chatbot.emulator.world import World

_log = logging.getLogger(__name__)

CONFIG_VERSIONS = ("2024-09-01",)
HEARTBEAT_SECONDS = 30.0
"""Seconds between heartbeats to each client; a client may be silent for three times as long."""

_ANNOUNCED_HEARTBEAT = 180
_TTL_SECONDS = 86_400
_MAX_WAITING = 1_000
_MAX_CONNECTIONS = 50
_MAX_SESSIONS = 10_000


@dataclass(eq=False, slots=True)
class RealtimeConnection:
    """A client's websocket: its user, the path of its events, and its queue of events."""

    user: str
    path: str
    frames: MemoryObjectSendStream[str]
    sent: int = 0
    is_lost: bool = False


@dataclass(slots=True)
class _Session:
    """Permission to connect: made by `/v4/a`, confirmed by `/socket.io/1/`."""

    user: str
    path: str
    expires: int


@dataclass(slots=True)
class RealtimeChannel:
    """The notification service of one emulator."""

    world: World
    now: Callable[[], int]
    connections: dict[str, list[RealtimeConnection]] = field(default_factory=dict)
    registrations: dict[str, str] = field(default_factory=dict)
    _tickets: dict[str, _Session] = field(default_factory=dict)
    _sessions: dict[str, _Session] = field(default_factory=dict)
    _notifier: Notifier | None = None

    def answer(self, request: Request) -> Response | None:
        """Answer a request of the channel; return None for other requests."""
        path = [segment.lower() for segment in request.segments]
        match path:
            case ["chat", "config", "realtimenotifications"] if request.method == "GET":
                return self._configure(request)
            case ["v4", "a"] if request.method == "POST":
                return self._grant(request)
            case ["socket.io", "1"] if request.method == "GET":
                return self._open(request)
            case ["v3", "registrations"] if request.method == "POST":
                return self._register(request)
            case ["v3", "registrations", _] if request.method == "DELETE":
                if self._user(request) == self.registrations.get(request.segments[2]):
                    del self.registrations[request.segments[2]]
                return _answer(204, None)
        return None

    def _configure(self, request: Request) -> Response:
        scheme, _, token = request.header(b"authorization").partition(" ")
        request.caller = self._check(token.strip() if scheme.lower() == "bearer" else "", request.now)
        if request.query.get("api-version") not in CONFIG_VERSIONS:
            raise ErrorResponse(400, "UnsupportedApiVersion", "The API version is not supported.")
        base = request.base
        body = {"trouterServiceUrl": base, "registrarServiceUrl": base, "cloudType": "public"}
        return _answer(200, dump(body))

    def _grant(self, request: Request) -> Response:
        user = self._user(request)
        state = self.world.state
        ticket, place = state.new_guid(), state.new_guid()
        base = request.base
        session = _Session(user, f"/v4/f/{place}/", request.now + _TTL_SECONDS * 1000)
        _add_bounded(self._tickets, ticket, session)
        parameters = {
            "sr": place,
            "issuer": "emulator",
            "sp": "connect",
            "se": str(session.expires),
            "st": str(request.now),
            "sig": ticket,
        }
        body = {
            "id": place,
            "ccid": place[:8],
            "ttl": str(_TTL_SECONDS),
            "socketio": f"{base}/",
            "url": f"{base}{session.path}",
            "surl": f"{base}{session.path}",
            "curlb": base,
            "connectparams": parameters,
        }
        return _answer(200, dump(body), content_type=b"application/json")

    def _open(self, request: Request) -> Response:
        user = self._user(request)
        granted = self._tickets.get(request.query.get("sig", ""))
        if granted is None or granted.user != user or granted.expires <= request.now:
            raise unauthorized()
        name = self.world.state.new_guid()
        _add_bounded(self._sessions, name, granted)
        text = f"{name}:{_ANNOUNCED_HEARTBEAT}:{_ANNOUNCED_HEARTBEAT}:websocket"
        return _answer(200, text.encode(), content_type=b"text/plain")

    def _register(self, request: Request) -> Response:
        user = self._user(request)
        name = request.json().get("registrationId")
        if not isinstance(name, str) or not name:
            raise ErrorResponse(400, "BadRequest", "A registration has a registrationId.")
        _add_bounded(self.registrations, name, user)
        return _answer(202, None)

    def _user(self, request: Request) -> str:
        return self._check(request.header(b"x-skypetoken"), request.now)

    def _check(self, token: str, now: int) -> str:
        claims = self.world.identities.check(token, now)
        if not claims.scopes & CHAT_SCOPES:
            raise unauthorized()
        return claims.user

    # The websocket

    async def connect(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a websocket until either side closes it; one without a session is refused."""
        await receive()
        raw = scope.get("raw_path")
        path = parse_path(raw.decode("latin-1") if raw else scope["path"])
        query = parse_query(scope.get("query_string", b"").decode("latin-1"))
        session = (
            self._sessions.pop(path[3], None) if path[:3] == ["socket.io", "1", "websocket"] and path[3:] else None
        )
        if session is None or self._tickets.get(query.get("sig", "")) is not session:
            await send({"type": "websocket.close", "code": 1008})
            return
        if session.expires <= self.now() or len(self.connections.get(session.user, ())) >= _MAX_CONNECTIONS:
            await send({"type": "websocket.close", "code": 1008})
            return
        await send({"type": "websocket.accept"})
        await self._serve(session, receive, send)

    async def _serve(self, session: _Session, receive: Receive, send: Send) -> None:
        outgoing, waiting = anyio.create_memory_object_stream[str](_MAX_WAITING)
        connection = RealtimeConnection(session.user, session.path, outgoing)
        for frame in ("1::", _event("trouter.connected", {"ttl": str(_TTL_SECONDS)})):
            outgoing.send_nowait(frame)
        self._listen()
        self.connections.setdefault(session.user, []).append(connection)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_write, waiting, send, tasks.cancel_scope)
                await _read(receive, outgoing)
                tasks.cancel_scope.cancel()
        finally:
            self.connections[session.user].remove(connection)
            if not self.connections[session.user]:
                del self.connections[session.user]
            outgoing.close()
            waiting.close()
        # Does nothing where the client closed first.
        with anyio.CancelScope(shield=True):
            await send({"type": "websocket.close", "code": 1000})

    def drop(self, user: str) -> None:
        """Close every connection of a user; clients reconnect."""
        for connection in self.connections.get(user, ()):
            connection.frames.close()

    # The events

    def _listen(self) -> None:
        """Start listening at the first connection, so that the channel costs nothing before."""
        if self._notifier is None:
            self._notifier = Notifier(self.world.state)
            self.world.state.replacement_listeners.append(self._notifier.reset)
            self.world.listen(self._record_put)
            self.world.receipts.typing_listeners.append(self._typing_sent)

    def _record_put(self, record: Record) -> None:
        if self.connections and self._notifier is not None:
            self._deliver(self._notifier.of(record))
        elif self._notifier is not None:
            self._notifier.note(record)

    def _typing_sent(self, typing: Typing) -> None:
        if self.connections and self._notifier is not None:
            self._deliver(self._notifier.typing(typing))

    def _deliver(self, notifications: list[Notification]) -> None:
        for notification in notifications:
            for connection in list(self.connections.get(notification.recipient, ())):
                connection.sent += 1
                request = {
                    "id": connection.sent,
                    "method": "POST",
                    "url": connection.path,
                    "headers": {},
                    "body": json.dumps({"eventId": notification.kind, **notification.fields}),
                }
                try:
                    connection.frames.send_nowait(f"3:::{json.dumps(request)}")
                except anyio.ClosedResourceError:
                    connection.is_lost = True
                except anyio.WouldBlock:
                    if not connection.is_lost:
                        _log.warning("realtime.events_dropped: more than %d events wait for a client", _MAX_WAITING)
                    connection.is_lost = True


async def _write(waiting: MemoryObjectReceiveStream[str], send: Send, scope: anyio.CancelScope) -> None:
    """Send queued frames, and a heartbeat if there are none."""
    while True:
        frame = "2::"
        try:
            with anyio.move_on_after(HEARTBEAT_SECONDS):
                frame = await waiting.receive()
        except anyio.EndOfStream:  # dropped
            scope.cancel()
            return
        try:
            await send({"type": "websocket.send", "text": frame})
        except (OSError, RuntimeError):  # the client has disconnected; the type of error depends on the server
            scope.cancel()
            return


async def _read(receive: Receive, outgoing: MemoryObjectSendStream[str]) -> None:
    """Acknowledge the client's frames until it disconnects or has been silent for too long."""
    while True:
        text: str | None = None
        with anyio.move_on_after(3 * HEARTBEAT_SECONDS):
            event = await receive()
            text = (event.get("text") or "") if event["type"] == "websocket.receive" else None
        if text is None or text.startswith("0::"):
            return
        kind, _, rest = text.partition(":")
        number = rest.partition(":")[0]
        if kind == "5" and number.endswith("+") and number[:-1].isdecimal() and len(number) < 20:
            try:
                outgoing.send_nowait(f"6:::{number}[]")
            except (anyio.WouldBlock, anyio.ClosedResourceError):
                return


def _event(name: str, argument: dict[str, Any]) -> str:
    return f"5:::{json.dumps({'name': name, 'args': [argument]})}"


def _answer(status: int, body: bytes | None, *, content_type: bytes = b"application/json; charset=utf-8") -> Response:
    return Response(status, body, content_type=content_type)


def _add_bounded(table: dict[str, Any], name: str, value: Any) -> None:
    """Add to a table, and drop its oldest entry if it is full."""
    table[name] = value
    if len(table) > _MAX_SESSIONS:
        del table[next(iter(table))]
