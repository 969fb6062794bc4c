"""Routing: from an ASGI scope to a request, its operation, and the token scopes that the operation requires.

Unknown paths and methods are refused here. Literal path segments are case-insensitive.
"""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from chatbot.emulator import operations, serialization
from chatbot.emulator.errors import ErrorResponse
from chatbot.emulator.images import MAX_IMAGE_BYTES
from chatbot.emulator.quirks import Quirks
from chatbot.emulator.request import MAX_BODY, Request, Response, parse_path, parse_query
from chatbot.emulator.world import World

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]


def read(scope: Scope, public: str | None, fallback: str, now: int) -> Request:
    """Return the request of a scope, without its body.

    Links name the public base for requests that came by its scheme (plain http beside https is the own machine's
    way in), else the host the request came to.
    """
    headers = dict(scope["headers"])
    raw = scope.get("raw_path")
    path = raw.decode("latin-1") if raw else scope["path"]
    query = scope.get("query_string", b"").decode("latin-1")
    scheme, host = scope.get("scheme", "https"), headers.get(b"host", b"").decode("latin-1")
    base = f"{scheme}://{host}" if host else fallback
    if public is not None and public.startswith(f"{scheme}:"):
        base = public
    return Request(
        method=scope["method"],
        segments=parse_path(path),
        query=parse_query(query),
        headers=headers,
        body=b"",
        base=base,
        target=f"{path}?{query}" if query else path,
        now=now,
    )


async def body(receive: Receive, request: Request) -> bytes:
    """The whole body; 413 above the limit, without keeping what is too much. Images may be larger than the rest."""
    is_image = len(request.segments) == 4 and request.segments[3].lower() == "images"
    limit = MAX_IMAGE_BYTES if is_image else MAX_BODY
    chunks: list[bytes] = []
    size = 0
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ConnectionAbortedError
        chunk = event.get("body", b"")
        size += len(chunk)
        if size <= limit:
            chunks.append(chunk)
        if not event.get("more_body", False):
            break
    if size > limit:
        raise ErrorResponse(413, "RequestEntityTooLarge", "The request is too large.")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def find_route(request: Request, quirks: Quirks) -> Route:
    """Return the requested operation; store the api-version in the request."""
    methods = _methods(request.segments)
    if methods is None:
        raise ErrorResponse(404, "NotFound", "The requested resource does not exist.")
    found = methods.get(request.method)
    if found is None:
        allowed = (b"allow", ", ".join(methods).encode())
        text = f"The HTTP method '{request.method[:20]}' is not allowed here."
        raise ErrorResponse(405, "MethodNotAllowed", text, headers=(allowed,))
    _version(found, request, quirks)
    return found


def _version(found: Route, request: Request, quirks: Quirks) -> None:
    version = request.query.get("api-version", "")
    is_chat = isinstance(found, ChatRoute)
    known = serialization.CHAT if is_chat else serialization.IDENTITY
    is_known = version in known if found.versions is None else version in found.versions
    if is_known:
        request.version = version
        return
    request.version = known[-1] if found.versions is None else found.versions[-1]
    if not version:
        text = "An API version is required, but was not specified."
        raise ErrorResponse(400, "ApiVersionUnspecified", text)
    if is_chat and found.versions is None and quirks.unsupported_version == "accept":
        return
    shown = f"{request.base}{request.target}"[:300]
    text = (
        f"The HTTP resource that matches the request URI '{shown}' does not support the API version '{version[:40]}'."
    )
    raise ErrorResponse(400, "UnsupportedApiVersion", text)


ONLY_CHAT = frozenset({"chat"})
JOINED = frozenset({"chat", "chat.join"})
ANY_CHAT = frozenset({"chat", "chat.join", "chat.join.limited"})


@dataclass(frozen=True, slots=True)
class ChatRoute:
    """An operation of chat, and the token scopes it takes (documented in the identity model's table).

    `versions` are the api-versions that have it, in order; without them, all do.
    """

    name: str
    run: Callable[[operations.Chat], Response]
    scopes: frozenset[str] = ANY_CHAT
    versions: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class IdentityRoute:
    """An operation of identity, and the api-versions that have it (without them, all do)."""

    name: str
    run: Callable[[World, Request], Response]
    versions: tuple[str, ...] | None = None


Route = ChatRoute | IdentityRoute

_SINCE_2025 = tuple(version for version in serialization.IDENTITY if version >= "2025")
_SHOWS_IMAGES = tuple(version for version in serialization.CHAT if version >= "2023-11-07")
_TAKES_IMAGES = tuple(version for version in serialization.CHAT if version in serialization.IMAGES)

_CHAT: dict[str, dict[str, ChatRoute]] = {
    "threads": {
        "POST": ChatRoute("create_thread", operations.create_thread, ONLY_CHAT),
        "GET": ChatRoute("list_threads", operations.list_threads),
    },
    "thread": {
        "GET": ChatRoute("get_thread", operations.get_thread),
        "PATCH": ChatRoute("update_thread", operations.update_thread, ONLY_CHAT),
        "DELETE": ChatRoute("delete_thread", operations.delete_thread, ONLY_CHAT),
    },
    "messages": {
        "POST": ChatRoute("send_message", operations.send_message),
        "GET": ChatRoute("list_messages", operations.list_messages),
    },
    "message": {
        "GET": ChatRoute("get_message", operations.get_message),
        "PATCH": ChatRoute("update_message", operations.update_message),
        "DELETE": ChatRoute("delete_message", operations.delete_message),
    },
    "participants": {"GET": ChatRoute("list_participants", operations.list_participants)},
    ":add": {"POST": ChatRoute("add_participants", operations.add_participants, JOINED)},
    ":remove": {"POST": ChatRoute("remove_participant", operations.remove_participant, JOINED)},
    "readreceipts": {
        "POST": ChatRoute("send_read_receipt", operations.send_receipt),
        "GET": ChatRoute("list_read_receipts", operations.list_receipts),
    },
    "typing": {"POST": ChatRoute("send_typing_notification", operations.send_typing)},
    "images": {"POST": ChatRoute("upload_image", operations.upload_image, versions=_TAKES_IMAGES)},
    "image": {"DELETE": ChatRoute("delete_image", operations.delete_image, versions=_TAKES_IMAGES)},
    "view": {"GET": ChatRoute("get_image", operations.get_image, versions=_SHOWS_IMAGES)},
}

_IDENTITY: dict[str, dict[str, IdentityRoute]] = {
    "identities": {"POST": IdentityRoute("create_user", operations.create_user)},
    "identity": {
        "DELETE": IdentityRoute("delete_user", operations.delete_user),
        "GET": IdentityRoute("get_user", operations.get_user, _SINCE_2025),
    },
    ":issueaccesstoken": {"POST": IdentityRoute("issue_token", operations.issue_token)},
    ":revokeaccesstokens": {"POST": IdentityRoute("revoke_tokens", operations.revoke_tokens)},
    "teams": {"POST": IdentityRoute("exchange_token", operations.exchange_token)},
    "extension": {"POST": IdentityRoute("exchange_extension_token", operations.exchange_extension_token, _SINCE_2025)},
    "assignment": {
        "GET": IdentityRoute("get_assignment", operations.get_assignment, _SINCE_2025),
        "PUT": IdentityRoute("set_assignment", operations.set_assignment, _SINCE_2025),
        "DELETE": IdentityRoute("delete_assignment", operations.delete_assignment, _SINCE_2025),
    },
}

OPERATIONS = tuple(
    route.name
    for methods in (*_CHAT.values(), *_IDENTITY.values())
    for route in methods.values()  # type: ignore[attr-defined]
)


def check_operation(name: str) -> None:
    """Check that a name is an operation, or `*` for all of them.

    Raises:
        ValueError: it is neither; the message suggests similar names.
    """
    if name not in OPERATIONS and name != "*":
        near = difflib.get_close_matches(name, OPERATIONS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(OPERATIONS))}"
        msg = f"there is no operation {name!r} for a fault ({hint})"
        raise ValueError(msg)


def _methods(segments: list[str]) -> dict[str, ChatRoute] | dict[str, IdentityRoute] | None:
    """Return the methods of a path; None if the service has no such path."""
    count, head = len(segments), segments[0].lower()
    if head == "chat" and 2 <= count <= 7 and segments[1].lower() == "threads":
        if count <= 3:
            return _CHAT["threads" if count == 2 else "thread"]
        noun = segments[3].lower()
        if count == 4:
            return _CHAT.get(noun) if noun in _BELOW_A_THREAD else None
        if noun == "images":
            return _image(segments)
        if count > 5:
            return None
        if noun == "messages":
            return _CHAT["message"]
        action = segments[4].lower()
        return _CHAT[action] if noun == "participants" and action in {":add", ":remove"} else None
    if head == "identities" and count <= 3:
        if count < 3:
            return _IDENTITY["identities" if count == 1 else "identity"]
        action = segments[2].lower()
        return _IDENTITY[action] if action in {":issueaccesstoken", ":revokeaccesstokens"} else None
    if head == "teamsuser" and count == 2 and segments[1].lower() == ":exchangeaccesstoken":
        return _IDENTITY["teams"]
    if head == "access" and count in {3, 6} and segments[1].lower() == "teamsextension":
        return _extension(segments)
    return None


_BELOW_A_THREAD = frozenset({"messages", "participants", "readreceipts", "typing", "images"})


def _image(segments: list[str]) -> dict[str, ChatRoute] | None:
    """An image or a view of it: the SDK asks for `view`, links say `views`."""
    if len(segments) == 7 and segments[5].lower() in {"view", "views"}:
        return _CHAT["view"]
    return _CHAT["image"] if len(segments) == 5 else None


def _extension(segments: list[str]) -> dict[str, IdentityRoute] | None:
    """Teams Phone extensibility: the exchange of a token, and the assignments that allow it."""
    if len(segments) == 3:
        return _IDENTITY["extension"] if segments[2].lower() == ":exchangeaccesstoken" else None
    literals = (segments[2].lower(), segments[4].lower())
    return _IDENTITY["assignment"] if literals == ("tenants", "assignments") else None
