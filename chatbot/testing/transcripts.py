"""What a failing test shows: the conversation as text, and tracebacks that begin at the author's code.

Transcripts are also used wherever else a conversation is shown.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar

from chatbot.dispatch import HandlerRegistry, HandlerSource
from chatbot.emulator.records import Message
from chatbot.errors import PluginError

__tracebackhide__ = True  # pytest: what is of interest is the author's test and code

X = TypeVar("X", bound=Exception)

_CHATBOT: Final = str(Path(__file__).parents[1]) + os.sep


def check_plugins_fit(plugins: Sequence[HandlerSource]) -> None:
    """Check that these can be the plugins of one bot.

    Raises:
        PluginError: they cannot. Raised without a cause, because the message names the place.
    """
    try:
        HandlerRegistry(handler for plugin in plugins for handler in plugin.handlers())
    except PluginError as error:
        raise error.with_traceback(None) from None


def without_framework_frames(error: X) -> X:
    """Return the error without the frames of chatbot that led to the author's code, if it got there."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_CHATBOT):
        trace = trace.tb_next
    return error.with_traceback(trace or error.__traceback__)


INDENT: Final = " " * len("00:00:00 ")
"""Indentation of further lines of a text, below the time of its first line."""


def transcript(messages: Sequence[Message], names: Mapping[str, str], *, last: int | None = None) -> str:
    """Return a conversation as text, one line per message, in the order in which they were first sent.

    Args:
        messages: everything in the thread, tombstones and system messages included.
        names: names by user id; users without a name appear with their id.
        last: the maximum number of messages; the number of omitted ones is shown.
    """
    shown = messages if last is None else messages[-last:] if last else ()
    lines = [f"… {len(messages) - len(shown)} earlier messages"] if len(shown) < len(messages) else []
    day: str | None = None
    for message in shown:
        said = datetime.fromtimestamp(message.id / 1000, UTC)
        if f"{said:%F}" != day:
            day = f"{said:%F}"
            lines.append(f"── {said:%A} {day}")
        lines += _lines(f"{said:%T} {_describe(message, names)}")
    return "\n".join(lines)


def _lines(text: str) -> Iterator[str]:
    first, *rest = text.split("\n")
    yield first
    yield from (INDENT + line for line in rest)


def _describe(message: Message, names: Mapping[str, str]) -> str:
    who = names.get(message.sender, message.sender)
    if not message.is_system:
        return f"{who}: {_content(message)}"
    if message.type == "topicUpdated":
        return f'* {who} set the topic to "{message.topic}"'
    listed = [names.get(member.user, member.user) for member in message.participants]
    if listed == [who]:
        return f"* {who} {'came' if message.type == 'participantAdded' else 'left'}"
    verb = "added" if message.type == "participantAdded" else "removed"
    return f"* {who} {verb} {', '.join(name for name in listed if name != who)}"


def _content(message: Message) -> str:
    if message.deleted is not None:
        return "(deleted)"
    kind = "" if message.type == "text" else f"({message.type}) "
    return f"{kind}{message.text}{' (edited)' if message.edited is not None else ''}"
