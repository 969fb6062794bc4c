"""HTTP requests and responses of operations, independent of ASGI."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chatbot.emulator.errors import bad_request

JSON_UTF8 = b"application/json; charset=utf-8"
MAX_BODY = 1024 * 1024


@dataclass(slots=True)
class Request:
    """A request. `base` is scheme and host as used by the caller; `now` is epoch milliseconds."""

    method: str
    segments: list[str]
    query: dict[str, str]
    headers: Mapping[bytes, bytes]
    body: bytes
    base: str
    target: str
    now: int
    version: str = ""
    caller: str = ""

    def header(self, name: bytes) -> str:
        """Return a header's text; empty if absent."""
        return self.headers.get(name, b"").decode("latin-1")

    def json(self) -> dict[str, Any]:
        """Return the body as a JSON object; 400 if it is anything else. An empty body is an empty object."""
        if not self.body.strip():
            return {}
        try:
            value = json.loads(self.body, parse_constant=_no_constant)
            if b"\\ud" in self.body.lower():
                json.dumps(value, ensure_ascii=False).encode()  # rejects lone surrogates
        except (ValueError, RecursionError) as error:
            raise bad_request() from error
        if not isinstance(value, dict):
            raise bad_request()
        return value


@dataclass(slots=True)
class Response:
    """A response. `body` None means no body: no content type, and no content length for a 204.

    `is_versioned`: the service's answer names its api-versions. `is_beside`: it is not the service's answer.
    """

    status: int
    body: bytes | None = None
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    content_type: bytes = JSON_UTF8
    is_versioned: bool = True
    is_beside: bool = False


def parse_path(raw: str) -> list[str]:
    """Split a path into segments and decode each, so that an encoded slash stays inside its segment."""
    return [urllib.parse.unquote(segment) for segment in raw.strip("/").split("/")]


def parse_query(raw: str) -> dict[str, str]:
    """Return the query's values by lower-case name; the first one of repeated names."""
    values: dict[str, str] = {}
    for pair in raw.split("&"):
        name, _, value = pair.partition("=")
        if "%" in pair or "+" in pair:
            name, value = urllib.parse.unquote_plus(name), urllib.parse.unquote_plus(value)
        values.setdefault(name.lower(), value)
    return values


def _no_constant(text: str) -> None:
    raise ValueError(text)
