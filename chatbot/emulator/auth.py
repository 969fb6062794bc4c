"""Authentication: HMAC signatures and Entra tokens for identity, access tokens for chat.

The string to sign is `VERB \\n path?query \\n date;host;hash`. The Python SDK signs the decoded path, the
JavaScript SDK the path as sent; both are accepted.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import urllib.parse
from email.utils import parsedate_to_datetime

from chatbot.emulator.errors import ErrorResponse, denied, forbidden
from chatbot.emulator.identities import CHAT_SCOPES, TEAMS_USER, Claims, unauthorized
from chatbot.emulator.request import Request
from chatbot.emulator.world import World

_HMAC = re.compile(r"HMAC-SHA256 SignedHeaders=([^&]*)&Signature=(.+)", re.ASCII | re.IGNORECASE)

WRONG_HASH = "Request 'x-ms-content-sha256' differs from generated content hash."


def identity(request: Request, world: World) -> None:
    """Accept a request signed with the resource's key, or with a token in place of Entra's; 401 otherwise."""
    header = request.header(b"authorization")
    if header[:7].lower() == "bearer ":
        if not world.identities.takes_entra:
            raise ErrorResponse(401, "Unauthorized", "Tokens of Microsoft Entra ID are not accepted; see --entra.")
        _entra(header[7:].strip(), request, world)
        return
    match = _HMAC.fullmatch(header)
    if match is None:
        raise denied()
    signed_hash = request.header(b"x-ms-content-sha256")
    actual = base64.b64encode(hashlib.sha256(request.body).digest()).decode()
    if signed_hash != actual:
        raise denied(WRONG_HASH)
    names = [name.strip().lower() for name in match[1].split(";")]
    if not {"host", "x-ms-content-sha256"} <= set(names) or not {"x-ms-date", "date"} & set(names):
        raise denied()
    _fresh(request, world)
    values = ";".join(request.header(name.encode("latin-1")) for name in names)
    key = _key(world)
    for target in {request.target, urllib.parse.unquote(request.target)}:
        text = f"{request.method}\n{target}\n{values}"
        signature = base64.b64encode(hmac.digest(key, text.encode(), "sha256")).decode()
        if hmac.compare_digest(signature.encode(), match[2].encode("latin-1", "replace")):
            return
    raise denied()


def chat(request: Request, world: World, scopes: frozenset[str]) -> str:
    """Return the user of a valid access token with one of the scopes."""
    claims = _claims(request, world)
    if claims.user.startswith(TEAMS_USER):
        raise forbidden(None)  # reported for tokens of Teams users (azure-sdk-for-js issue 24499)
    if not claims.scopes & CHAT_SCOPES:
        raise unauthorized()
    if not claims.scopes & scopes:
        raise forbidden(None)
    return claims.user


def _claims(request: Request, world: World) -> Claims:
    header = request.header(b"authorization")
    if header[:7].lower() != "bearer ":
        raise unauthorized()
    return world.identities.check(header[7:].strip(), request.now)


def _entra(token: str, request: Request, world: World) -> None:
    """Entra's signing keys are not here: only a token that the emulator issued in Entra's place is taken for one.

    All that is known of Entra's tokens is the scope that SDKs ask it for, https://communication.azure.com//.default.
    So one that names the address of something else as its audience is refused; what else may stand there is not known.
    """
    claims = world.identities.entra_claims(token, request.now)
    audience = str(claims.get("aud", ""))
    host = f".{urllib.parse.urlsplit(audience).hostname}"  # Teams Phone extensibility asks for auth.msft of it
    is_elsewhere = "://" in audience and not host.endswith(".communication.azure.com")
    if not claims or is_elsewhere:
        raise ErrorResponse(401, "Unauthorized", "The provided access token is not valid.")


def _fresh(request: Request, world: World) -> None:
    skew = world.quirks.hmac_skew_seconds
    if not skew:
        return
    try:
        stamp = parsedate_to_datetime(request.header(b"x-ms-date") or request.header(b"date"))
        off = abs(stamp.timestamp() - request.now / 1000)
    except (ValueError, OverflowError) as error:
        raise denied() from error
    if off > skew:
        raise denied()


def _key(world: World) -> bytes:
    try:
        return base64.b64decode(world.resource.access_key, validate=True)
    except binascii.Error:
        return world.resource.access_key.encode()
