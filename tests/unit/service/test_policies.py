"""A process that does not own its store asks the service for nothing: another one may act for its bots."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel

from chatbot.emulator import Emulator
from chatbot.service.acs import AcsResource
from chatbot.testing.transport import AsgiMessage, AsgiTransport


async def test_a_request_waits_for_the_permit_and_is_made_only_then() -> None:
    emulator, asked, granted = Emulator(endpoint="https://acs.example"), [], anyio.Event()

    async def watched(scope: AsgiMessage, receive: Any, send: Any) -> None:
        asked.append(scope["path"])
        await emulator(scope, receive, send)

    resource = AcsResource(
        "https://acs.example",
        access_key=emulator.access_key,
        transport=AsgiTransport(watched),
        permit=granted.wait,
    )
    async with resource, anyio.create_task_group() as tasks:
        user = await resource.create_user()
        chat = resource.chat(user, resource.issued_tokens(user))

        async def create() -> None:
            await chat.create_thread("Lobby", [])

        tasks.start_soon(create)
        await anyio.wait_all_tasks_blocked()
        assert [path for path in asked if path.startswith("/chat")] == []

        granted.set()
    assert [path for path in asked if path.startswith("/chat")] == ["/chat/threads"]
