"""The operations of Identity: users, their tokens, and the exchange of a Teams user's token."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from chatbot.emulator import parsing
from chatbot.emulator.bodies import dump
from chatbot.emulator.cursors import precise_time
from chatbot.emulator.identities import Token, unverified_expiry
from chatbot.emulator.problems import ServiceError, required, validation
from chatbot.emulator.request import Request, Response
from chatbot.emulator.world import World

_GUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def create_user(world: World, request: Request) -> Response:
    """POST /identities, with or without a token; an empty body is a user without one."""
    body = request.json()
    wants_token = body.get("createTokenWithScopes") not in (None, [])
    scopes, minutes = (
        parsing.token_request(body, "createTokenWithScopes") if wants_token else ([], parsing.minutes(body))
    )
    user = world.identities.create(request.now)
    answer: dict[str, Any] = {"identity": {"id": user.id}}
    if wants_token:
        answer["accessToken"] = _token(world.identities.issue(user.id, scopes, minutes, request.now))
    return Response(201, dump(answer))


def issue_token(world: World, request: Request) -> Response:
    """POST /identities/{id}/:issueAccessToken."""
    scopes, minutes = parsing.token_request(request.json(), "scopes")
    token = world.identities.issue(request.segments[1], scopes, minutes, request.now)
    return Response(200, dump(_token(token)))


def revoke_tokens(world: World, request: Request) -> Response:
    """POST /identities/{id}/:revokeAccessTokens."""
    world.identities.revoke(request.segments[1], request.now)
    return Response(204)


def delete_user(world: World, request: Request) -> Response:
    """DELETE /identities/{id}."""
    world.delete_user(request.segments[1], request.now)
    return Response(204)


def exchange_token(world: World, request: Request) -> Response:
    """POST /teamsUser/:exchangeAccessToken; the refusals were recorded."""
    body = request.json()
    token = _required(body, "token")
    if request.version < "2022":  # the preview of October 2021 takes the token alone
        return _exchanged(world, request, token, world.state.new_guid())
    app, user = _required(body, "appId"), _required(body, "userId")
    if not _GUID.fullmatch(app):
        message = "Provided AppId has invalid format."
        raise validation(message, "appId")
    if not _GUID.fullmatch(user):
        message = "Provided UserId has invalid format."
        raise validation(message, "userId")
    return _exchanged(world, request, token, user)


def _exchanged(world: World, request: Request, token: str, user: str) -> Response:
    expires = unverified_expiry(token)
    if expires is None or expires <= request.now // 1000:
        raise ServiceError(401, "InvalidAccessToken", "Provided access token is not valid.", is_versioned=False)
    return Response(200, dump(_token(world.identities.exchange(user, expires, request.now))))


def _required(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise required(name[0].upper() + name[1:])
    return value


def _token(token: Token) -> dict[str, str]:
    return {"token": token.text, "expiresOn": precise_time(token.expires)}
