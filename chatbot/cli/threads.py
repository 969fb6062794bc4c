"""`chatbot threads`: list and change the threads of a bot, acting as the bot."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import anyio
from cyclopts import Parameter

from chatbot.cli.boundary import EXIT_UNAVAILABLE, EXIT_USAGE
from chatbot.cli.daemon_client import ServiceAccess, hinting_at_threads, service_access
from chatbot.cli.options import BOTS_YAML, AsBot, ConfigFile, Format, Yes, confirmed
from chatbot.cli.output import table
from chatbot.config.source_location import printable
from chatbot.errors import Forbidden, NotFound, UnknownName
from chatbot.model import Participant, ThreadId, ThreadItem, UserId
from chatbot.runtime.logs import logging_to
from chatbot.service.base import ChatService, FailedParticipant

MAX_CONCURRENT: Final = 8
"""How many lists of participants are read at the same time."""

Thread = Annotated[str, Parameter(help="The id of the thread, as `chatbot threads list` shows it: 19:…@thread.v2")]
Person = Annotated[str, Parameter(help="The user's id, such as 8:acs:…")]


@dataclass(frozen=True, slots=True)
class _ListedThread:
    """A thread and its participants; None if the bot is no longer in it."""

    item: ThreadItem
    people: tuple[Participant, ...] | None


def list_threads(
    config: ConfigFile = BOTS_YAML,
    *,
    bot: AsBot = None,
    most: Annotated[int, Parameter(help="The maximum number of threads, most recently active first.")] = 50,
    format: Format = "text",
) -> int:
    """List a bot's threads."""
    if most < 1:
        print("chatbot threads list: --most must be at least 1", file=sys.stderr)
        return EXIT_USAGE
    with logging_to(sys.stderr, format="console", level="error"):
        access = service_access(config)
        listed, is_more = anyio.run(_list_threads, access, bot, most)
    if format == "json":
        print(json.dumps({"threads": [_as_json(one) for one in listed], "is_more": is_more}, indent=2))
        return 0
    names = {known.user: known.name for known in access.bots.values()}
    print("\n".join(_format_threads(listed, names, is_more=is_more)))
    return 0


def create_thread(
    topic: Annotated[str, Parameter(help="The topic of the thread.")],
    /,
    config: ConfigFile = BOTS_YAML,
    *,
    bot: AsBot = None,
    add: Annotated[list[str] | None, Parameter(negative="", help="The id of a user to add; may be repeated.")] = None,
    format: Format = "text",
) -> int:
    """Create a thread with a bot and other users."""
    if not topic.strip():
        print("chatbot threads create: the topic is empty", file=sys.stderr)
        return EXIT_USAGE
    people = [_person(user) for user in add or ()]
    with logging_to(sys.stderr, format="console", level="error"):
        thread, failed = anyio.run(_create, service_access(config), bot, topic, people)
    if format == "json":
        print(json.dumps({"thread": thread, "failed": [_refusal(one) for one in failed]}, indent=2))
    else:
        print(printable(thread))
        _report_failures(failed)
    return EXIT_UNAVAILABLE if failed else 0


def add_person(
    thread: Thread,
    user: Person,
    /,
    config: ConfigFile = BOTS_YAML,
    *,
    bot: AsBot = None,
    name: Annotated[str | None, Parameter(help="The name that others see.")] = None,
    format: Format = "text",
) -> int:
    """Add a person to a thread."""
    with logging_to(sys.stderr, format="console", level="error"):
        failed = anyio.run(_add, service_access(config), bot, ThreadId(thread), _person(user, name))
    if format == "json":
        print(json.dumps({"thread": thread, "failed": [_refusal(one) for one in failed]}, indent=2))
    else:
        _report_failures(failed)
        if not failed:
            print(f"{printable(user)} is in {printable(thread)}.")
    return EXIT_UNAVAILABLE if failed else 0


def remove_person(
    thread: Thread, user: Person, /, config: ConfigFile = BOTS_YAML, *, bot: AsBot = None, format: Format = "text"
) -> int:
    """Remove a person from a thread."""
    with logging_to(sys.stderr, format="console", level="error"):
        anyio.run(_remove, service_access(config), bot, ThreadId(thread), _person(user).user)
    if format == "json":
        print(json.dumps({"thread": thread, "removed": user}, indent=2))
    else:
        print(f"{printable(user)} is no longer in {printable(thread)}.")
    return 0


def leave(
    thread: Thread, /, config: ConfigFile = BOTS_YAML, *, bot: AsBot = None, yes: Yes = False, format: Format = "text"
) -> int:
    """Remove a bot from a thread."""
    with logging_to(sys.stderr, format="console", level="error"):
        access = service_access(config)
        known = access.bot(bot)
        question = f"{known.name} leaves {printable(thread)}; only another member can add it again. Continue?"
        if not confirmed(question, yes=yes, command="chatbot threads leave"):
            return EXIT_USAGE
        anyio.run(_remove, access, known.name, ThreadId(thread), None)
    if format == "json":
        print(json.dumps({"thread": thread, "removed": known.user}, indent=2))
    else:
        print(f"{known.name} has left {printable(thread)}.")
    return 0


# ── the service ───────────────────────────────────────────────────────────────────────────────────────────────────


async def _list_threads(access: ServiceAccess, name: str | None, most: int) -> tuple[list[_ListedThread], bool]:
    async with access.as_bot(name) as (_, service):
        items: list[ThreadItem] = []
        async for item in _existing_threads(service):
            items.append(item)
            if len(items) > most:
                break
        shown = items[:most]
        people: dict[ThreadId, tuple[Participant, ...] | None] = {}
        limiter = anyio.CapacityLimiter(MAX_CONCURRENT)

        async def ask(thread: ThreadId) -> None:
            async with limiter:
                people[thread] = await _people(service, thread)

        async with anyio.create_task_group() as group:
            for item in shown:
                group.start_soon(ask, item.id)
    return [_ListedThread(item, people[item.id]) for item in shown], len(items) > most


async def _existing_threads(service: ChatService) -> AsyncIterator[ThreadItem]:
    """Yield each existing thread once, most recently active first."""
    link: str | None = None
    seen: set[ThreadId] = set()
    while True:
        page = await service.list_threads(link=link)
        for item in page.items:
            if item.deleted_on is None and item.id not in seen:
                seen.add(item.id)
                yield item
        if page.next_link is None:
            return
        link = page.next_link


async def _people(service: ChatService, thread: ThreadId) -> tuple[Participant, ...] | None:
    try:
        return tuple([one async for one in service.list_participants(thread)])
    except (Forbidden, NotFound):  # the service still lists threads that a user was removed from
        return None


async def _create(
    access: ServiceAccess, name: str | None, topic: str, people: Sequence[Participant]
) -> tuple[ThreadId, Sequence[FailedParticipant]]:
    async with access.as_bot(name) as (bot, service):
        own = Participant(service.user, bot.display_name)
        created = await service.create_thread(topic, [own, *people])
        return created.thread.id, created.failed


async def _add(
    access: ServiceAccess, name: str | None, thread: ThreadId, person: Participant
) -> Sequence[FailedParticipant]:
    async with access.as_bot(name) as (bot, service):
        with hinting_at_threads(bot):
            return await service.add_participants(thread, [person])


async def _remove(access: ServiceAccess, name: str | None, thread: ThreadId, user: UserId | None) -> None:
    """Remove a user; None is the bot itself."""
    async with access.as_bot(name) as (bot, service):
        with hinting_at_threads(bot):
            await service.remove_participant(thread, user or service.user)


# ── output ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _person(user: str, name: str | None = None) -> Participant:
    if ":" not in user:
        message = f"{user!r} is not a user's id: expected an id such as 8:acs:…, as `chatbot identity create` prints it"
        raise UnknownName(message)
    return Participant(UserId(user), name)


def _format_threads(
    listed: Sequence[_ListedThread], bots: Mapping[UserId | None, str], *, is_more: bool
) -> Iterator[str]:
    """Yield one line per thread, followed by its participants with the ids that other commands take."""
    if not listed:
        yield "No threads."
    for number, one in enumerate(listed):
        if number:
            yield ""
        last = f"{one.item.last_activity:%Y-%m-%d %H:%M:%S}" if one.item.last_activity else "-"
        yield f"{printable(one.item.id)}  {last}  {printable(one.item.topic)}".rstrip()
        if one.people is None:
            yield "  the bot is no longer in it"
            continue
        rows = [(f"  {bots.get(who.user) or who.display_name or '-'}", who.user) for who in one.people]
        yield from table(("  WHO", "USER"), rows)
    if is_more:
        yield ""
        yield "More threads exist; use --most to show them."


def _as_json(listed: _ListedThread) -> dict[str, Any]:
    last = listed.item.last_activity
    return {
        "thread": listed.item.id,
        "topic": listed.item.topic,
        "last_activity": last.isoformat() if last else None,
        "is_in": listed.people is not None,
        "people": [{"user": who.user, "name": who.display_name} for who in listed.people or ()],
    }


def _refusal(failed: FailedParticipant) -> dict[str, str]:
    return {"user": failed.user, "code": failed.code, "message": failed.message}


def _report_failures(failed: Sequence[FailedParticipant]) -> None:
    for one in failed:
        reason = ": ".join(part for part in (one.code, one.message) if part) or "the service gives no reason"
        print(f"chatbot: {printable(one.user)} could not be added: {printable(reason)}", file=sys.stderr)
