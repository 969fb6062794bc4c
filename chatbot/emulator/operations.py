"""The operations of Chat and Identity: one function each, from a request to its response."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from chatbot.emulator import cursors, parsing
from chatbot.emulator.cursors import precise_time
from chatbot.emulator.errors import ErrorResponse, bad_request, message_not_found, required, validation
from chatbot.emulator.identities import Token
from chatbot.emulator.images import VIEWS
from chatbot.emulator.records import Assignment
from chatbot.emulator.request import Request, Response
from chatbot.emulator.serialization import Dialect, Json, dump, rejected, thread_item
from chatbot.emulator.state import ThreadContents
from chatbot.emulator.world import World

_THREAD_ID = re.compile(r"19:[A-Za-z0-9_\-:]{1,200}@(?:thread\.(?:v2|skype|tacv2)|unq\.gbl\.spaces)")
MAX_THREAD_PAGE = 100
GLOBAL_HOST = "https://global.chat.ppe.communication.microsoft.com"
EMPTY_PAGE = b'{"value":[]}'

Item = TypeVar("Item")


@dataclass(slots=True)
class Chat:
    """Arguments of a chat operation."""

    world: World
    request: Request
    dialect: Dialect

    @property
    def thread_id(self) -> str:
        """Thread id in the path; 400 without a message if it is invalid (recorded).

        The list of participants, and nothing else that was recorded, answers 404 without a message.
        """
        text = self.request.segments[2]
        if not _THREAD_ID.fullmatch(text):
            below = [segment.lower() for segment in self.request.segments[3:]]
            raise message_not_found() if below == ["participants"] else bad_request()
        return text

    @property
    def base(self) -> str:
        """Scheme and host of the Location header."""
        return self.request.base if self.world.quirks.location_host == "request" else GLOBAL_HOST

    def room(self) -> ThreadContents:
        """Contents of the thread."""
        return self.world.room(self.thread_id, self.request.now)

    def message_id(self) -> int:
        """Message id in the path."""
        return parsing.message_id(self.request.segments[4])

    def link(self, path: str, query: str) -> str:
        """Return a nextLink: absolute, path as recorded, the caller's api-version last."""
        return f"{self.request.base}{path}?{query}&api-version={self.request.version}"


def create_thread(chat: Chat) -> Response:
    """POST /chat/threads."""
    request = chat.request
    room, refused = chat.world.threads.create(request.caller, parsing.plan(request), request.now)
    body = {"chatThread": chat.dialect.thread(room.head), **rejected(refused)}
    return Response(201, dump(body), [(b"location", f"{chat.base}{_path(room)}".encode())])


def list_threads(chat: Chat) -> Response:
    """GET /chat/threads; a page may be short, only the missing nextLink ends the listing."""
    request, quirks = chat.request, chat.world.quirks
    size = parsing.page_size(request, MAX_THREAD_PAGE, quirks, MAX_THREAD_PAGE)
    start = parsing.start_time(request, quirks)
    cursor = None
    state = request.query.get("syncstate")
    if state:
        try:
            cursor = cursors.parse_thread_cursor(state)
        except ValueError as error:
            raise bad_request() from error
    chat.world.expire(request.now)
    page = chat.world.threads.page(request.caller, size, start=start, cursor=cursor)
    body: dict[str, object] = {"value": [thread_item(room, request.now, quirks) for room in page.rooms]}
    if page.next is not None:
        asked = f"&startTime={cursors.echo_time(start)}" if start is not None else ""
        asked += f"&maxPageSize={size}" if "maxpagesize" in request.query else ""
        body["nextLink"] = chat.link("/chat/threads", f"syncState={cursors.thread_cursor(*page.next)}{asked}")
    return Response(200, dump(body))


def get_thread(chat: Chat) -> Response:
    """GET /chat/threads/{id}."""
    chat.room()
    room = chat.world.threads.get(chat.thread_id, chat.request.caller)
    return Response(200, dump(chat.dialect.thread(room.head)))


def update_thread(chat: Chat) -> Response:
    """PATCH /chat/threads/{id}."""
    chat.room()
    change = parsing.thread_change(chat.request)
    chat.world.threads.update(chat.thread_id, chat.request.caller, chat.request.now, change)
    return Response(204)


def delete_thread(chat: Chat) -> Response:
    """DELETE /chat/threads/{id}."""
    chat.room()
    chat.world.threads.delete(chat.thread_id, chat.request.caller, chat.request.now)
    return Response(204)


def send_message(chat: Chat) -> Response:
    """POST …/messages."""
    request, room = chat.request, chat.room()
    message = chat.world.messages.send(room, request.caller, parsing.draft(request, chat.world.quirks), request.now)
    location = f"{chat.base}{_path(room)}/messages/{message.id}".encode()
    return Response(201, dump({"id": str(message.id)}), [(b"location", location)])


def list_messages(chat: Chat) -> Response:
    """GET …/messages, by descending version."""
    request, quirks, room = chat.request, chat.world.quirks, chat.room()
    size = parsing.page_size(request, quirks.default_page_size, quirks)
    asked = parsing.start_time(request, quirks)
    start = asked
    if start is not None and quirks.start_time_precision == "seconds":
        start -= start % 1000
    cursor = _message_cursor(chat, room)
    page = chat.world.messages.page(room, request.caller, size, request.now, start=start or None, cursor=cursor)
    if page.next is None:
        if not page.messages:
            return Response(200, EMPTY_PAGE)
        return Response(
            200, dump({"value": [chat.dialect.message(message, request.base) for message in page.messages]})
        )
    state = cursors.message_cursor(room.head.id, *page.next)
    query = f"syncState={state}&startTime={cursors.echo_time(asked or 0)}&maxPageSize={size}"
    link = chat.link(f"/chat/threads/{room.head.id}/messages", query)
    shown = [chat.dialect.message(message, request.base) for message in page.messages]
    return Response(200, dump({"value": shown, "nextLink": link}))


def _message_cursor(chat: Chat, room: ThreadContents) -> tuple[int, int] | None:
    text = chat.request.query.get("syncstate")
    if not text:
        return None
    try:
        last, newest = cursors.parse_message_cursor(text, room.head.id)
    except ValueError as error:
        raise bad_request() from error
    seconds = chat.world.quirks.cursor_seconds
    if seconds and chat.request.now - newest > seconds * 1000:
        raise bad_request()
    return last, newest


def get_message(chat: Chat) -> Response:
    """GET …/messages/{id}."""
    number = chat.message_id()
    message = chat.world.messages.get(chat.room(), chat.request.caller, number)
    return Response(200, dump(chat.dialect.message(message, chat.request.base)))


def update_message(chat: Chat) -> Response:
    """PATCH …/messages/{id}."""
    number, request = chat.message_id(), chat.request
    body = request.json()
    content, metadata = parsing.text_of(body, "content"), parsing.metadata_of(body)
    attachments = parsing.attachments_of(body, request.version)
    chat.world.messages.edit(chat.room(), request.caller, number, content, metadata, request.now, attachments)
    return Response(204)


def delete_message(chat: Chat) -> Response:
    """DELETE …/messages/{id}."""
    number = chat.message_id()
    chat.world.messages.delete(chat.room(), chat.request.caller, number, chat.request.now)
    return Response(204)


def list_participants(chat: Chat) -> Response:
    """GET …/participants."""
    room = chat.room()
    members = chat.world.participants.list_present(room, chat.request.caller)
    return _skipped(
        chat, room, "participants", members, chat.world.quirks.default_participants, chat.dialect.participant
    )


def add_participants(chat: Chat) -> Response:
    """POST …/participants/:add."""
    request, room = chat.request, chat.room()
    body = request.json()
    if not isinstance(body.get("participants"), list):
        raise bad_request()
    refused = chat.world.participants.add(room, request.caller, parsing.invited(body, request), request.now)
    return Response(201, dump(rejected(refused)))


def remove_participant(chat: Chat) -> Response:
    """POST …/participants/:remove; the body is the identifier itself."""
    request = chat.request
    user = parsing.identifier(request.json())
    chat.world.participants.remove(chat.room(), request.caller, user, request.now)
    return Response(204)


def send_receipt(chat: Chat) -> Response:
    """POST …/readReceipts."""
    request = chat.request
    text = parsing.text_of(request.json(), "chatMessageId")
    if text is None:
        raise bad_request()
    chat.world.receipts.send(chat.room(), request.caller, parsing.message_id(text), request.now)
    return Response(200)


def list_receipts(chat: Chat) -> Response:
    """GET …/readReceipts."""
    room = chat.room()
    receipts = chat.world.receipts.latest(room, chat.request.caller)
    return _skipped(chat, room, "readReceipts", receipts, chat.world.quirks.default_receipts, chat.dialect.receipt)


def send_typing(chat: Chat) -> Response:
    """POST …/typing."""
    request = chat.request
    name = parsing.text_of(request.json(), "senderDisplayName") or ""
    chat.world.receipts.type(chat.room(), request.caller, name, request.now)
    return Response(200)


def upload_image(chat: Chat) -> Response:
    """POST …/images: the bytes of an image; its name is in a header."""
    request, room = chat.request, chat.room()
    name = request.header(b"image-filename")
    image = chat.world.images.upload(room, request.caller, request.body, name)
    body = {"id": image.id, "attachmentType": "image", **({"name": image.name} if image.name else {})}
    return Response(201, dump(body), [(b"location", f"{chat.base}{_path(room)}/images/{image.id}".encode())])


def get_image(chat: Chat) -> Response:
    """GET …/images/{id}/view/{original or small}, in links `views`."""
    segments = chat.request.segments
    if segments[6].lower() not in VIEWS:
        raise bad_request()
    content, media_type = chat.world.images.get(chat.room(), chat.request.caller, segments[4])
    return Response(200, content, content_type=media_type.encode())


def delete_image(chat: Chat) -> Response:
    """DELETE …/images/{id}."""
    chat.world.images.delete(chat.room(), chat.request.caller, chat.request.segments[4])
    return Response(204)


def _skipped(
    chat: Chat, room: ThreadContents, noun: str, items: Sequence[Item], default: int, render: Callable[[Item], Json]
) -> Response:
    """Return a page by `skip` and `maxPageSize`; no nextLink if it ends exactly at the last item (recorded)."""
    size = parsing.page_size(chat.request, default, chat.world.quirks)
    first = parsing.skip(chat.request, chat.world.quirks)
    body: Json = {"value": [render(item) for item in items[first : first + size]]}
    if first + size < len(items):
        path = f"/chat/threads/{room.head.id}/{noun}"
        body["nextLink"] = chat.link(path, f"skip={first + size}&maxPageSize={size}")
    return Response(200, dump(body))


def _path(room: ThreadContents) -> str:
    return "/chat/threads/" + urllib.parse.quote(room.head.id, safe="@")


_GUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def create_user(world: World, request: Request) -> Response:
    """POST /identities, with or without a token; an empty body is a user without one."""
    body = request.json()
    wants_token = body.get("createTokenWithScopes") not in (None, [])
    scopes, minutes = (
        parsing.token_request(body, "createTokenWithScopes") if wants_token else ([], parsing.minutes(body))
    )
    custom_id = (parsing.text_of(body, "customId") or "") if request.version >= "2025" else ""
    user = world.identities.create(request.now, custom_id)
    token = world.identities.issue(user.id, scopes, minutes, request.now) if wants_token else None
    if token is not None:
        world.identities.note_token(user.id, request.now)
    answer: dict[str, Any] = {"identity": _user(world, request, user.id)}
    if token is not None:
        answer["accessToken"] = _token(world, token)
    return Response(201, dump(answer))


def get_user(world: World, request: Request) -> Response:
    """GET /identities/{id}, since 2025-03-02-preview."""
    return Response(200, dump(_user(world, request, request.segments[1])))


def _user(world: World, request: Request, user_id: str) -> dict[str, str]:
    """Return the model of an identity; versions before 2025 only have its id."""
    user = world.identities.get(user_id)
    if request.version < "2025":
        return {"id": user.id}
    named = {"customId": user.custom_id} if user.custom_id else {}
    issued = {"lastTokenIssuedAt": precise_time(user.last_token // 1000 * 1000)} if user.last_token else {}
    return {**named, **issued, "id": user.id}


def issue_token(world: World, request: Request) -> Response:
    """POST /identities/{id}/:issueAccessToken."""
    scopes, minutes = parsing.token_request(request.json(), "scopes")
    token = world.identities.issue(request.segments[1], scopes, minutes, request.now)
    world.identities.note_token(request.segments[1], request.now)
    return Response(200, dump(_token(world, token)))


def revoke_tokens(world: World, request: Request) -> Response:
    """POST /identities/{id}/:revokeAccessTokens."""
    world.identities.revoke(request.segments[1], request.now)
    return Response(204)


def delete_user(world: World, request: Request) -> Response:
    """DELETE /identities/{id}."""
    world.delete_user(request.segments[1], request.now)
    return Response(204)


def exchange_token(world: World, request: Request) -> Response:
    """POST /teamsUser/:exchangeAccessToken; the refusals were recorded, the token's before all others."""
    body = request.json()
    if body.get("token") is None:
        raise required("Token")  # noqa: EM101 -- a field name, not a message
    claims = world.identities.entra_claims(str(body["token"]), request.now)
    if not claims:
        raise ErrorResponse(401, "InvalidAccessToken", "Provided access token is not valid.", is_versioned=False)
    if request.version < "2022":  # the preview of October 2021 takes only the token
        return _exchanged(world, request, claims, claims.get("oid") or world.state.new_guid())
    app, user = _required(body, "appId"), _required(body, "userId")
    if not _GUID.fullmatch(app):
        message = "Provided AppId has invalid format."
        raise validation(message, "appId")
    if not _GUID.fullmatch(user):
        message = "Provided UserId has invalid format."
        raise validation(message, "userId")
    if claims.get("appid", app) != app:
        message = "AAD application is not the expected one."
        raise validation(message, "appId")
    if claims.get("oid", user) != user:
        message = "Provided AAD token issued for unexpected user."
        raise validation(message, "userId")
    return _exchanged(world, request, claims, user)


def exchange_extension_token(world: World, request: Request) -> Response:
    """POST /access/teamsExtension/:exchangeAccessToken, with the Teams user's own token of Entra as the credential.

    The refusals are not recorded.
    """
    request.json()
    token = request.header(b"authorization").partition(" ")[2]
    claims = world.identities.entra_claims(token, request.now)
    if not claims:
        raise ErrorResponse(401, "InvalidAccessToken", "Provided access token is not valid.")
    tenant, user, app = (str(claims.get(name, "")) for name in ("tid", "oid", "appid"))
    assignment = world.identities.assignment(tenant, user)
    if assignment is None or (assignment.client_ids is not None and app not in assignment.client_ids):
        raise ErrorResponse(403, "Forbidden", "The principal has no access assignment that allows this.")
    user_id, issued = world.identities.exchange_extension(tenant, user, claims["exp"], request.now)
    return Response(200, dump({"identity": {"id": user_id}, "accessToken": _token(world, issued)}))


def get_assignment(world: World, request: Request) -> Response:
    """GET /access/teamsExtension/tenants/{tenant}/assignments/{object}."""
    assignment = world.identities.assignment(*_principal(request))
    if assignment is None:
        raise ErrorResponse(404, "NotFound", "The assignment does not exist.")
    return Response(200, dump(_assignment(assignment)))


def set_assignment(world: World, request: Request) -> Response:
    """PUT of an assignment: 201 for a new one, 200 where one is replaced."""
    tenant, user = _principal(request)
    body = request.json()
    kind, clients = body.get("principalType"), body.get("clientIds")
    if not isinstance(kind, str) or not kind:
        raise required("PrincipalType")  # noqa: EM101 -- a field name, not a message
    if kind not in _PRINCIPALS:
        message = "Provided PrincipalType is not supported."
        raise validation(message, "principalType")
    if clients is not None and not (isinstance(clients, list) and all(isinstance(client, str) for client in clients)):
        message = "Provided ClientIds have invalid format."
        raise validation(message, "clientIds")
    is_new = world.identities.assignment(tenant, user) is None
    assignment = Assignment(tenant, user, kind, None if clients is None else tuple(clients))
    world.state.put(assignment)
    return Response(201 if is_new else 200, dump(_assignment(assignment)))


def delete_assignment(world: World, request: Request) -> Response:
    """DELETE of an assignment; one that is not there is gone already."""
    assignment = world.identities.assignment(*_principal(request))
    if assignment is not None:
        world.state.put(replace(assignment, is_removed=True))
    return Response(204)


_PRINCIPALS = frozenset({"user", "resourceAccount", "teamsResourceAccount"})


def _principal(request: Request) -> tuple[str, str]:
    tenant, user = request.segments[3], request.segments[5]
    for name, value in (("tenantId", tenant), ("objectId", user)):
        if not _GUID.fullmatch(value):
            message = f"Provided {name} has invalid format."
            raise validation(message, name)
    return tenant.lower(), user.lower()


def _assignment(assignment: Assignment) -> Json:
    clients = {} if assignment.client_ids is None else {"clientIds": list(assignment.client_ids)}
    return {
        "objectId": assignment.user,
        "tenantId": assignment.tenant,
        "principalType": assignment.principal,
        **clients,
    }


def _exchanged(world: World, request: Request, claims: Mapping[str, Any], user: str) -> Response:
    return Response(200, dump(_token(world, world.identities.exchange(user, claims["exp"], request.now))))


def _required(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise required(name[0].upper() + name[1:])
    return value


def _token(world: World, token: Token) -> dict[str, str]:
    return {"token": token.text, "expiresOn": precise_time(token.expires, world.state.new_ticks())}
