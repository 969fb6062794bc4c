"""A user access token as a text: whether it can be one, and what it says of itself. Pure; nothing is verified."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from chatbot.model import UserId


def check_token(token: str, error: type[Exception]) -> str:
    """Check that a token can stand in a header; the error does not show it."""
    if token and token.isascii() and token.isprintable() and " " not in token:
        return token
    msg = f"the access token is not one ({len(token)} characters); expected printable ASCII without spaces"
    raise error(msg)


def read_expiry(token: str) -> int | None:
    """When a JWT expires, epoch seconds; None if the token is no JWT or does not say. Nothing is verified."""
    try:
        return int(_claims(token)["exp"])
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


def read_user(token: str) -> UserId | None:
    """Whose token it is; None if the token is no JWT or does not say. Nothing is verified.

    Tokens of the service have been seen to say it as `skypeid` (public reports until 2025); it is not documented.
    """
    known = _claims(token).get("skypeid")
    return UserId(f"8:{known}") if isinstance(known, str) and known.startswith("acs:") else None


def _claims(token: str) -> Mapping[str, Any]:
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}
