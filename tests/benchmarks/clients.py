"""The rival of the benchmark `threads`: the SDK as its quickstart uses it, a client for each thread, asked once.

`python -m tests.benchmarks.clients ENDPOINT TOKEN FILE`, where the file is the JSON list of the threads.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from azure.communication.chat.aio import ChatClient
from azure.core.credentials import AccessToken
from azure.core.pipeline.policies import SansIOHTTPPolicy

AT_ONCE = 32


class Credential:
    def __init__(self, token: str) -> None:
        self._token = token

    async def get_token(self, *scopes: str, **kwargs: Any) -> AccessToken:
        return AccessToken(self._token, int(time.time()) + 86400)


class OverHttp(SansIOHTTPPolicy[Any, Any]):
    def on_request(self, request: Any) -> None:
        request.context.options["enforce_https"] = False


async def main(endpoint: str, token: str, threads: list[str]) -> dict[str, float]:
    options: dict[str, Any] = {"per_call_policies": [OverHttp()]}
    async with AsyncExitStack() as opened:
        chat = await opened.enter_async_context(ChatClient(endpoint, Credential(token), **options))  # type: ignore[arg-type]
        clients = [
            await opened.enter_async_context(chat.get_chat_thread_client(thread, **options)) for thread in threads
        ]
        made = time.process_time()
        rest = iter(clients)

        async def ask() -> None:
            for client in rest:
                async for _ in client.list_messages(results_per_page=50):
                    pass

        await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
        return {"kilobytes": kilobytes(), "made": made}


def kilobytes() -> float:
    """Return the resident memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1024


if __name__ == "__main__":
    endpoint, token, file = sys.argv[1:]
    print(json.dumps(asyncio.run(main(endpoint, token, json.loads(Path(file).read_text())))))
