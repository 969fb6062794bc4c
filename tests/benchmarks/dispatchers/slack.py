"""Slack's Bolt: `AsyncApp.async_dispatch`. A slash command is another kind of request, acknowledged."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from slack_bolt.app.async_app import AsyncApp
from slack_bolt.authorization import AuthorizeResult
from slack_bolt.request.async_request import AsyncBoltRequest
from work import COMMANDS, WORDS, Count, measure, pattern, run


async def main() -> None:
    count = Count()

    async def authorize(**_: object) -> AuthorizeResult:
        return AuthorizeResult(enterprise_id=None, team_id="T1", bot_token="xoxb-1", bot_id="B1", bot_user_id="U1")

    app = AsyncApp(
        authorize=authorize,
        process_before_response=True,  # or it answers before the handler has run
        request_verification_enabled=False,
        url_verification_enabled=False,
        ssl_check_enabled=False,
    )

    @app.middleware
    async def around(next: Callable[[], Awaitable[None]]) -> None:
        count.passed += 1
        await next()

    async def handler(ack: Any) -> None:
        count.handled += 1
        await ack()

    for name in COMMANDS:
        app.command(f"/{name}")(handler)
    for word in WORDS:
        app.message(re.compile(pattern(word)))(handler)

    def event(number: int, text: str) -> AsyncBoltRequest:
        if text.startswith("/"):
            body = {"command": text, "text": "", "user_id": "U2", "team_id": "T1", "channel_id": "C1"}
        else:
            message = {"type": "message", "text": text, "user": "U2", "channel": "C1", "ts": str(number), "team": "T1"}
            body = {"type": "event_callback", "event": message, "team_id": "T1", "event_id": str(number)}
        return AsyncBoltRequest(body=body, mode="socket_mode")

    async def dispatch(request: AsyncBoltRequest) -> None:
        response = await app.async_dispatch(request)
        if response.status != 200:
            raise SystemExit(f"slack-bolt answered {response.status}: {json.dumps(response.body)}")

    await measure(event, dispatch, count)


run(main)
