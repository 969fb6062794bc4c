"""`chatbot send`: send a message as a bot."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Final
from uuid import uuid4

import anyio
from cyclopts import Parameter

from chatbot.actions import SendMessage, action_key
from chatbot.cli.boundary import EXIT_USAGE
from chatbot.cli.daemon_client import ServiceAccess, hinting_at_threads, service_access
from chatbot.cli.options import BOTS_YAML, AsBot, ConfigFile, Format
from chatbot.config.source_location import printable
from chatbot.errors import OutcomeUnknown, Throttled
from chatbot.message_size import check_message, split
from chatbot.model import REPLY_KEY, MessageId, ThreadId
from chatbot.outbox.outbox import PROOF_DELAY_SECONDS
from chatbot.outbox.proof import match_proofs, read_own, tombstones_without_key
from chatbot.runtime.logs import logging_to
from chatbot.service.base import ChatService
from chatbot.stores.records import OutboxRow

MAX_ATTEMPTS: Final = 3
"""How many times a message is sent if no response comes."""

PAUSE_SECONDS: Final = 10.0
"""How long to wait for the thread's quota if the service does not say; its windows are tens of seconds."""

VISIBILITY_DELAY_MS: Final = 60_000
"""How long after its creation time, which its id contains, a message may become visible."""


def send(
    thread: Annotated[str, Parameter(help="The id of the thread, as `chatbot threads list` shows it.")],
    text: Annotated[
        str, Parameter(help="The text; - reads it from stdin.", show_default=False, allow_leading_hyphen=True)
    ] = "-",
    /,
    config: ConfigFile = BOTS_YAML,
    *,
    bot: AsBot = None,
    format: Format = "text",
) -> int:
    """Send a message as a bot."""
    content = _read() if text == "-" else text
    if not content.strip():
        print("chatbot send: the text is empty; pass it as an argument, or pipe it in", file=sys.stderr)
        return EXIT_USAGE
    try:
        check_message("chatbot send", content)
    except ValueError as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    with logging_to(sys.stderr, format="console", level="error"):
        access = service_access(config)
        messages = anyio.run(_send, access, bot, ThreadId(thread), content)
    if format == "json":
        print(json.dumps({"bot": access.bot(bot).name, "thread": thread, "messages": messages}, indent=2))
    else:
        print("\n".join(map(printable, messages)))
    return 0


def _read() -> str:
    if sys.stdin is None:
        return ""
    if sys.stdin.isatty():
        print("Type the text; Ctrl-D on an empty line sends it.", file=sys.stderr)
    return sys.stdin.buffer.read().decode("utf-8", "replace").rstrip("\r\n")


async def _send(access: ServiceAccess, name: str | None, thread: ThreadId, text: str) -> list[MessageId]:
    """Send a text, split into several messages if it is too long; return their ids."""
    async with access.as_bot(name) as (bot, service):
        with hinting_at_threads(bot):
            return [await _Sender(service, thread, bot.display_name).send(piece) for piece in split(text)]


class _Sender:
    """Sends one message once: it carries a key, and is looked up by that key before it is sent again."""

    def __init__(self, service: ChatService, thread: ThreadId, display_name: str) -> None:
        self._service = service
        self._thread = thread
        self._display_name = display_name
        self._key = action_key(service.user, thread, f"send:{uuid4()}", "chatbot.cli.send", 0)
        self._attempts_left = MAX_ATTEMPTS

    async def send(self, text: str) -> MessageId:
        top = (await self._service.list_messages(self._thread, page_size=1)).messages
        while True:
            self._attempts_left -= 1
            try:
                return await self._attempt(text)
            except OutcomeUnknown:
                found = await self._find(text, after=top[0].version if top else 0)
                if found is not None:
                    return found
                if self._attempts_left == 0:
                    raise

    async def _attempt(self, text: str) -> MessageId:
        while True:
            try:
                return await self._service.send_message(
                    self._thread, text, display_name=self._display_name, metadata={REPLY_KEY: self._key}
                )
            except Throttled as error:
                wait = error.retry_after or PAUSE_SECONDS
                print(f"The quota of the thread is used up; waiting {wait:.0f} s.", file=sys.stderr)
                await anyio.sleep(wait)

    async def _find(self, text: str, *, after: int) -> MessageId | None:
        """Return the message if it was stored after all. Waits a moment first: the request may still be in flight."""
        await anyio.sleep(PROOF_DELAY_SECONDS)
        row = OutboxRow(
            self._key, self._thread, SendMessage(text), after=after, created_ms=0
        )  # only for the search, never stored
        own = await read_own(self._service, self._thread, [row], slack_ms=VISIBILITY_DELAY_MS)
        # A tombstone proves nothing: the running bot may have made it for a message of its own.
        return match_proofs(own, [row], made=tombstones_without_key(own)).get(self._key)
