"""The emulator as an ASGI application, and its control API under `/emulator/`.

Written against ASGI itself, without a framework, so that a load test measures the bot. It needs no socket: tests call
it in their own process. Order of a request: route, api-version, token, quota, faults, operation.

Whoever has the access key may use the control API (`Authorization: Bearer {access key}`). All bodies are JSON.

* `GET  /emulator/status`: resource, endpoint, time, switches, counts
* `GET  /emulator/calls` (`?operation=`, `?since=` milliseconds); `DELETE` forgets them
* `GET  /emulator/typing` (`?thread=`)
* `GET  /emulator/threads`, `GET /emulator/threads/{id}`: transcript, participants, receipts
* `GET|PUT|POST|DELETE /emulator/faults`: the rules as texts; POST adds, PUT replaces, DELETE ends them
* `GET|PATCH /emulator/quirks`: `{"start-time": "exclusive"}`
* `PUT  /emulator/quotas`: `{"enabled": false}`
* `PUT  /emulator/clock`: `{"offset": 3600}`, seconds; what tokens, quotas and retention are judged by
* `POST /emulator/entra`: a token that is taken for one of Microsoft Entra ID's, where that is switched on;
  `{"appId": "…", "userId": "…", "tenantId": "…"}` names the application and the Teams user it is for
* `POST /emulator/seed`: a seed document (`seed.py`) as JSON; answers what it created
* `GET  /emulator/snapshots`: all that were saved
* `PUT|POST|DELETE /emulator/snapshots/{name}`: saves, loads, deletes one
"""

from __future__ import annotations

import dataclasses
import hmac
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from chatbot.emulator import auth, faults, routing, seed, snapshots
from chatbot.emulator.errors import ErrorResponse
from chatbot.emulator.faults import Fault, Faults
from chatbot.emulator.operations import Chat
from chatbot.emulator.people import UserDirectory
from chatbot.emulator.quirks import Quirks
from chatbot.emulator.quotas import Quotas
from chatbot.emulator.realtime import RealtimeChannel
from chatbot.emulator.records import Member, Message, ReceiptEntry, Record, ThreadEntry, Typing
from chatbot.emulator.request import Request, Response
from chatbot.emulator.responses import Answers, preflight
from chatbot.emulator.routing import ChatRoute, Receive, Route, Scope, Send
from chatbot.emulator.serialization import Dialect, dump
from chatbot.emulator.snapshots import Contents, SnapshotError
from chatbot.emulator.world import World

Json = dict[str, Any]


class Control:
    """The control API."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._handlers: dict[tuple[str, str], Callable[[Request], Any]] = {
            ("GET", "status"): self._status,
            ("GET", "calls"): self._calls,
            ("DELETE", "calls"): self._clear_calls,
            ("GET", "typing"): self._typing,
            ("GET", "threads"): self._threads,
            ("GET", "faults"): self._faults,
            ("PUT", "faults"): self._replace_faults,
            ("POST", "faults"): self._add_faults,
            ("DELETE", "faults"): self._clear_faults,
            ("GET", "quirks"): self._quirks,
            ("PATCH", "quirks"): self._set_quirks,
            ("PUT", "quotas"): self._set_quotas,
            ("PUT", "clock"): self._set_clock,
            ("POST", "seed"): self._seed,
            ("POST", "entra"): self._issue_entra,
        }

    def answer(self, request: Request) -> Response:
        """Answer a request of the control API; errors become responses."""
        try:
            return Response(200, dump(self._run(request)), is_beside=True)
        except ErrorResponse as error:
            body: Json = {"error": {"code": error.code, "message": error.message}}
            return Response(error.status, dump(body), is_beside=True)

    async def answer_snapshots(self, request: Request) -> Response:
        """The answer to what is asked about snapshots, whose files are read and written beside the event loop."""
        try:
            self._authorize(request)
            return Response(200, dump(await self._snapshots(request)), is_beside=True)
        except ErrorResponse as error:
            body: Json = {"error": {"code": error.code, "message": error.message}}
            return Response(error.status, dump(body), is_beside=True)
        except SnapshotError as error:
            return Response(400, dump({"error": {"code": "BadRequest", "message": str(error)}}), is_beside=True)

    async def _snapshots(self, request: Request) -> Json:
        emulator = self._emulator
        if len(request.segments) != 3:
            if request.method != "GET" or len(request.segments) > 3:
                msg = "There are: GET /emulator/snapshots, and PUT, POST and DELETE /emulator/snapshots/NAME."
                raise ErrorResponse(404, "NotFound", msg)
            return {"snapshots": await anyio.to_thread.run_sync(snapshots.listed, emulator.snapshots)}
        path = snapshots.path_of(request.segments[2], emulator.snapshots)
        match request.method:
            case "PUT":
                return (await snapshots.save(emulator.world, path)).as_json()
            case "POST":
                return (await emulator.load_snapshot(path)).as_json()
            case "DELETE":
                await anyio.Path(path).unlink(missing_ok=True)
                return {}
        raise ErrorResponse(405, "MethodNotAllowed", "PUT saves a snapshot, POST loads it, DELETE deletes it.")

    def _run(self, request: Request) -> Any:
        if request.segments[1:] == ["eventgrid"]:
            return self._validate(request)
        self._authorize(request)
        noun = request.segments[1] if len(request.segments) > 1 else "status"
        handler = self._handlers.get((request.method, noun))
        if handler is None:
            nouns = sorted(f"{method} /emulator/{name}" for method, name in self._handlers)
            raise ErrorResponse(404, "NotFound", f"There are: {', '.join(nouns)}.")
        try:
            return handler(request)
        except (ValueError, RecursionError) as error:
            raise ErrorResponse(400, "BadRequest", str(error)) from error

    def _authorize(self, request: Request) -> None:
        key = request.header(b"authorization").removeprefix("Bearer ").encode("latin-1")
        if not hmac.compare_digest(key, self._emulator.access_key.encode()):
            raise ErrorResponse(
                401, "Unauthorized", "Authorization: Bearer with the emulator's access key is required."
            )

    def _validate(self, request: Request) -> str:
        """Complete the manual handshake: the receiver of the secret code opens its URL."""
        opened = self._emulator.validations.get(request.query.get("code", ""))
        if opened is None:
            raise ErrorResponse(404, "NotFound", "No webhook waits for this code.")
        opened()
        return "Webhook successfully validated as a subscription endpoint."

    def _status(self, _: Request) -> Json:
        emulator = self._emulator
        return {
            "resource": emulator.world.resource.id,
            "endpoint": emulator.endpoint,
            "now": emulator.now(),
            "quotas": emulator.has_quotas,
            "faults": self._faults(_)["faults"],
            "quirks": self._quirks(_),
            "users": len(emulator.world.state.users),
            "threads": len(emulator.world.state.rooms),
        }

    def _calls(self, request: Request) -> Json:
        operation, since = request.query.get("operation"), int(request.query.get("since") or 0)
        calls = [dataclasses.asdict(call) for call in self._emulator.calls if call.at >= since]
        return {"calls": [call for call in calls if operation in {None, call["operation"]}]}

    def _clear_calls(self, _: Request) -> Json:
        self._emulator.calls.clear()
        return {}

    def _typing(self, request: Request) -> Json:
        thread = request.query.get("thread")
        seen = [dataclasses.asdict(typing) for typing in self._emulator.world.receipts.typing]
        return {"typing": [typing for typing in seen if thread in {None, typing["thread"]}]}

    def _threads(self, request: Request) -> Json:
        if len(request.segments) < 3:
            return {"threads": self._emulator.threads()}
        thread = request.segments[2]
        room = self._emulator.world.state.room(thread)
        return {
            "thread": _plain(room.head),
            "participants": [_plain(member) for member in room.present()],
            "messages": [_plain(message) for message in self._emulator.transcript(thread)],
            "receipts": [_plain(receipt) for receipt in room.receipts.values()],
        }

    def _faults(self, _: Request) -> Json:
        return {"faults": [_plain(rule) for rule in self._emulator.faults.rules]}

    def _add_faults(self, request: Request) -> Json:
        listed = _document(request).get("faults")
        if not isinstance(listed, list):
            msg = 'write {"faults": ["send_message:503,times=1"]}'
            raise ValueError(msg)
        parsed = [Fault.parse(str(text)) for text in listed]
        for fault in parsed:
            self._emulator.faults.add(fault)
        return self._faults(request)

    def _replace_faults(self, request: Request) -> Json:
        earlier = self._emulator.faults.rules
        self._emulator.faults.clear()
        try:
            return self._add_faults(request)
        except ValueError:
            for fault in earlier:
                self._emulator.faults.add(fault)
            raise

    def _clear_faults(self, request: Request) -> Json:
        self._emulator.faults.clear()
        return self._faults(request)

    def _quirks(self, _: Request) -> Json:
        values = dataclasses.asdict(self._emulator.world.quirks)
        return {name.replace("_", "-"): value for name, value in values.items()}

    def _set_quirks(self, request: Request) -> Json:
        switches = [f"{name}={_text(value)}" for name, value in _document(request).items()]
        self._emulator.world.quirks = Quirks.parse(switches, self._emulator.world.quirks)
        return self._quirks(request)

    def _set_quotas(self, request: Request) -> Json:
        wanted = _document(request).get("enabled")
        if not isinstance(wanted, bool):
            msg = 'write {"enabled": true} or {"enabled": false}'
            raise ValueError(msg)
        self._emulator.has_quotas = wanted
        self._emulator.quotas.clear()
        return {"enabled": wanted}

    def _set_clock(self, request: Request) -> Json:
        offset = _document(request).get("offset")
        if isinstance(offset, bool) or not isinstance(offset, int | float) or abs(offset) > 3_000_000_000:
            msg = 'write {"offset": 3600}: the offset of the service\'s clock in seconds'
            raise ValueError(msg)
        self._emulator.offset_seconds = float(offset)
        return {"now": self._emulator.now()}

    def _issue_entra(self, request: Request) -> Json:
        if not self._emulator.takes_entra:
            raise ErrorResponse(409, "Conflict", "Tokens of Entra are not accepted: start the emulator with --entra.")
        body = _document(request)
        app, user, tenant = (body.get(name) or "" for name in ("appId", "userId", "tenantId"))
        if not isinstance(app, str) or not isinstance(user, str) or not isinstance(tenant, str):
            msg = 'write {"appId": "…", "userId": "…", "tenantId": "…"}, or leave them out: texts'
            raise ValueError(msg)
        return {"token": self._emulator.entra_token(app=app, user=user, tenant=tenant)}

    def _seed(self, request: Request) -> Json:
        return seed.apply_seed(self._emulator, _document(request))


def _document(request: Request) -> Json:
    try:
        return request.json()
    except ErrorResponse as error:
        msg = "the body must be a JSON object"
        raise ValueError(msg) from error


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _plain(record: Any) -> Json:
    return {
        item.name: [_plain(part) for part in value] if isinstance(value, tuple) else value
        for item in dataclasses.fields(record)
        for value in (_value(getattr(record, item.name)),)
        if value is not None
    }


def _value(value: Any) -> Any:
    return dict(value) if hasattr(value, "items") else value


_log = logging.getLogger(__name__)

_OBSERVED = {ThreadEntry: "thread", Member: "member", Message: "message", ReceiptEntry: "receipt"}


@dataclass(frozen=True, slots=True)
class Call:
    """A request and its response, recorded for tests; status 0 means that there was no response."""

    at: int
    operation: str
    method: str
    target: str
    status: int
    user: str


@dataclass(slots=True)
class _Progress:
    """State of a request while it is processed: its operation, and the faults that apply to it."""

    route: Route | None = None
    struck: Sequence[Fault] = ()


class Emulator(UserDirectory):
    """An ASGI application over a `World`.

    All time comes from `clock` (Unix epoch seconds): ids, expiries, quotas, the `Date` header. `calls` keeps
    the latest requests; `faults` may be changed at any time; `quotas` switches the service's rate limits; with `entra`,
    identity also takes tokens of `entra_token`; `snapshots` is the directory of named snapshots.
    """

    def __init__(
        self,
        world: World | None = None,
        *,
        clock: Callable[[], float] = time.time,
        endpoint: str = "https://emulator.invalid",
        quotas: bool = True,
        faults: Faults | None = None,
        public_base: str | None = None,
        entra: bool = False,
        snapshots: Path | None = None,
    ) -> None:
        super().__init__(world or World(), clock)
        self.endpoint = endpoint.rstrip("/")
        self.public_base = public_base
        self.has_quotas = quotas
        self.snapshots = snapshots
        self.world.identities.takes_entra = entra
        self.quotas = Quotas()
        self.faults = faults or Faults()
        self.validations: dict[str, Callable[[], None]] = {}
        self.calls: deque[Call] = deque(maxlen=10_000)
        self.realtime = RealtimeChannel(self.world, self.now)
        self._answers = Answers(self.world)
        self._control = Control(self)
        self._dialects: dict[str, Dialect] = {}
        self._dialects_for = self.world.quirks

    @property
    def access_key(self) -> str:
        """The resource's key, base64."""
        return self.world.resource.access_key

    @property
    def takes_entra(self) -> bool:
        """Whether identity also accepts tokens of `entra_token`."""
        return self.world.identities.takes_entra

    def entra_token(self, *, lifetime: int = 86_400, app: str = "", user: str = "", tenant: str = "") -> str:
        """Return a token that this emulator accepts as one of Microsoft Entra ID, for some seconds; see `entra`.

        Also the token of a Teams user that identity exchanges, for this application and user if they are named.
        """
        expires = self.now() // 1000 + lifetime
        return self.world.identities.issue_entra(expires, app=app, user=user, tenant=tenant)

    async def load_snapshot(self, path: Path) -> Contents:
        """Replace the state by a snapshot's; quotas are counted anew.

        Raises:
            SnapshotError: the file cannot be used; nothing has changed.
        """
        found = await snapshots.load(self.world, path)
        self.quotas.clear()
        return found

    def observe(self, listener: Callable[[str, Json], None]) -> Callable[[], None]:
        """Call `listener` with each change from now on; return a function that ends it.

        The first argument is the kind of change: `thread`, `member`, `message`, `receipt` or `typing`, with the record
        as the control API shows it, `replaced` when a snapshot has replaced everything, or `fault` when a fault has
        struck for the last time. Keys and images are left out.
        """

        def stored(record: Record) -> None:
            kind = _OBSERVED.get(type(record))
            if kind is not None:
                listener(kind, _plain(record))

        def replaced() -> None:
            listener("replaced", {})

        def typed(typing: Typing) -> None:
            listener("typing", _plain(typing))

        def ended() -> None:
            listener("fault", {})

        state, receipts = self.world.state, self.world.receipts
        self.faults.end_listeners.append(ended)
        state.listeners.append(stored)
        state.replacement_listeners.append(replaced)
        receipts.typing_listeners.append(typed)

        def end() -> None:
            self.faults.end_listeners.remove(ended)
            state.listeners.remove(stored)
            state.replacement_listeners.remove(replaced)
            receipts.typing_listeners.remove(typed)

        return end

    @property
    def connection_string(self) -> str:
        """Connection string for SDKs, with the configured endpoint."""
        return f"endpoint={self.endpoint}/;accesskey={self.access_key}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "websocket":
            await self.realtime.connect(scope, receive, send)
            return
        if scope["type"] != "http":
            await _lifespan(receive, send)
            return
        request = routing.read(scope, self.public_base, self.endpoint, self.now())
        asked = _Progress()
        try:
            request.body = await routing.body(receive, request)
            response = await self._answer_other(request) or await self._run_operation(request, asked, receive)
        except ErrorResponse as error:
            response = self._answers.refusal(error, asked.route, request)
        except ConnectionError:
            self._record_call(asked.route, request, 0)
            raise
        except OSError as error:  # the data file cannot be written, so the request must not be acknowledged
            _log.warning("emulator.state_not_kept: %s", error)
            response = self._answers.refusal(self._answers.throttled(503, 1), asked.route, request)
        if not response.is_beside:
            self._record_call(asked.route, request, response.status)
        headers = self._answers.headers(response, asked.route, request, max(0, self.now() - request.now))
        await faults.deliver(asked.struck, response, headers, send)

    async def _answer_other(self, request: Request) -> Response | None:
        """Answer requests that are not operations: the control API, CORS preflights, the real-time channel."""
        if request.segments[0] == "emulator":
            if request.segments[1:2] == ["snapshots"]:
                return await self._control.answer_snapshots(request)
            return self._control.answer(request)
        if request.method == "OPTIONS" and b"access-control-request-method" in request.headers:
            return preflight(request)
        return self.realtime.answer(request)

    async def _run_operation(self, request: Request, asked: _Progress, receive: Receive) -> Response:
        route = asked.route = routing.find_route(request, self.world.quirks)
        self._admit(route, request)
        if self.faults:
            asked.struck = self.faults.select(route.name, request.caller, _thread(route, request), request.now)
            answer = await faults.apply_before(asked.struck, request, self.world, self._answers, receive)
            if answer is not None:
                return answer
        return self._run(route, request, asked.struck)

    def _admit(self, route: Route, request: Request) -> None:
        """Authenticate the caller and check the quota."""
        if isinstance(route, ChatRoute):
            request.caller = auth.chat(request, self.world, route.scopes)
        else:
            auth.identity(request, self.world)
        if self.has_quotas:
            thread = _thread(route, request)
            wait = self.quotas.admit(route.name, request.caller, thread, request.now, self.world.quirks)
            if wait:
                raise self._answers.throttled(429, wait)

    def _run(self, route: Route, request: Request, struck: Sequence[Fault]) -> Response:
        messages = self.world.messages
        stale_ms = messages.stale_ms
        if struck:
            messages.stale_ms = max(stale_ms, faults.list_delay_ms(struck))
        try:
            if isinstance(route, ChatRoute):
                response = route.run(Chat(self.world, request, self._dialect(request.version)))
            else:
                response = route.run(self.world, request)
        finally:
            messages.stale_ms = stale_ms
        faults.apply_after(struck, self._answers)
        faults.mislead(struck, request, response)
        return response

    def _dialect(self, version: str) -> Dialect:
        quirks = self.world.quirks
        if quirks is not self._dialects_for:
            self._dialects, self._dialects_for = {}, quirks
        dialect = self._dialects.get(version)
        if dialect is None:
            dialect = self._dialects[version] = Dialect.of(version, quirks)
        return dialect

    def _record_call(self, route: Route | None, request: Request, status: int) -> None:
        name = route.name if route else ""
        self.calls.append(Call(request.now, name, request.method, request.target, status, request.caller))


def _thread(route: Route, request: Request) -> str:
    return request.segments[2] if isinstance(route, ChatRoute) and len(request.segments) > 2 else ""


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        event = await receive()
        await send({"type": f"{event['type']}.complete"})
        if event["type"] == "lifespan.shutdown":
            return
