"""What answering a message takes at the least: look, reply, show it as read; nothing else is done, nothing kept.

`sdk`: the SDK as its quickstart uses it, a client for each thread. `client`: chatbot's client alone, without a bot.
`python -m tests.benchmarks.answering sdk|client FACTS.json` prints the microseconds of processor time for each
message; clients are made, and connected, before the clock starts.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from azure.communication.chat.aio import ChatClient, ChatThreadClient
from azure.core.pipeline.policies import SansIOHTTPPolicy

from chatbot.model import ThreadId, UserId
from chatbot.service.acs import AcsResource

AT_ONCE = 64
"""As many as a bot gives turns to at once."""

Answer = Callable[[], Awaitable[object]]


class Loopback(SansIOHTTPPolicy[Any, Any]):
    """Lets the SDK send its token to this machine without TLS."""

    def on_request(self, request: Any) -> None:
        request.context.options["enforce_https"] = False


def _since(message: int) -> datetime:
    return datetime.fromtimestamp(message / 1000 - 1, UTC)


async def answer_with_sdk(facts: dict[str, Any]) -> float:
    """Answer as the quickstart shows it."""
    from azure.communication.chat.aio import CommunicationTokenCredential

    endpoint = facts["connection_string"].partition("endpoint=")[2].partition("/;")[0]
    credential = CommunicationTokenCredential(facts["token"])
    loopback = [Loopback()]
    async with ChatClient(endpoint, credential, per_call_policies=loopback) as chat:

        def ready(thread: str, said: int) -> tuple[ChatThreadClient, Answer]:
            client = chat.get_chat_thread_client(thread, per_call_policies=loopback)

            async def answer() -> None:
                async for message in client.list_messages(start_time=_since(said)):
                    if message.id == str(said):
                        await client.send_message("well, this is what you said")
                        await client.send_read_receipt(message.id)

            return client, answer

        clients = [ready(thread, said) for thread, said in facts["said"].items()]
        try:
            await _at_once([client.get_properties for client, _ in clients])  # connects
            return await _measured([answer for _, answer in clients])
        finally:
            for client, _ in clients:
                await client.close()


async def answer_with_client(facts: dict[str, Any]) -> float:
    """Answer with chatbot's own client of the service."""
    user = UserId(facts["user"])
    async with AcsResource.from_connection_string(facts["connection_string"]) as resource:
        service = resource.chat(user, resource.issued_tokens(user))

        def ready(thread: ThreadId, said: int) -> Answer:
            async def answer() -> None:
                page = await service.list_messages(thread, start_time=_since(said), page_size=100)
                for message in page.messages:
                    if message.id == str(said):
                        await service.send_message(thread, "well, this is what you said", display_name="Echo")
                        await service.send_receipt(thread, message.id)

            return answer

        threads = {ThreadId(thread): said for thread, said in facts["said"].items()}
        await _at_once([partial(service.get_thread, thread) for thread in threads])
        return await _measured([ready(thread, said) for thread, said in threads.items()])


async def _measured(answers: Sequence[Answer]) -> float:
    begun = time.process_time()
    await _at_once(answers)
    return (time.process_time() - begun) / len(answers) * 1e6


async def _at_once(answers: Sequence[Answer]) -> None:
    waiting = iter(answers)

    async def work() -> None:
        for answer in waiting:
            await answer()

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))


if __name__ == "__main__":
    known = json.loads(Path(sys.argv[2]).read_text())
    who = {"sdk": answer_with_sdk, "client": answer_with_client}[sys.argv[1]]
    print(json.dumps(asyncio.run(who(known))))
