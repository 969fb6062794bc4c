"""One HTTP request as the operations see it, and the answer they give. No ASGI, no world."""

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
    """What arrived. `base` is scheme and host as the caller named them; `now` is epoch milliseconds."""

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
        """A header's text, empty if absent."""
        return self.headers.get(name, b"").decode("latin-1")

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; 400 if it is anything else. An empty body is an empty object."""
        if not self.body.strip():
            return {}
        try:
            value = json.loads(self.body, parse_constant=_no_constant)
            if b"\\ud" in self.body.lower():
                json.dumps(value, ensure_ascii=False).encode()  # refuses half a surrogate pair
        except (ValueError, RecursionError) as error:
            raise bad_request() from error
        if not isinstance(value, dict):
            raise bad_request()
        return value


@dataclass(slots=True)
class Response:
    """What is answered. `body` None is no body at all: no content type, and on 204 no content length.

    `is_versioned`: the service's answer names its api-versions. `is_beside`: it is not the service's answer.
    """

    status: int
    body: bytes | None = None
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    content_type: bytes = JSON_UTF8
    is_versioned: bool = True
    is_beside: bool = False


def parse_path(raw: str) -> list[str]:
    """The path's segments, decoded one by one, so that an encoded slash stays inside its segment."""
    return [urllib.parse.unquote(segment) for segment in raw.strip("/").split("/")]


def parse_query(raw: str) -> dict[str, str]:
    """The query's values by lower-case name; the first of several wins, as nothing is known to repeat."""
    values: dict[str, str] = {}
    for pair in raw.split("&"):
        name, _, value = pair.partition("=")
        if "%" in pair or "+" in pair:
            name, value = urllib.parse.unquote_plus(name), urllib.parse.unquote_plus(value)
        values.setdefault(name.lower(), value)
    return values


def _no_constant(text: str) -> None:
    raise ValueError(text)
