"""The single policy of the SDK's pipeline; it replaces a dozen policies of azure-core.

It puts the thread id into the address, refuses to send the token to any other host than the endpoint's, adds
authorization, user agent and timeouts, renews the token on a 401 and repeats the request once, and converts every
failure to a `ServiceError`. It does not retry, redirect or log requests: callers decide how long to wait, and one call
is one request, so that budgets count what the service counts.

The SDK's clients pass the options of a call to the policies. Our option is `answer`: an `Answer` that receives the
unchanged response, while the SDK decodes an empty result. The SDK's decoding takes most of a call's time and loses
values.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from itertools import count
from typing import Any, Final, NoReturn
from urllib.parse import quote, urlsplit
from uuid import uuid4

import structlog
from azure.core.exceptions import AzureError
from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import AsyncHTTPPolicy, ContentDecodePolicy
from azure.core.pipeline.transport import AsyncHttpResponse, HttpRequest
from msgspec import Struct

from chatbot.errors import OutcomeUnknown, ProtocolError, ServiceError, Throttled, Unauthorized, Unreachable
from chatbot.model import ThreadId
from chatbot.service import failures
from chatbot.service.credentials import TokenSource
from chatbot.service.wire import read_http_date

_log = structlog.get_logger(__name__)

Permit = Callable[[], Awaitable[None]]
"""Returns as soon as this process may act for its bots; while it waits, nothing is requested."""

ANY_THREAD: Final = "ANY-THREAD"
"""The placeholder for the thread id in the SDK's addresses; it is replaced with the `Answer`'s thread."""

_NOTHING: Final[Mapping[str, Any]] = {"value": [], "chatThread": {}}
"""The empty result that the SDK decodes; it is valid for every operation."""


class _EmptyPage:
    """An empty page in the form of the SDK's models, which the SDK does not decode again: that took 10 µs of a call."""

    _attribute_map: Mapping[str, Any] = {}  # no attribute may need to be decoded
    value = ()
    next_link = None


_EMPTY_PAGE: Final = _EmptyPage()


class Timeouts(Struct, frozen=True):
    """Time limits of a call, in seconds.

    Args:
        connect: the limit for opening a connection, including TLS.
        read: the limit between two parts of the response.
        total: the limit of the whole call, so that an endless response fails as well.
    """

    connect: float = 10.0
    read: float = 30.0
    total: float = 60.0

    def options(self, proxy: str | None) -> dict[str, Any]:
        """Return the transport options of a request; `proxy` is the address of the proxy, if any."""
        return {
            "connection_timeout": self.connect,
            "read_timeout": self.read,
            "total_timeout": self.total,
            "proxy": proxy,
        }


@dataclass(slots=True)
class Answer:
    """Receives the response of one call.

    Args:
        operation: the operation, to complete "cannot …" in errors.
        thread: the thread of the request, if it has one.
        query: what to append to the query of the address; quoted.
        is_passed_on: the SDK returns the result as it is, or iterates over its values.
    """

    operation: str
    thread: ThreadId | None = None
    query: str = ""
    is_passed_on: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def server_time(self) -> datetime | None:
        """Return the `Date` header of the response."""
        return read_http_date(self.headers.get("date"))


current_answer: ContextVar[Answer] = ContextVar("chatbot_current_answer")
"""The `Answer` of a call of a listing that is kept for many calls, and so has no option of one call."""


class ChatPolicy(AsyncHTTPPolicy[HttpRequest, AsyncHttpResponse]):
    """Sends the requests of one user; shared by all clients of the user.

    Args:
        endpoint: the only permitted destination of requests, `scheme://host[:port]`.
        tokens: the source of the user's tokens.
        user_agent: the `User-Agent` header.
        timeouts: the time limits of a call.
        proxy: the address of the proxy, if any.
        clock: returns epoch seconds.
        permit: awaited before each request; it returns as soon as this process may act for its bots.
    """

    def __init__(
        self,
        endpoint: str,
        tokens: TokenSource,
        *,
        user_agent: str,
        timeouts: Timeouts,
        proxy: str | None,
        clock: Callable[[], float],
        permit: Permit | None = None,
    ) -> None:
        super().__init__()
        self._endpoint = f"{endpoint}/"
        self._threads = f"{endpoint}/chat/threads/"
        self._tokens = tokens
        self._user_agent = user_agent
        self._options = timeouts.options(proxy)
        self._clock = clock
        self._permit = permit
        ours = str(uuid4())[:24]
        self._request_ids = (f"{ours}{number:012x}" for number in count())

    async def send(self, request: PipelineRequest[HttpRequest]) -> PipelineResponse[HttpRequest, AsyncHttpResponse]:
        """Send a request and fill its `Answer`.

        Raises:
            ServiceError: any failure; the class tells the caller how to proceed.
        """
        answer: Answer = request.context.options.pop("answer", None) or current_answer.get()
        self._prepare(request, answer)
        token = await self._token(answer)
        response = await self._send_once(request, token, answer)
        # A 401 means that nothing was done, so even a write may be repeated here; no other status allows that.
        if response.http_response.status_code == 401:
            await self._renew(token, answer)
            response = await self._send_once(request, await self._token(answer), answer)
        self._handle_response(response.http_response, answer)
        response.context[ContentDecodePolicy.CONTEXT_NAME] = _EMPTY_PAGE if answer.is_passed_on else _NOTHING
        return response

    def _prepare(self, request: PipelineRequest[HttpRequest], answer: Answer) -> None:
        is_quoted = self._address(request.http_request, answer)
        # A plain dict: each access to the SDK's case-insensitive one costs a microsecond, and aiohttp reads all of it.
        request.http_request.headers = {
            "Accept": "application/json",  # the SDK sends it, except to links
            **request.http_request.headers,
            "User-Agent": self._user_agent,
            "x-ms-client-request-id": next(self._request_ids),
        }
        request.context.options.update(self._options, is_quoted=is_quoted)

    def _address(self, request: HttpRequest, answer: Answer) -> bool:
        """Put the thread id into the address, and check that the address is at the endpoint.

        Returns:
            Whether all of the address was quoted here or by the SDK; links are the service's.
        """
        before, anywhere, after = request.url.partition(ANY_THREAD)
        if anywhere and before == self._threads and answer.thread is not None:
            request.url = f"{before}{_quoted(answer.thread)}{after}{answer.query}"
            return True
        url = request.url
        if anywhere or not (url.startswith(self._endpoint) or _is_same_origin(url, self._endpoint)):
            msg = (
                f"cannot {answer.operation}: the service's link leads to {urlsplit(url).netloc[:100]!r}, "
                f"and the token is sent to {self._endpoint} only"
            )
            raise ProtocolError(msg)
        return False

    async def _send_once(
        self, request: PipelineRequest[HttpRequest], token: str, answer: Answer
    ) -> PipelineResponse[HttpRequest, AsyncHttpResponse]:
        request.http_request.headers["Authorization"] = f"Bearer {token}"
        if self._permit is not None:  # last: the request may have waited for a token
            await self._permit()
        try:
            return await self.next.send(request)
        except (AzureError, TimeoutError, OSError) as error:
            raise failures.from_exception(answer.operation, error) from error

    async def _token(self, answer: Answer) -> str:
        try:
            return (await self._tokens.get_token()).token
        except ServiceError as error:
            _raise_unsent(answer, error)

    async def _renew(self, rejected: str, answer: Answer) -> None:
        try:
            await self._tokens.renew(rejected)
        except ServiceError as error:
            _raise_unsent(answer, error)

    def _handle_response(self, response: AsyncHttpResponse, answer: Answer) -> None:
        if 200 <= response.status_code < 300:
            answer.headers, answer.body = response.headers, response.body()
            return
        now = datetime.fromtimestamp(self._clock(), UTC)
        text = response.body().decode("utf-8-sig", "replace")
        asked = failures.read_retry_after(response.headers, now)
        if asked is not None and asked > failures.MAX_RETRY_AFTER:
            _log.warning(
                "service.wait_capped", operation=answer.operation, asked=asked, seconds=failures.MAX_RETRY_AFTER
            )
        raise failures.from_status(answer.operation, response.status_code, response.headers, text, now)


@lru_cache(maxsize=1024)
def _quoted(thread: ThreadId) -> str:
    """Quote a thread's id; a poll is often followed by a reply and a receipt in the same thread.

    A path may contain `:` and `@`. HTTP libraries leave both as they are, and people read ids in logs of requests.
    """
    return quote(thread, safe=":@")


def _raise_unsent(answer: Answer, error: ServiceError) -> NoReturn:
    """Raise an error that means "not done": without a valid token, nothing was sent or the request was rejected."""
    message = f"cannot {answer.operation}: {error}"
    if isinstance(error, Throttled):
        raise Throttled(message, retry_after=error.retry_after, code=error.code) from error
    if isinstance(error, Unreachable | OutcomeUnknown):
        raise Unreachable(message, status=error.status, code=error.code) from error
    raise Unauthorized(message, status=error.status, code=error.code) from error


def _is_same_origin(url: str, home: str) -> bool:
    """Return whether two addresses have the same scheme, host and port after normalization."""
    try:
        return _origin(url) == _origin(home)
    except ValueError:
        return False


def _origin(url: str) -> tuple[str, str | None, int | None, bool]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme), "@" in parts.netloc
