"""A bare client: requests into the emulator without a socket and without an SDK."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass, field
from typing import Any

from chatbot.emulator import Emulator, Quirks, World

VERSION = "2024-03-07"
NOON = 1_750_000_000.0


@dataclass
class Clock:
    """A clock that stands still until it is set."""

    seconds: float = NOON

    def __call__(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        self.seconds += seconds


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    raw_headers: list[tuple[bytes, bytes]] = field(default_factory=list)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def make(*, entra: bool = False, **quirks: Any) -> tuple[Emulator, Clock]:
    clock = Clock()
    return Emulator(World(seed=7, quirks=Quirks(**quirks)), clock=clock, quotas=False, entra=entra), clock


async def call(
    emulator: Emulator,
    method: str,
    path: str,
    body: Any = None,
    *,
    token: str = "",
    headers: dict[str, str] | None = None,
    version: str | None = VERSION,
) -> Answer:
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    if version and "api-version=" not in path:
        path += ("&" if "?" in path else "?") + f"api-version={version}"
    sent = {"host": "emulator.test", "content-type": "application/json", **(headers or {})}
    if token:
        sent["authorization"] = f"Bearer {token}"
    raw, _, query = path.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "scheme": "https",
        "path": raw,
        "raw_path": raw.encode(),
        "query_string": query.encode(),
        "headers": [(key.lower().encode(), value.encode("latin-1")) for key, value in sent.items()],
    }
    sent_messages: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": content}

    async def send(message: Any) -> None:
        sent_messages.append(message)

    await emulator(scope, receive, send)
    start = sent_messages[0]
    plain = {key.decode(): value.decode("latin-1") for key, value in start["headers"]}
    return Answer(start["status"], plain, b"".join(one.get("body", b"") for one in sent_messages[1:]), start["headers"])


async def signed(
    emulator: Emulator,
    method: str,
    path: str,
    body: Any = None,
    *,
    version: str = "2023-10-01",
    key: str | None = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    """An identity call with an HMAC signature."""
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    path += ("&" if "?" in path else "?") + f"api-version={version}"
    digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
    date = "Sun, 15 Jun 2025 15:06:40 GMT"
    text = f"{method}\n{path}\n{date};emulator.test;{digest}"
    secret = base64.b64decode(key or emulator.access_key)
    signature = base64.b64encode(hmac.digest(secret, text.encode(), "sha256")).decode()
    sent = {
        "x-ms-date": date,
        "x-ms-content-sha256": digest,
        "authorization": (f"HMAC-SHA256 SignedHeaders=x-ms-date;host;x-ms-content-sha256&Signature={signature}"),
        **(headers or {}),
    }
    return await call(emulator, method, path, content, headers=sent)


class Scene:
    """Two people in a thread, and calls on their behalf."""

    def __init__(self, *, entra: bool = False, **quirks: Any) -> None:
        self.emulator, self.clock = make(entra=entra, **quirks)
        self.ann = self.emulator.create_user()
        self.bob = self.emulator.create_user()
        self.thread = self.emulator.create_thread(self.ann, "lobby", [self.bob])
        self.path = f"/chat/threads/{self.thread}"
        self.clock.advance(10)

    def token(self, user: str, *scopes: str) -> str:
        return self.emulator.issue_token(user, scopes or ("chat",)).text

    async def __call__(self, method: str, path: str = "", body: Any = None, *, user: str = "", **more: Any) -> Answer:
        full = path if path.startswith("/chat") else self.path + path
        return await call(self.emulator, method, full, body, token=self.token(user or self.ann), **more)

    async def ids(self, query: str = "", user: str = "") -> list[int]:
        """The message ids of every page of a listing, in the order they came."""
        answer = await self("GET", f"/messages{query}", user=user)
        found: list[int] = []
        while True:
            found += [int(message["id"]) for message in answer.json["value"]]
            link = answer.json.get("nextLink")
            if link is None:
                return found
            assert link.startswith("https://emulator.test/chat/threads/")
            answer = await self("GET", link.removeprefix("https://emulator.test"), user=user)
