"""Two people, a thread and the weather on the network between them and the emulator: what the contract tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from chatbot.emulator import Emulator, Quirks, World
from chatbot.model import Participant, ThreadId, UserId
from chatbot.service.acs import AcsResource
from chatbot.service.base import ChatService
from chatbot.service.credentials import RenewingTokens
from chatbot.testing.transport import AsgiMessage, AsgiTransport

Fault = Callable[[AsgiMessage, Any, Any], Any]


class Weather:
    """The emulator behind a network on which things go wrong: each fault strikes one request, in order."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.faults: list[Fault] = []
        self.requests: list[AsgiMessage] = []

    async def __call__(self, scope: AsgiMessage, receive: Any, send: Any) -> None:
        self.requests.append(scope)
        app = self.faults.pop(0) if self.faults else self.emulator
        await app(scope, receive, send)

    @property
    def authorizations(self) -> list[bytes]:
        return [dict(request["headers"])[b"authorization"] for request in self.requests]


def raising(error: Exception) -> Fault:
    async def fault(scope: AsgiMessage, receive: Any, send: Any) -> None:
        raise error

    return fault


def answering(status: int, body: bytes = b"", **headers: str) -> Fault:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]

    async def fault(scope: AsgiMessage, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": named})
        await send({"type": "http.response.body", "body": body})

    return fault


@dataclass
class Room:
    """Ann and Bob, each with a view of the service, and a thread of theirs."""

    resource: AcsResource
    weather: Weather
    ann: ChatService
    bob: ChatService
    thread: ThreadId
    tokens: dict[UserId, RenewingTokens] = field(default_factory=dict)


@asynccontextmanager
async def opened(resource: AcsResource, weather: Weather) -> AsyncIterator[Room]:
    async with resource:
        tokens = {}
        for _ in range(2):
            user = await resource.create_user()
            tokens[user] = resource.issued_tokens(user)
        ann, bob = (resource.chat(user, source) for user, source in tokens.items())
        created = await ann.create_thread("Lobby", [Participant(bob.user, "Bob")])
        weather.requests.clear()
        yield Room(resource, weather, ann, bob, created.thread.id, tokens)


@asynccontextmanager
async def room(quirks: Quirks | None = None, **options: Any) -> AsyncIterator[Room]:
    emulator = Emulator(World(quirks=quirks) if quirks else None, endpoint="https://acs.example")
    weather = Weather(emulator)
    text = emulator.connection_string
    async with opened(
        AcsResource.from_connection_string(text, transport=AsgiTransport(weather), **options), weather
    ) as it:
        yield it
