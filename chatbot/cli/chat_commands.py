"""What a person at `chatbot chat` types for the command itself and not for the bots: `/inspect`, `/fault` and so on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from chatbot.cli.person import ChatUser, find_person
from chatbot.cli.playground_client import PlaygroundClient, playground_of, story_text
from chatbot.durations import format_duration, parse_duration
from chatbot.errors import StateError
from chatbot.model import ThreadId
from chatbot.runtime.run_directory import ControlDirectory

HELP: Final = (
    ("/as NAME", "go on as somebody else; the same name is the same person"),
    ("/inspect", "what a bot did with the message that it answered last"),
    ("/fault FAULT", "put a fault in force, such as send_message:429,times=3,user=BOT; /fault off ends all"),
    ("/advance 1h", "advance the clock of the emulator and of the bots"),
    ("/help", "this, and what the bots say"),
    ("//as, //fault …", "send /as, /fault … to the bots"),
)

_OWN: Final = re.compile(r"/(as|inspect|fault|advance|help)(?:\s+(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ChatCommand:
    """A line for the command itself.

    Args:
        name: `as`, `inspect`, `fault`, `advance` or `help`.
        rest: what follows the name.
    """

    name: str
    rest: str


def command_of(line: str) -> ChatCommand | None:
    """Return what a line asks of the command itself; None if it is for the bots."""
    found = _OWN.fullmatch(line.strip())
    return None if found is None else ChatCommand(found[1], (found[2] or "").strip())


def text_for_bots(line: str) -> str:
    """Return a line as it is sent: before the name of a command, two slashes are one."""
    return line[1:] if line.startswith("//") and command_of(line[1:]) is not None else line


def help_text() -> str:
    """Return the commands, one a line."""
    width = max(len(name) for name, _ in HELP)
    return "\n".join(f"{name:<{width}}  {meaning}" for name, meaning in HELP)


class ChatCommands:
    """Carries the commands out.

    Args:
        control: the `.chatbot/` of the bots.
    """

    def __init__(self, control: ControlDirectory) -> None:
        self._control = control

    async def switch(self, person: ChatUser, name: str, thread: ThreadId) -> ChatUser:
        """Return the person of another name, who is in the thread.

        Raises:
            StateError: no name was given, or nobody can add them to the thread.
            ServiceError: the service refuses it.
        """
        if not name:
            message = "write /as NAME"
            raise StateError(message)
        other = await find_person(name, self._control, person.info, person.resource)
        await other.join(thread)
        return other

    async def inspect(self, person: ChatUser, thread: ThreadId) -> tuple[str, str]:
        """Return the name of the bot that has answered last in a thread, and the story of its answer.

        Raises:
            StateError: there is no playground, or no bot has answered.
        """
        async with playground_of(self._control, person.info) as playground:
            _, pushed = await playground.ask("open", thread=thread)
            bots = {bot["name"]: bot for bot in playground.hello["bots"]}
        story = _last_answered(pushed)
        if story is None:
            message = "no bot has handled a message of this thread in this run"
            raise StateError(message)
        return str(bots.get(story["bot"], {}).get("display_name", story["bot"])), story_text(story)

    async def fault(self, person: ChatUser, fault: str) -> str:
        """Put a fault in force, or end all with `off`; return what is in force then.

        Raises:
            StateError: there is no playground, or it is no fault.
        """
        async with playground_of(self._control, person.info) as playground:
            if fault == "off":
                await playground.ask("clear_faults")
            elif fault:
                await playground.ask("fault", fault=_with_user(fault, playground))
            in_force = [_fault_text(one, playground) for one in playground.hello["faults"]]
        return "in force: " + "; ".join(in_force) if in_force else "no fault is in force"

    async def advance(self, person: ChatUser, duration: str) -> str:
        """Advance the clocks; return by how much.

        Raises:
            StateError: there is no playground, or it is no duration.
        """
        try:
            wanted = parse_duration(duration)
        except ValueError as error:
            message = f"{error}; write for example /advance 1h"
            raise StateError(message) from error
        async with playground_of(self._control, person.info) as playground:
            await playground.ask("advance", seconds=wanted.total_seconds())
        return f"advanced by {format_duration(wanted)}"


def _last_answered(pushed: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the story of the last answer of a bot; without one, the last story of a message."""
    stories: list[dict[str, Any]] = [
        frame["story"] for frame in pushed if frame.get("push") == "story" and frame["story"].get("text")
    ]
    messages = [one for frame in pushed if frame.get("push") == "messages" for one in frame["messages"]]
    by_key: dict[str, dict[str, Any]] = {
        step["key"]: story for story in stories for step in story["steps"] if step["kind"] == "action"
    }
    for message in sorted(messages, key=lambda one: int(one["id"]), reverse=True):
        key = message.get("metadata", {}).get("chatbot.key")
        if key in by_key:
            return by_key[key]
    return max(stories, key=lambda story: int(story["message"]), default=None)


def _with_user(fault: str, playground: PlaygroundClient) -> str:
    """Return a fault whose `user=` may be a bot's or a person's name."""
    users = {
        str(bot[key]).casefold(): bot["user"] for bot in playground.hello["bots"] for key in ("name", "display_name")
    }
    users |= {str(person["name"]).casefold(): person["user"] for person in playground.hello["people"]}
    return re.sub(r"(?<=[,:]user=)[^,]+", lambda found: str(users.get(found[0].strip().casefold(), found[0])), fault)


def _fault_text(fault: dict[str, Any], playground: PlaygroundClient) -> str:
    names = {
        one["user"]: one.get("display_name") or one["name"]
        for one in (*playground.hello["people"], *playground.hello["bots"])
    }
    kind = fault["status"] if fault["kind"] == "status" else fault["kind"]
    parts = [f"{fault['operation']}:{kind}"]
    if fault.get("seconds"):
        most = fault.get("most_seconds")
        parts[0] += f"={fault['seconds']:g}" if most is None else f"={fault['seconds']:g}..{most:g}"
    if fault.get("times"):
        parts.append(f"times={fault['times']}")
    if fault.get("user"):
        parts.append(f"user={names.get(fault['user'], fault['user'])}")
    return ",".join(parts)
