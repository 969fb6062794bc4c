"""`chatbot identity`: the bots' users and their tokens."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import anyio
from cyclopts import Parameter

from chatbot.cli.boundary import EXIT_UNAVAILABLE, EXIT_USAGE
from chatbot.cli.daemon_client import ServiceAccess, ask_bots, service_access, user_of
from chatbot.cli.options import BOTS_YAML, AsBot, ConfigFile, Format, Yes, confirmed, duration
from chatbot.cli.output import table
from chatbot.config import Config, load_config
from chatbot.config.source_location import printable
from chatbot.durations import format_duration
from chatbot.errors import ServiceError, StateError, UnknownName
from chatbot.model import UserId
from chatbot.runtime.assemble import server_ms_of
from chatbot.runtime.bot_users import noted_users
from chatbot.runtime.connection import KnownBot
from chatbot.runtime.control_client import ask
from chatbot.runtime.logs import logging_to
from chatbot.service.acs import AcsResource
from chatbot.stores import open_between_runs, open_store
from chatbot.stores.records import BotRecord
from chatbot.stores.writes import SaveBot

MIN_LIFETIME: Final = timedelta(hours=1)
MAX_LIFETIME: Final = timedelta(hours=24)
"""The limits of the identity service for a token's lifetime (its refusal says "within the [60, 1440] interval")."""

Lifetime = Annotated[
    timedelta | None,
    Parameter(converter=duration, help="How long the token is valid: 1h to 24h (the default)."),
]


def create(
    config: ConfigFile = BOTS_YAML,
    *,
    bot: Annotated[
        str | None,
        Parameter(help="Make it the user of this bot, and store that. Without it, the user belongs to no bot."),
    ] = None,
    token: Annotated[
        bool, Parameter(negative="", show_default=False, help="Also issue an access token for the user, and print it.")
    ] = False,
    lifetime: Lifetime = None,
    format: Format = "text",
) -> int:
    """Create a user and print its id."""
    if (refusal := _check_options(token, lifetime)) is not None:
        return refusal
    with logging_to(sys.stderr, format="console", level="error"):
        user, issued = anyio.run(_create, service_access(config), config, bot, token, lifetime)
    if format == "json":
        print(json.dumps({"user": user, **(issued.as_json() if issued else {})}, indent=2))
    else:
        print(printable(user))
        if issued is not None:
            print(issued.text)
    if issued is not None:
        _print_token_warning(user, issued)
    return 0


def show(
    config: ConfigFile = BOTS_YAML,
    *,
    bot: Annotated[str | None, Parameter(help="Only this bot.")] = None,
    token: Annotated[
        bool, Parameter(negative="", show_default=False, help="Issue a new access token for the bot, and print it.")
    ] = False,
    lifetime: Lifetime = None,
    format: Format = "text",
) -> int:
    """Show the bots' users, where they are stored, and whether the bots get tokens."""
    if (refusal := _check_options(token, lifetime)) is not None:
        return refusal
    with logging_to(sys.stderr, format="console", level="error"):
        access = service_access(config)
        if token:
            known = access.bot(bot)
            issued = anyio.run(_issue, access, user_of(known), lifetime)
            print(json.dumps(issued.as_json(), indent=2) if format == "json" else issued.text)
            _print_token_warning(user_of(known), issued)
            return 0
        chosen = [access.bot(bot)] if bot else list(access.bots.values())
        identities = anyio.run(_identities, access, chosen)
    if format == "json":
        print(json.dumps({"identities": [one.as_json() for one in identities]}, indent=2))
    else:
        print("\n".join(_format_identities(access, identities)))
    return EXIT_UNAVAILABLE if any(one.problem for one in identities) else 0


def revoke(config: ConfigFile = BOTS_YAML, *, bot: AsBot = None, yes: Yes = False, format: Format = "text") -> int:
    """Revoke all tokens of a bot's user."""
    with logging_to(sys.stderr, format="console", level="error"):
        access = service_access(config)
        known = access.bot(bot)
        user = user_of(known)
        shown = printable(user)
        question = f"All tokens of {known.name} ({shown}) become invalid, whoever holds them. Continue?"
        if not confirmed(question, yes=yes, command="chatbot identity revoke"):
            return EXIT_USAGE
        anyio.run(_revoke, access, user)
    if format == "json":
        print(json.dumps({"bot": known.name, "user": user}, indent=2))
    else:
        print(
            f"The tokens of {known.name} ({shown}) are revoked; the service may accept them for up to 15 more minutes."
        )
        if access.connection.can_issue_tokens:
            print("A running bot gets a new one by itself.")
    return 0


def adopt(
    bot: Annotated[str, Parameter(help="The bot's name in bots.yaml.")],
    /,
    config: ConfigFile = BOTS_YAML,
    *,
    user: Annotated[
        str | None, Parameter(help="The user to be; by default the one that the bot was when it ran last.")
    ] = None,
    from_: Annotated[
        str | None, Parameter(name="--from", help="The name that the bot had before, as the store knows it.")
    ] = None,
    yes: Yes = False,
    format: Format = "text",
) -> int:
    """Give a bot the user that it was before it was renamed, or before its store was lost."""
    if user is not None and from_ is not None:
        print("chatbot identity adopt: give only one of --user and --from", file=sys.stderr)
        return EXIT_USAGE
    settings = load_config(config, os.environ)
    if bot not in settings.bots:
        message = f"{config} names no bot {bot!r}; it names: {', '.join(settings.bots)}"
        raise UnknownName(message)
    if settings.bots[bot].user is not None:
        message = f"bots.yaml names the user of {bot}, which takes precedence: remove `user:` there first"
        raise StateError(message)
    with logging_to(sys.stderr, format="console", level="error"):
        question = _adoption(config, settings, bot, user, from_)
        records = ask_bots(config, {"ask": "identity list"})["bots"]
        present = [one for one in records if one["name"] == bot and question["resource"] in ("", one["resource"])]
        if present and present[0]["user"] != question.get("user"):
            sentence = f"{bot} is {printable(present[0]['user'])} now, and will be in none of its threads. Go on?"
            if not confirmed(sentence, yes=yes, command="chatbot identity adopt"):
                return EXIT_USAGE
        answer = ask_bots(config, question)
    if format == "json":
        print(json.dumps(answer, indent=2))
    else:
        print(f"{printable(bot)} goes on as {printable(answer['user'])} when it is started, or at the next reload.")
    return 0


def _adoption(config: Path, settings: Config, bot: str, user: str | None, old: str | None) -> Mapping[str, Any]:
    """Return the request that names the user, the resource, and since when messages are answered."""
    question: dict[str, Any] = {"ask": "identity adopt", "bot": bot, "resource": "", "user": user, "from": old}
    if old is not None:
        return question
    access = service_access(config)
    resource = access.connection.resource
    if user is None:
        noted = noted_users(settings, resource)
        if bot not in noted:
            message = f"which user was {bot}? Nothing tells it: name it with --user, or its old name with --from"
            raise StateError(message)
        user = noted[bot]
    # The service tells its time, and at once whether it takes this user for one of the resource.
    since_ms = anyio.run(_time_for, access, UserId(user))
    return {**question, "resource": resource, "user": user, "since_ms": since_ms}


async def _time_for(access: ServiceAccess, user: UserId) -> int:
    async with access.connection.open() as resource:
        return await server_ms_of(resource.chat(user, access.connection.tokens(resource, user)))


@dataclass(frozen=True, slots=True)
class _Issued:
    """A token; `expires` is in epoch seconds."""

    text: str = field(repr=False)
    expires: int

    def as_json(self) -> Mapping[str, Any]:
        return {"token": self.text, "token_expires_on": self.expires}


# ── the service ───────────────────────────────────────────────────────────────────────────────────────────────────


async def _create(
    access: ServiceAccess, config: Path, name: str | None, is_token_wanted: bool, lifetime: timedelta | None
) -> tuple[UserId, _Issued | None]:
    known = access.bot(name) if name is not None else None
    if known is not None and known.user is not None:
        message = f"the bot {known.name} already has a user: {printable(known.user)}"
        raise StateError(message)
    async with access.connection.open() as resource:
        user = await resource.create_user()
        if known is not None:
            since = await server_ms_of(resource.chat(user, access.connection.tokens(resource, user)))
            await _save_user(config, BotRecord(known.name, access.connection.resource, user, since))
        return user, await _issued(resource, user, lifetime) if is_token_wanted else None


async def _save_user(config: Path, record: BotRecord) -> None:
    """Store the user as the bot's first start does: messages sent to it from now on are handled once the bot runs."""
    settings = await anyio.to_thread.run_sync(load_config, config, os.environ)
    url, base_dir = settings.store.get_secret_value(), settings.directory
    existing = await anyio.to_thread.run_sync(partial(open_between_runs, url, base_dir=base_dir))
    async with existing or open_store(url, base_dir=base_dir) as store:
        await store.commit(record.user, [SaveBot(record)])


async def _issue(access: ServiceAccess, user: UserId, lifetime: timedelta | None) -> _Issued:
    async with access.connection.open() as resource:
        return await _issued(resource, user, lifetime)


async def _issued(resource: AcsResource, user: UserId, lifetime: timedelta | None) -> _Issued:
    token = await resource.issue_token(user, lifetime=lifetime)
    return _Issued(token.token, int(token.expires_on))


async def _revoke(access: ServiceAccess, user: UserId) -> None:
    async with access.connection.open() as resource:
        await resource.revoke_tokens(user)


@dataclass(frozen=True, slots=True)
class _Identity:
    """A bot, where its user is stored, and its token: the expiry (epoch seconds), or why there is none."""

    bot: KnownBot
    stored_in: str
    expires: int | None
    problem: str | None

    def as_json(self) -> Mapping[str, Any]:
        return {
            "bot": self.bot.name,
            "user": self.bot.user,
            "remembered": self.stored_in,
            "token_expires_on": self.expires,
            "trouble": self.problem,
        }


async def _identities(access: ServiceAccess, bots: Sequence[KnownBot]) -> list[_Identity]:
    if access.daemon is not None:
        found = (await ask(access.daemon, {"ask": "status"}))["bots"]
        running = {bot["name"]: bot for bot in found}
        return [_running_identity(access, bot, running[bot.name]) for bot in bots]
    async with access.connection.open() as resource:
        return [await _identity(access, resource, bot) for bot in bots]


def _running_identity(access: ServiceAccess, bot: KnownBot, status: Mapping[str, Any]) -> _Identity:
    """Return the identity with the token of the running bot."""
    left = status["token_seconds_left"]
    expires = None if left is None else int(datetime.now(UTC).timestamp()) + left
    problem = None if left is not None and left > 0 else "the running bot has no valid token; see its log"
    return _Identity(bot, _stored_in(access, bot), expires, problem)


async def _identity(access: ServiceAccess, resource: AcsResource, bot: KnownBot) -> _Identity:
    """Return the identity with a token that is requested now."""
    where = _stored_in(access, bot)
    if bot.user is None:
        return _Identity(bot, where, None, None)
    try:
        token = await access.connection.tokens(resource, bot.user, bot.settings).get_token()
    except ServiceError as error:
        return _Identity(bot, where, None, str(error))
    return _Identity(bot, where, int(token.expires_on), None)


def _stored_in(access: ServiceAccess, bot: KnownBot) -> str:
    if bot.settings is not None and bot.settings.user is not None:
        return "bots.yaml"
    if bot.user is None:
        return "nowhere yet: created at the first start"
    if bot.record is None:
        return "the store of the running bots"
    return f"the store, since {datetime.fromtimestamp(bot.record.first_started_ms / 1000, UTC):%Y-%m-%d}"


# ── output ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _check_options(is_token_wanted: bool, lifetime: timedelta | None) -> int | None:
    if lifetime is None:
        return None
    if not is_token_wanted:
        print("chatbot identity: --lifetime requires --token", file=sys.stderr)
        return EXIT_USAGE
    if not MIN_LIFETIME <= lifetime <= MAX_LIFETIME:
        print(f"chatbot identity: {format_duration(lifetime)} is not a valid lifetime; use 1h to 24h", file=sys.stderr)
        return EXIT_USAGE
    return None


def _format_identities(access: ServiceAccess, identities: Sequence[_Identity]) -> Iterator[str]:
    yield f"{access.connection.endpoint}, {access.connection.authentication}"
    yield ""
    rows = [(one.bot.name, one.bot.user or "-", one.stored_in, _validity(one)) for one in identities]
    yield from table(("BOT", "USER", "STORED IN", "TOKEN"), rows)
    yield from (f"{one.bot.name}: {printable(one.problem)}" for one in identities if one.problem)


def _validity(identity: _Identity) -> str:
    if identity.expires is None:
        return "none" if identity.problem else "-"
    left = timedelta(seconds=max(0, round(identity.expires - datetime.now(UTC).timestamp())))
    return f"for {format_duration(left)}" if left < timedelta(days=365) else "of unknown duration"


def _print_token_warning(user: UserId, issued: _Issued) -> None:
    until = datetime.fromtimestamp(issued.expires, UTC)
    print(
        f"Anybody with this token can act as {printable(user)} until {until:%Y-%m-%d %H:%M} UTC. "
        "Keep it out of files that others can read; `chatbot identity revoke` revokes it.",
        file=sys.stderr,
    )
