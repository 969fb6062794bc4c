"""`chatbot chat`: talk to running bots from a second terminal, as a person."""

from __future__ import annotations

import getpass
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated

import anyio
from cyclopts import Parameter

from chatbot.cli.boundary import EXIT_USAGE
from chatbot.cli.daemon_client import connection_to, count_unsent
from chatbot.cli.options import BOTS_YAML, RunningConfig, duration
from chatbot.cli.person import ChatUser, find_person
from chatbot.cli.session import Session
from chatbot.cli.terminal import Terminal
from chatbot.config.source_location import printable
from chatbot.durations import format_duration
from chatbot.errors import StateError
from chatbot.model import ThreadId
from chatbot.runtime.connection import Connection
from chatbot.runtime.logs import logging_to
from chatbot.runtime.run_directory import ControlDirectory, RunInfo


def chat(
    config: RunningConfig = BOTS_YAML,
    /,
    *,
    as_: Annotated[
        str | None, Parameter(name="--as", help="Your name; the same name is the same person the next time.")
    ] = None,
    thread: Annotated[str | None, Parameter(help="Talk in the thread with this id.")] = None,
    new: Annotated[str | None, Parameter(help="Open a new thread with all the bots, about this topic.")] = None,
    list_: Annotated[
        bool, Parameter(name="--list", negative="", show_default=False, help="List your threads, and leave.")
    ] = False,
    wait: Annotated[
        timedelta,
        Parameter(
            converter=duration,
            show_default=format_duration,
            help="How long to wait for answers after the end of piped input.",
        ),
    ] = timedelta(seconds=5),
) -> int:
    """Talk to running bots as a person."""
    if sum((thread is not None, new is not None, list_)) > 1:
        print("chatbot chat: give only one of --thread, --new and --list", file=sys.stderr)
        return EXIT_USAGE
    info = ControlDirectory(config.absolute().parent).running()
    with logging_to(sys.stderr, format="console", level="error"):
        control, connection = ControlDirectory(config.absolute().parent), connection_to(info, config)
        if not connection.can_issue_tokens:
            message = (
                "to talk you need a user of your own, and only whoever has the resource's key, or Microsoft Entra ID, "
                "can make one; `chatbot threads` and `chatbot send` speak as a bot"
            )
            raise StateError(message)
        anyio.run(_chat, config, info, connection, control, as_ or _own_name(), thread, new, list_, wait)
    return 0


async def _chat(
    config: Path,
    info: RunInfo,
    connection: Connection,
    control: ControlDirectory,
    name: str,
    thread: str | None,
    topic: str | None,
    is_list: bool,
    answer_timeout: timedelta,
) -> None:
    async with connection.open() as resource:
        person = await find_person(name, control, info, resource)
        if is_list:
            await _list(person)
            return
        if topic is not None:
            joined = await person.open_thread(topic)
        else:
            joined = await (person.join(ThreadId(thread)) if thread else person.default_thread())
        terminal = Terminal(f"{printable(name)}> ")
        if terminal.is_interactive:
            topic = (await person.service.get_thread(joined)).topic
            print(f"{printable(topic)}  {joined}\nYou are {printable(name)}. Ctrl-D leaves.\n", flush=True)
        await Session(person, joined, terminal, partial(count_unsent, config, joined)).run(answer_timeout)


async def _list(person: ChatUser) -> None:
    async for item in person.threads():
        print(f"{item.id}  {printable(item.topic)}")


def _own_name() -> str:
    try:
        return getpass.getuser().capitalize()
    except (OSError, KeyError, ImportError):  # a user without a name, as in some containers
        return "Guest"
