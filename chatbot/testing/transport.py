"""The emulator in this process, reached through the official SDK without a network.

`Stage` holds the emulated resource and a client for each user on it. `AsgiTransport` carries the SDK's requests to an
ASGI application by calling it: signing, serialization and paging of the official clients run as in production. All
waiting is on the event loop, so that virtual time stays virtual.

The application raises network faults: `ConnectionRefusedError` is a request that never arrived, any other
`ConnectionError` a connection that broke after the request was sent, `TimeoutError` a response that did not come. Every
other exception is a defect of the application and passes through unchanged.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import anyio
import anyio.lowlevel
from azure.core.exceptions import ServiceRequestError, ServiceResponseError, ServiceResponseTimeoutError
from azure.core.pipeline.transport import AsyncHttpResponse, HttpRequest
from azure.core.utils import case_insensitive_dict

from chatbot.emulator import Emulator
from chatbot.emulator.records import Message
from chatbot.model import ThreadId, UserId
from chatbot.service.acs import AcsResource
from chatbot.service.base import ChatService
from chatbot.service.transport import TIMEOUT_SECONDS, OpenTransport, WholeResponse


class Stage:
    """One emulated resource and all users known on it.

    Args:
        emulator: the service; all use its clock.
    """

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.resource = AcsResource.from_connection_string(
            emulator.connection_string, transport=AsgiTransport(emulator), clock=emulator.clock
        )
        self.names: dict[str, str] = {}
        self._people: dict[str, UserId] = {}
        self._services: dict[UserId, ChatService] = {}

    def clock(self) -> float:
        """The service's time in epoch seconds."""
        return self.emulator.clock()

    def create_user(self, name: str) -> UserId:
        """Create a user; the name is for transcripts."""
        user = UserId(self.emulator.create_user())
        self.names[user] = name
        return user

    def person(self, name: str) -> UserId:
        """Return the user of the person of this name; the same one at each call."""
        if name not in self._people:
            self._people[name] = self.create_user(name)
        return self._people[name]

    def adopt(self, users: Mapping[str, str]) -> None:
        """Let names stand for users that are there already."""
        for name, user in users.items():
            self.names[user] = name
            self._people[name] = UserId(user)

    def bot_user(self, name: str) -> UserId:
        """The user for a bot: the one whom an adopted name stands for, or somebody new."""
        return self._people.get(name) or self.create_user(name)

    def has_user(self, user: UserId) -> bool:
        """Return whether this user exists on the service."""
        return user in self.emulator.world.state.users

    def service_of(self, user: UserId) -> ChatService:
        """Return the service as a user sees it; the same client at each call."""
        if user not in self._services:
            self._services[user] = self.new_service_of(user)
        return self._services[user]

    def new_service_of(self, user: UserId) -> ChatService:
        """Return a new client of a user, without a history, as a new process has it."""
        return self.resource.chat(user, self.resource.issued_tokens(user))

    def messages(self, thread: ThreadId) -> list[Message]:
        """Return all messages of a thread, in the order in which they were first sent."""
        return self.emulator.transcript(thread)

    def version(self, thread: ThreadId) -> int:
        """Return the version of the latest change in a thread."""
        return self.emulator.world.state.room(thread).version

    def version_of_others(self, thread: ThreadId, user: UserId) -> int:
        """Return the version of the latest change in a thread that is no message of this user."""
        timeline = reversed(self.emulator.world.state.room(thread).timeline)
        return next((one.version for one in timeline if one.is_system or one.sender != user), 0)

    def read_by_others(self, thread: ThreadId, user: UserId) -> dict[UserId, int]:
        """Return the number of the latest message that each other participant has read."""
        receipts = self.emulator.receipts(thread).values()
        there = (receipt for receipt in receipts if receipt.user != user and self.is_in(thread, UserId(receipt.user)))
        return {UserId(receipt.user): receipt.message for receipt in there}

    def is_in(self, thread: ThreadId, user: UserId) -> bool:
        """Return whether a user is in a thread that was not deleted."""
        room = self.emulator.world.state.room(thread)
        return room.head.deleted is None and room.member(user) is not None


AsgiMessage = MutableMapping[str, Any]
AsgiApp = Callable[
    [AsgiMessage, Callable[[], Awaitable[AsgiMessage]], Callable[[AsgiMessage], Awaitable[None]]],
    Awaitable[None],
]


class AsgiTransport(OpenTransport):
    """Carries the SDK's requests to an ASGI application by calling it.

    A request that exceeds its `read_timeout` also cancels the application's call; a real server would continue.

    Args:
        app: the application; it receives no lifespan events.
    """

    def __init__(self, app: AsgiApp) -> None:
        self._app = app

    async def send(
        self,
        request: HttpRequest,
        *,
        read_timeout: float = TIMEOUT_SECONDS,
        total_timeout: float = TIMEOUT_SECONDS,
        **_options: Any,
    ) -> AsyncHttpResponse:
        """Call the application with a request and return its complete response.

        Args:
            request: of either of azure-core's two kinds; its body is text or bytes.
            read_timeout, total_timeout: seconds until the response must be complete; the smaller one counts.

        Raises:
            ServiceRequestError: the application raised `ConnectionRefusedError`.
            ServiceResponseError: it raised another `ConnectionError`, or the timeout passed.
        """
        exchange = _Exchange(_body(request))
        await anyio.lowlevel.checkpoint()
        try:
            with anyio.fail_after(min(read_timeout, total_timeout)):
                await self._app(_scope(request), exchange.receive, exchange.send)
        except ConnectionRefusedError as error:
            raise ServiceRequestError(error, error=error) from error
        except ConnectionError as error:
            raise ServiceResponseError(error, error=error) from error
        except TimeoutError as error:
            raise ServiceResponseTimeoutError(error, error=error) from error
        return exchange.response(request)


class _Exchange:
    """One request and its response, as the application sees them."""

    def __init__(self, body: bytes) -> None:
        self._request: AsgiMessage | None = {"type": "http.request", "body": body, "more_body": False}
        self._is_answered = anyio.Event()
        self.status: int | None = None
        self.headers: list[tuple[bytes, bytes]] = []
        self.chunks: list[bytes] = []

    async def receive(self) -> AsgiMessage:
        if self._request is not None:
            request, self._request = self._request, None
            return request
        await self._is_answered.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: AsgiMessage) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = list(message.get("headers", ()))
        elif message["type"] == "http.response.body":
            self.chunks.append(message.get("body", b""))
            if not message.get("more_body", False):
                self._is_answered.set()

    def response(self, request: HttpRequest) -> WholeResponse:
        """Return the response as azure-core represents it."""
        if self.status is None or not self._is_answered.is_set():
            msg = f"The application ended without a complete response to {request.method} {request.url}."
            raise RuntimeError(msg)
        headers = case_insensitive_dict()
        for name, value in self.headers:
            key, text = name.decode("latin-1"), value.decode("latin-1")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        return WholeResponse(request, self.status, _REASONS.get(self.status), headers, b"".join(self.chunks))


_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}


def _body(request: HttpRequest) -> bytes:
    data = request.data
    if data is None:
        return b""
    if isinstance(data, str):
        return data.encode()
    if isinstance(data, bytes):
        return data
    msg = f"The in-process transport sends text and bytes, not {type(data).__name__}."
    raise TypeError(msg)


def _scope(request: HttpRequest) -> AsgiMessage:
    url = urlsplit(request.url)
    headers = {name.lower(): value for name, value in request.headers.items()}
    headers.setdefault("host", url.netloc)
    headers.setdefault("accept", "*/*")
    headers.setdefault("content-length", str(len(_body(request))))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": url.scheme,
        "path": unquote(url.path),
        "raw_path": url.path.encode("ascii"),
        "query_string": url.query.encode("ascii"),
        "root_path": "",
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": (url.hostname, url.port or (443 if url.scheme == "https" else 80)),
    }
