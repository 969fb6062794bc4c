"""The emulated service as the playground uses it: its routes as a person, and its control API.

The emulator is called in the same process, as the ASGI application that it is, so that a fault that cuts connections
or a busy network cannot cut off the page itself.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http import HTTPStatus
from typing import Any, Final, Protocol
from urllib.parse import quote

import anyio

Json = dict[str, Any]

API_VERSION: Final = "2025-03-15"
"""Version of the routes: the newest stable one with metadata of messages."""

IMAGES_API_VERSION: Final = "2024-06-05-preview"
"""Version of the routes that take images and attachments; no stable one does."""

ANSWER_SECONDS: Final = 30.0


class IssuedToken(Protocol):
    """An access token of a user."""

    @property
    def text(self) -> str:
        """The token."""
        ...


class EmulatorApi(Protocol):
    """The emulator of the bots."""

    @property
    def access_key(self) -> str:
        """The resource's key, for the control API."""
        ...

    def create_user(self) -> str:
        """Create a user; return its id."""
        ...

    def issue_token(self, user: str) -> IssuedToken:
        """Issue a token for a user."""
        ...

    def now(self) -> int:
        """Return the service's time, epoch ms."""
        ...

    def observe(self, listener: Callable[[str, Json], None]) -> Callable[[], None]:
        """Call `listener` with the kind and the record of each change; return a function that ends it."""
        ...

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        """Answer one request."""
        ...


class Refused(Exception):
    """The service or the control API refused a request, or did not answer."""


class ServiceClient:
    """Sends requests to the emulator.

    Args:
        emulator: The emulator.
    """

    def __init__(self, emulator: EmulatorApi) -> None:
        self._emulator = emulator

    async def control(self, method: str, path: str, body: object = None) -> Json:
        """Send a request to the control API.

        Raises:
            Refused: It was refused.
        """
        return await self._request(method, f"/emulator/{path}", self._emulator.access_key, body)

    async def chat(self, user: str, method: str, path: str, body: object = None, *, version: str = API_VERSION) -> Json:
        """Send a request to the chat service as a user. Quotas and faults apply, as they do to every client.

        Raises:
            Refused: It was refused, or a fault has lost it or its answer.
        """
        return await self._request(method, f"/chat/threads{path}?api-version={version}", self._token(user), body)

    async def upload_image(self, user: str, thread: str, name: str, content: bytes) -> str:
        """Upload an image into a thread as a user, and return its id.

        Raises:
            Refused: It was refused, or a fault has lost it or its answer.
        """
        target = f"/chat/threads{place(thread, 'images')}?api-version={IMAGES_API_VERSION}"
        # The header takes no more than ASCII, as in Microsoft's client.
        named = (b"image-filename", name.encode("ascii", "replace"))
        kind = (b"content-type", b"application/octet-stream")
        answer = _parsed(*await self._exchange("POST", target, self._token(user), content, kind, named))
        return str(answer["id"])

    async def image(self, user: str, thread: str, image: str) -> bytes:
        """Return an image of a thread, as a user.

        Raises:
            Refused: It was refused, or a fault has lost it or its answer.
        """
        target = f"/chat/threads{place(thread, 'images', image, 'views', 'original')}?api-version={IMAGES_API_VERSION}"
        status, content = await self._exchange("GET", target, self._token(user), b"")
        if status >= 400:
            _parsed(status, content)
        return content

    def _token(self, user: str) -> str:
        try:
            return self._emulator.issue_token(user).text
        except Exception as error:  # the emulator's own error: the user does not exist, or was deleted
            message = "there is no such user"
            raise Refused(message) from error

    async def _request(self, method: str, target: str, bearer: str, body: object) -> Json:
        content = b"" if body is None else json.dumps(body).encode()
        kind = b"application/merge-patch+json" if method == "PATCH" else b"application/json"
        return _parsed(*await self._exchange(method, target, bearer, content, (b"content-type", kind)))

    async def _exchange(
        self, method: str, target: str, bearer: str, content: bytes, *more_headers: tuple[bytes, bytes]
    ) -> tuple[int, bytes]:
        """Send a request, and return the status and the body of the answer."""
        path, _, query = target.partition("?")
        sent: list[MutableMapping[str, Any]] = []
        is_read = False

        async def receive() -> MutableMapping[str, Any]:
            nonlocal is_read
            if is_read:
                await anyio.sleep_forever()
            is_read = True
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(event: MutableMapping[str, Any]) -> None:
            sent.append(event)

        headers = [
            (b"host", b"127.0.0.1"),
            (b"authorization", f"Bearer {bearer}".encode()),
            *more_headers,
        ]
        scope = {
            "type": "http",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": headers,
        }
        try:
            with anyio.fail_after(ANSWER_SECONDS):
                await self._emulator(scope, receive, send)
        except (OSError, TimeoutError) as error:
            message = "the connection was lost before the answer came: a fault is in force"
            raise Refused(message) from error
        status = next(event["status"] for event in sent if event["type"] == "http.response.start")
        return status, b"".join(event.get("body", b"") for event in sent if event["type"] == "http.response.body")


def place(*parts: str) -> str:
    """Return the path of these parts, each encoded; a leading colon names an action."""
    return "".join("/" + quote(part, safe=":@") for part in parts)


def person(user: str, name: str = "") -> Json:
    """Return a participant as the service takes it."""
    who: Json = {"communicationIdentifier": {"rawId": user, "communicationUser": {"id": user}}}
    return {**who, "displayName": name} if name else who


def _parsed(status: int, answer: bytes) -> Json:
    try:
        body = json.loads(answer) if answer else {}
    except ValueError:
        body = {}
    if status < 400:
        return body if isinstance(body, dict) else {"value": body}
    error = body.get("error", body) if isinstance(body, dict) else {}
    text = error.get("message") or error.get("code") or "" if isinstance(error, Mapping) else ""
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        text = "too many requests in a short time; wait some seconds, or turn its rate limits off in Tools"
    message = f"the service answered {status}" + (f": {text}" if text else "")
    raise Refused(message)
