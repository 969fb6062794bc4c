"""The emulator as an ASGI application.

Written against ASGI itself, without a framework: an idle `list_messages` costs 40 µs here, so that a load
test measures the bot. Needs no socket: tests call it in-process. Order of a request: route, api-version,
token, quota, faults, operation.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from chatbot.emulator import auth, gate, misfortune
from chatbot.emulator.answers import Answers, preflight
from chatbot.emulator.bodies import Dialect
from chatbot.emulator.control import Control
from chatbot.emulator.faults import Fault, Faults
from chatbot.emulator.gate import Receive, Scope, Send
from chatbot.emulator.operations import Chat
from chatbot.emulator.people import People
from chatbot.emulator.problems import ServiceError
from chatbot.emulator.quotas import Quotas
from chatbot.emulator.request import Request, Response
from chatbot.emulator.routes import ChatRoute, Route
from chatbot.emulator.world import World

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """A request as it was answered, for tests to look at; status 0 is no answer at all."""

    at: int
    operation: str
    method: str
    target: str
    status: int
    user: str


@dataclass(slots=True)
class _Asked:
    """What became known of a request on its way: its operation, and the faults that struck it."""

    route: Route | None = None
    struck: Sequence[Fault] = ()


class Emulator(People):
    """An ASGI application over a `World`.

    All time comes from `clock` (Unix epoch seconds): ids, expiries, quotas, the `Date` header. `calls` keeps
    the latest requests; `faults` may be changed at any time; `quotas` switches the service's rate limits; with `entra`,
    identity also takes tokens of `entra_token`.
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
    ) -> None:
        super().__init__(world or World(), clock)
        self.endpoint = endpoint.rstrip("/")
        self.public_base = public_base
        self.has_quotas = quotas
        self.takes_entra = entra
        self.quotas = Quotas()
        self.faults = faults or Faults()
        self.validations: dict[str, Callable[[], None]] = {}
        self.calls: deque[Call] = deque(maxlen=10_000)
        self._answers = Answers(self.world)
        self._control = Control(self)
        self._dialects: dict[str, Dialect] = {}
        self._dialects_for = self.world.quirks

    @property
    def access_key(self) -> str:
        """The resource's key, base64."""
        return self.world.resource.access_key

    def entra_token(self, *, lifetime: int = 86_400) -> str:
        """A token that this emulator takes for one of Microsoft Entra ID's, for some seconds; see `entra`."""
        return self.world.identities.issue_entra(self.now() // 1000 + lifetime)

    @property
    def connection_string(self) -> str:
        """What SDKs take; names the endpoint this emulator was told it has."""
        return f"endpoint={self.endpoint}/;accesskey={self.access_key}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await _decline(scope, receive, send)
            return
        request = gate.read(scope, self.public_base, self.endpoint, self.now())
        asked = _Asked()
        try:
            request.body = await gate.body(receive)
            response = self._beside(request) or await self._operate(request, asked, receive)
        except ServiceError as error:
            response = self._answers.refusal(error, asked.route, request)
        except ConnectionError:
            self._note(asked.route, request, 0)
            raise
        except OSError as error:  # the data file cannot be written, so nothing is acknowledged
            _log.warning("emulator.state_not_kept: %s", error)
            response = self._answers.refusal(self._answers.throttled(503, 1), asked.route, request)
        if not response.is_beside:
            self._note(asked.route, request, response.status)
        headers = self._answers.headers(response, asked.route, request, max(0, self.now() - request.now))
        await misfortune.deliver(asked.struck, response, headers, send)

    def _beside(self, request: Request) -> Response | None:
        """What is not the service: the control API, and browsers that ask whether they may ask."""
        if request.segments[0] == "emulator":
            return self._control.answer(request)
        if request.method == "OPTIONS" and b"access-control-request-method" in request.headers:
            return preflight(request)
        return None

    async def _operate(self, request: Request, asked: _Asked, receive: Receive) -> Response:
        route = asked.route = gate.route(request, self.world.quirks)
        self._admit(route, request)
        if self.faults:
            asked.struck = self.faults.strike(route.name, request.caller, _thread(route, request), request.now)
            answer = await misfortune.before(asked.struck, request, self.world, self._answers, receive)
            if answer is not None:
                return answer
        return self._run(route, request, asked.struck)

    def _admit(self, route: Route, request: Request) -> None:
        """Find out who asks, and whether that one asks too often."""
        if isinstance(route, ChatRoute):
            request.caller = auth.chat(request, self.world, route.scopes)
        else:
            auth.identity(request, self.world, takes_entra=self.takes_entra)
        if self.has_quotas:
            thread = _thread(route, request)
            wait = self.quotas.admit(route.name, request.caller, thread, request.now, self.world.quirks)
            if wait:
                raise self._answers.throttled(429, wait)

    def _run(self, route: Route, request: Request, struck: Sequence[Fault]) -> Response:
        messages = self.world.messages
        stale_ms = messages.stale_ms
        if struck:
            messages.stale_ms = max(stale_ms, misfortune.staleness(struck))
        try:
            if isinstance(route, ChatRoute):
                response = route.run(Chat(self.world, request, self._dialect(request.version)))
            else:
                response = route.run(self.world, request)
        finally:
            messages.stale_ms = stale_ms
        misfortune.after(struck, self._answers)
        return response

    def _dialect(self, version: str) -> Dialect:
        quirks = self.world.quirks
        if quirks is not self._dialects_for:
            self._dialects, self._dialects_for = {}, quirks
        dialect = self._dialects.get(version)
        if dialect is None:
            dialect = self._dialects[version] = Dialect.of(version, quirks)
        return dialect

    def _note(self, route: Route | None, request: Request, status: int) -> None:
        name = route.name if route else ""
        self.calls.append(Call(request.now, name, request.method, request.target, status, request.caller))


def _thread(route: Route, request: Request) -> str:
    return request.segments[2] if isinstance(route, ChatRoute) and len(request.segments) > 2 else ""


async def _decline(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        while True:
            event = await receive()
            await send({"type": f"{event['type']}.complete"})
            if event["type"] == "lifespan.shutdown":
                return
    await receive()
    await send({"type": "websocket.close"})
