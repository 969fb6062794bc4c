"""`chatbot record`: record a thread with running bots as a conversation test (`.chat` file)."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Annotated

import anyio
from cyclopts import Parameter

from chatbot.cli.daemon_client import connection_to, count_unsent
from chatbot.cli.options import BOTS_YAML, RunningConfig
from chatbot.cli.recording import as_pytest, record_steps, without_controls
from chatbot.config import Config, load_config
from chatbot.errors import ConfigError, Forbidden, NotFound, StateError, Throttled, UnknownName
from chatbot.model import ChatMessage, Participant, ThreadId, UserId
from chatbot.polling.poller import CATCH_UP_PAGE_SIZE
from chatbot.runtime.connection import Connection
from chatbot.runtime.logs import logging_to
from chatbot.runtime.run_directory import ControlDirectory, RunInfo
from chatbot.service.base import ChatService, MessagePage
from chatbot.testing.chat_files.script import HEADERS, Role, Script, Verb
from chatbot.worker_threads import run_in_thread

_NOTE = """\
# Recorded with `chatbot record`. The participants' names are masked, and so are ids, e-mail and IP addresses,
# phone numbers and IBANs. Other names and personal details in the text are not: read the file before you share
# it.
"""


def record(
    config: RunningConfig = BOTS_YAML,
    *,
    thread: Annotated[
        str | None, Parameter(help="The id of the thread; by default the lobby, if there is one.")
    ] = None,
    output: Annotated[
        Path | None, Parameter(name=["--output", "-o"], help="The file to write, such as tests/talk.chat.")
    ] = None,
) -> int:
    """Record a thread, with personal data masked."""
    info = ControlDirectory(config.absolute().parent).running()
    chosen = ThreadId(thread) if thread else info.lobby
    if chosen is None:
        msg = "there is no lobby to record; select a thread with --thread (`chatbot chat --list` shows yours)"
        raise UnknownName(msg)
    if output is not None and output.exists():
        msg = f"{output}: this file already exists; choose another name, or move the file"
        raise ConfigError(msg)
    with logging_to(sys.stderr, format="console", level="error"):
        settings = load_config(config, os.environ)
        messages, _ = anyio.run(read_thread, info, connection_to(info, config), settings, chosen)
        count = anyio.run(count_unsent, config, chosen)
    text = _format_recording(messages, info, settings)
    if count:
        more = "1 more reply is" if count == 1 else f"{count} more replies are"
        print(f"chatbot: {more} pending and not in the recording; record again in a moment", file=sys.stderr)
    if output is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode())  # a .chat file is always UTF-8, whatever the terminal's encoding
        sys.stdout.buffer.flush()
    else:
        _write(output, text)
        print(f"Wrote {output}. Try it: chatbot replay {output}")
    return 0


async def thread_as_test(config: Config, control: ControlDirectory, thread: ThreadId, form: str) -> str:
    """Return a thread of running bots as a test: `pytest` or `chat`, with personal data masked.

    Raises:
        StateError: the thread has no messages.
        ServiceError: it cannot be read.
    """
    info = await run_in_thread(control.running)
    messages, _ = await read_thread(info, connection_to(info, config.path), config, thread)
    if form == "pytest":
        return _NOTE + as_pytest(_script_of(messages, info, config))
    return _format_recording(messages, info, config)


def _format_recording(messages: list[ChatMessage], info: RunInfo, config: Config) -> str:
    script = _script_of(messages, info, config)
    given = [one for name in config.bots for one in config.bots[name].plugins]
    taking_part = {reference for role in script.roles for reference in role.plugins}
    notes = (
        f"# {one.module} has settings in {config.path.name}; if the test needs them, write below its `plugins:` line\n"
        f"#   settings: {one.module} {{…}}\n"
        for one in given
        if one.settings and one.module in taking_part
    )
    return _NOTE + "".join(notes) + str(script)


def _script_of(messages: list[ChatMessage], info: RunInfo, config: Config) -> Script:
    names = _bot_names(info)
    steps = record_steps(messages, {UserId(bot.user_id): names[bot.name] for bot in info.bots})
    speakers = {step.who for step in steps} | {name for step in steps for name in step.others}
    taking_part = [bot.name for bot in info.bots if names[bot.name] in speakers] or [bot.name for bot in info.bots]
    if not any(step.verb is Verb.SAYS for step in steps):
        msg = "there is nothing to record: this thread has no messages, or all of them were deleted"
        raise StateError(msg)
    plugins = {name: config.bots[name].plugins for name in taking_part if name in config.bots}
    roles = tuple(Role(names[name], tuple(one.module for one in given)) for name, given in plugins.items())
    return Script("", roles, tuple(steps), has_loose_order=True)


def _bot_names(info: RunInfo) -> Mapping[str, str]:
    """Return each bot's name in the file: its display name, if that is valid there and unique."""
    shown = {bot.name: re.sub(r"[:*(#,\s]+", " ", without_controls(bot.display_name)).strip() for bot in info.bots}
    every = list(shown.values())
    return {
        name: display if display and every.count(display) == 1 and display not in HEADERS else name
        for name, display in shown.items()
    }


async def read_thread(
    info: RunInfo, connection: Connection, config: Config, thread: ThreadId
) -> tuple[list[ChatMessage], list[Participant]]:
    """Return all messages of a thread, and who is in it, read as one of the running bots.

    Raises:
        UnknownName: none of the bots is in the thread.
        ServiceError: it cannot be read.
    """
    async with connection.open() as resource:
        for bot in info.bots:
            tokens = connection.tokens(resource, bot.user_id, config.bots.get(bot.name))
            service = resource.chat(bot.user_id, tokens)
            try:
                messages = [message async for page in pages_of(service, thread) for message in page.messages]
                return messages, [one async for one in service.list_participants(thread)]
            except (Forbidden, NotFound):
                continue
    msg = (
        f"{thread}: none of the running bots is in this thread; `chatbot chat --list` shows the threads that you are in"
    )
    raise UnknownName(msg)


async def pages_of(service: ChatService, thread: ThreadId) -> AsyncIterator[MessagePage]:
    """Yield all pages of a thread's messages: large ones, because the bot itself reads by the same quota."""
    link: str | None = None
    while True:
        try:
            page = await service.list_messages(thread, page_size=CATCH_UP_PAGE_SIZE, link=link)
        except Throttled as error:
            await anyio.sleep(error.retry_after or 1.0)
            continue
        yield page
        link = page.next_link
        if link is None:
            return


def _write(output: Path, text: str) -> None:
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        msg = f"{output}: this cannot be written: {os.strerror(error.errno or 0)}"
        raise ConfigError(msg) from None
