"""The SDK's transport into an ASGI application of the same process: the real pipeline, no socket, no TLS.

Signing, serialisation and paging of the official clients run as in production; only the network is missing.
Whatever waits here waits on the event loop, so that a loop with virtual time stays virtual. Who uses it: the test
harness and the contract tests, with the emulator as the application.

An application plays the network's faults by raising: `ConnectionRefusedError` is a request that never arrived,
any other `ConnectionError` a connection that broke after the request was sent, `TimeoutError` an answer that did
not come. Every other exception is a defect of the application and passes through unchanged.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import anyio
import anyio.lowlevel
from azure.core.exceptions import ServiceRequestError, ServiceResponseError, ServiceResponseTimeoutError
from azure.core.pipeline.transport import AsyncHttpResponse, HttpRequest
from azure.core.utils import case_insensitive_dict

from chatbot.service.transport import TIMEOUT_SECONDS, OpenTransport, WholeResponse

AsgiMessage = MutableMapping[str, Any]
AsgiApp = Callable[
    [AsgiMessage, Callable[[], Awaitable[AsgiMessage]], Callable[[AsgiMessage], Awaitable[None]]],
    Awaitable[None],
]


class AsgiTransport(OpenTransport):
    """Carries the SDK's requests to an ASGI application by calling it.

    A request that outlasts its `read_timeout` ends the application's call as well; a real server would go on.

    Args:
        app: the application; it gets no lifespan events.
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
        """Call the application with a request and hand back its whole answer.

        Args:
            request: of either of azure-core's two kinds; its body is text or bytes.
            read_timeout, total_timeout: seconds until the answer must be complete; the lesser counts.

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
    """One request and its answer, as the application sees them."""

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
        """The answer in azure-core's shape."""
        if self.status is None or not self._is_answered.is_set():
            msg = f"The application ended without a complete answer to {request.method} {request.url}."
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
