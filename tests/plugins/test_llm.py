"""The plugin against a model endpoint on loopback, in real time: its answers are what the endpoint is made to say."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr

from chatbot import Plugin
from chatbot.testing import EventStream, chat
from chatbot.testing.room import Room
from plugins import llm


@dataclass
class FakeModel:
    """An endpoint that says "I heard N messages." in pieces; it waits before its last one until it is let go."""

    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    failures: int = 0
    go_on: anyio.Event = field(default_factory=anyio.Event)
    url: str = ""

    async def complete(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(await request.json())
        self.keys.append(request.headers.get("Authorization"))
        if self.failures:
            self.failures -= 1
            return web.Response(status=503)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for piece in ("", "I heard ", f"{len(self.asked[-1]['messages'])} messages"):
            await self._tell(response, piece)
        await self.go_on.wait()
        await self._tell(response, ".")
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _tell(self, response: web.StreamResponse, piece: str) -> None:
        event = json.dumps({"choices": [{"index": 0, "delta": {"content": piece}}]})
        await response.write(f": a comment\n\ndata: {event}\n\n".encode())


@asynccontextmanager
async def model_endpoint(*, failures: int = 0, is_ready: bool = True) -> AsyncIterator[FakeModel]:
    fake = FakeModel(failures=failures)
    if is_ready:
        fake.go_on.set()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", fake.complete)
    async with TestServer(app) as server:
        fake.url = str(server.make_url("/v1"))
        yield fake


def asking(fake: FakeModel, **settings: Any) -> Plugin:
    return llm.plugin(llm.Settings(url=fake.url, model="small", **settings))


async def eventually(room: Room, condition: Callable[[Room], bool]) -> None:
    with anyio.fail_after(120):
        while not condition(room):  # noqa: ASYNC110 -- nothing tells when a service has taken an edit
            await anyio.sleep(0.01)


async def test_an_answer_is_shown_while_the_model_generates_it_and_complete_at_the_end() -> None:
    async with model_endpoint(is_ready=False) as fake, chat(asking(fake)) as room:
        ann = room.user("Ann")
        await ann.joins()
        async with anyio.create_task_group() as group:
            group.start_soon(ann.says, "Hello?")
            await eventually(room, lambda room: room.replies == ["I heard 2 messages …"])
            fake.go_on.set()

        assert room.replies == ["I heard 2 messages."]
        assert room.emulator.typing(room.thread)


async def test_the_model_gets_the_instructions_and_the_history_until_it_is_reset() -> None:
    async with model_endpoint() as fake, chat(asking(fake, memory=2, api_key=SecretStr("k3y"))) as room:
        await room.user("Ann").says("one", "two", "three", "/forget", "four")

        assert room.replies == [
            "I heard 2 messages.",
            "I heard 4 messages.",
            "I heard 4 messages.",
            "Forgotten.",
            "I heard 2 messages.",
        ]
        assert fake.asked[2]["messages"] == [
            {"role": "system", "content": "You are a helpful assistant. Be brief."},
            {"role": "user", "content": "two"},
            {"role": "assistant", "content": "I heard 4 messages."},
            {"role": "user", "content": "three"},
        ]
        assert (fake.asked[0]["model"], fake.asked[0]["stream"]) == ("small", True)
        assert fake.keys == ["Bearer k3y"] * 4


async def test_a_model_that_fails_is_asked_again() -> None:
    async with model_endpoint(failures=1) as fake, chat(asking(fake), raise_failures=False) as room:
        await room.user("Ann").says("Hello?")

        assert room.replies == ["I heard 2 messages."]


async def test_users_are_informed_when_the_model_is_unavailable() -> None:
    async with model_endpoint(failures=1) as fake:
        stream = EventStream()
        stream += stream.user("Ann").said("Hello?")

        handled = await stream.into(asking(fake), should_raise=False)

        assert handled.replies == ["I cannot think right now. Please ask me again later."]


async def test_among_many_people_it_answers_only_who_mentions_it() -> None:
    async with model_endpoint() as fake:
        stream = EventStream()
        ann = stream.user("Ann")
        stream += [ann.said("Hello, Bob."), ann.said("@Bot, hello.")]

        handled = await stream.into(asking(fake, only_mentioned=True))

        assert handled.replies == ["I heard 2 messages."]
