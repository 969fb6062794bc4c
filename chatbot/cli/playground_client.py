"""The playground of running bots, as a command uses it: over the channel that its page uses, with the page's token.

Only bots on the embedded emulator have one; see `chatbot.playground.channel` for the frames.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final

import aiohttp
import anyio.to_thread

from chatbot.errors import StateError
from chatbot.runtime.run_directory import ControlDirectory, RunInfo

Json = dict[str, Any]

PAGE_NOTES: Final = "playground"
"""The facts in `.chatbot/` about the page: its port and its token, and the process that serves it."""

_SECONDS: Final = 30.0


class PlaygroundClient:
    """A connection to the playground.

    Attributes:
        hello: People, bots, clock and faults, as the playground told them last.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self.hello: Json = {}

    async def ask(self, what: str, **fields: Any) -> tuple[Json, list[Json]]:
        """Ask, and return the answer and what the playground pushed before it.

        Raises:
            StateError: it was refused, or the playground has gone.
        """
        self._number += 1
        await self._socket.send_str(json.dumps({**fields, "id": self._number, "do": what}))
        pushed: list[Json] = []
        while True:
            frame = await self.receive()
            if frame.get("re") == self._number:
                if "error" in frame:
                    raise StateError(str(frame["error"]))
                return frame["answer"], pushed
            pushed.append(frame)

    async def receive(self) -> Json:
        """Return the next frame.

        Raises:
            StateError: the playground has gone, or refuses the token.
        """
        message = await self._socket.receive(timeout=_SECONDS)
        if message.type is not aiohttp.WSMsgType.TEXT:
            text = "the playground has closed the connection; try again"
            raise StateError(text)
        frame: Json = json.loads(message.data)
        if frame.get("push") == "hello":
            self.hello = frame
        return frame


@asynccontextmanager
async def playground_of(control: ControlDirectory, info: RunInfo) -> AsyncIterator[PlaygroundClient]:
    """Connect to the playground of running bots.

    Args:
        control: their `.chatbot/`.
        info: what they have published.

    Raises:
        StateError: they have none, or it does not answer.
    """
    if not is_on_emulator(info):
        message = "these bots run on Azure: stories, faults and a clock to advance exist only on the embedded emulator"
        raise StateError(message)
    facts = await anyio.to_thread.run_sync(control.read_facts, PAGE_NOTES)
    # The token goes to nobody but the playground of these bots, whoever listens at the port of an earlier run.
    if facts.get("pid") != info.pid:
        message = "these bots run without the playground: start them without --no-playground and `playground: false`"
        raise StateError(message)
    address = f"127.0.0.1:{facts['port']}"
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(
                f"ws://{address}/channel", headers={"Origin": f"http://{address}"}, max_msg_size=0
            ) as socket,
        ):
            await socket.send_str(json.dumps({"token": facts["token"]}))
            client = PlaygroundClient(socket)
            await client.receive()
            yield client
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        message = f"the playground at {address} does not answer ({type(error).__name__}); have the bots stopped?"
        raise StateError(message) from error


def is_on_emulator(info: RunInfo) -> bool:
    """Return whether bots run on an emulator: it alone is reached over plain http."""
    return info.endpoint.startswith("http://")


def story_text(story: Mapping[str, Any]) -> str:
    """Return a story in lines, for a terminal."""
    event = story.get("text") or story["event"]
    lines = [f"{event}: {_result(story)}"]
    if story.get("handler"):
        lines.append(f"handler {story['handler']}, {story.get('place', '')}")
    steps = story["steps"]
    for before, step in zip([{}, *steps], steps, strict=False):
        if step["kind"] == "handler" and before.get("refused") and not step.get("error"):
            lines.append(f"answered how {_short(step['handler'])} is used; it did not run")
        elif text := _step_text(step):
            lines.append(text)
    lines += [f"not {_short(other['handler'])}: {other['reason']}" for other in story.get("others", ())]
    if story.get("trace"):
        lines.append(f"trace {story['trace']}")
    if story.get("dead_letter"):
        lines.append(f"dead letter {story['dead_letter']}: `chatbot dead-letters retry {story['dead_letter']}`")
    return "\n".join(lines)


def _result(story: Mapping[str, Any]) -> str:
    failed = [step.get("error") for step in story["steps"] if step["kind"] == "handler"]
    if story.get("dead_letter"):
        return "a dead letter"
    if failed and failed[-1]:
        return "failed"
    return "handled" if story.get("handler") else "no handler"


def _step_text(step: Mapping[str, Any]) -> str:
    """Return a line about a step; "" if another one tells it."""
    took = f"  {step['seconds'] * 1000:.1f} ms" if "seconds" in step else ""
    error = f"  {step['error']}" if step.get("error") else ""
    match step["kind"]:
        case "poll":
            return f"found by a poll{took}"
        case "attempt":
            return f"attempt {step['number']}" if step["number"] > 1 else ""
        case "skipped":
            return f"not {_short(step['handler'])}: {step['reason']}"
        case "chosen":
            arguments = "".join(f" {name}={value}" for name, value in step.get("arguments", {}).items())
            return (
                f"chosen {step.get('command') or _short(step['handler'])}{arguments} {step.get('refused', '')}".rstrip()
            )
        case "handler":
            failure = f"{error}: {step['text']}\n{step['traceback']}" if error else ""
            return f"ran {_short(step['handler'])}{took}{failure}"
        case "recalled":
            return f"result of {step['call']} from the journal: {step['result']}"
        case "refused":
            return f"refused: {step['place']} may not {step['what']}"
        case "unrepeatable":
            return f"not repeatable: {step['place']} reads {step['what']}"
        case "retry":
            return f"retried in {step['pause']} s"
        case "commit":
            changes = "".join(f"\n  {_change_text(change)}" for change in step.get("changes", ()))
            return f"committed{took}{error}{changes}"
        case "action":
            values = [f"{name}={value}" for name, value in step["values"].items() if value != "{}"]
            return f"action {step['action']}: " + " ".join(values)
        case "call":
            left = f", quota left {step['quota_left']}" if "quota_left" in step else ""
            return f"called {step['operation']}{took}  {step['outcome']} {step.get('status', '')}".rstrip() + left
        case "sent" | "receipt":
            return f"{'' if step['kind'] == 'sent' else 'read receipt '}{_outcome(error)}{took}{error}"
        case "settled":
            return "found in the thread: it was sent" if step["status"] == "done" else f"given up: {step['reason']}"
    return str(step["kind"])


def _outcome(error: str) -> str:
    if not error:
        return "sent"
    return "sent, outcome unknown" if error.strip().startswith("OutcomeUnknown") else "not sent"


def _change_text(change: Mapping[str, Any]) -> str:
    if change["kind"] == "state":
        before, after = (json.dumps(change[when], ensure_ascii=False) for when in ("before", "after"))
        return f"state {_short(change['name'])} {change['whose']}: {before} -> {after}"
    times = {"due_ms": "due at", "deadline_ms": "until"}
    facts = [change.get("state"), change.get("error")]
    facts += [f"{word} {_local_time(change[name])}" for name, word in times.items() if change.get(name)]
    return " ".join([change["kind"], _short(change["name"]), *(str(fact) for fact in facts if fact)])


def _local_time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000).astimezone().isoformat(" ", "seconds")


def _short(name: str) -> str:
    return ".".join(name.split(".")[-2:])
