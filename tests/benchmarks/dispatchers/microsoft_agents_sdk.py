"""The Microsoft 365 Agents SDK: `ChannelAdapter.run_pipeline` into an `AgentApplication`."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

from microsoft_agents.activity import Activity
from microsoft_agents.hosting.core import (
    AgentApplication,
    ApplicationOptions,
    Authorization,
    ChannelAdapter,
    MemoryStorage,
    TurnContext,
    TurnState,
)
from work import COMMANDS, WORDS, Count, measure, pattern, run


class Adapter(ChannelAdapter):
    async def send_activities(self, context: Any, activities: Any) -> list[Any]:
        return []

    async def update_activity(self, context: Any, activity: Any) -> None:
        return None

    async def delete_activity(self, context: Any, reference: Any) -> None:
        return None


async def main() -> None:
    count = Count()
    adapter = Adapter()
    app: AgentApplication[TurnState] = AgentApplication(
        ApplicationOptions(storage=MemoryStorage()),
        authorization=Authorization(MemoryStorage(), SimpleNamespace()),  # type: ignore[arg-type]  # nobody signs in
    )

    class Around:
        async def on_turn(self, context: TurnContext, proceed: Any) -> None:
            count.passed += 1
            await proceed(context)

    adapter.use(Around())

    async def handler(context: TurnContext, state: TurnState) -> None:
        count.handled += 1

    for name in COMMANDS:
        app.message(f"/{name}")(handler)
    for word in WORDS:
        app.message(re.compile(rf".*{pattern(word)}.*"))(handler)  # it has to match the whole text

    def event(number: int, text: str) -> TurnContext:
        activity = Activity.model_validate(
            {
                "type": "message",
                "id": str(number),
                "text": text,
                "channelId": "test",
                "from": {"id": "ann"},
                "recipient": {"id": "bot"},
                "conversation": {"id": "thread"},
                "serviceUrl": "http://127.0.0.1",
            }
        )
        return TurnContext(adapter, activity)

    await measure(event, lambda context: adapter.run_pipeline(context, app.on_turn), count)


run(main)
