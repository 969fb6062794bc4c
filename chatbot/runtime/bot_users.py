"""Detect bots that would start as a new user although they had a user before.

A bot's user is stored under the bot's name. Without the store, or under another name, the bot would get a new user,
which is in none of its threads and unknown to everybody. Two places reveal that: `.chatbot/identities.json` survives a
lost store, and the store survives a renamed bot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

from chatbot.config import Config
from chatbot.errors import StateError, UnknownName
from chatbot.model import UserId
from chatbot.runtime.run_directory import ControlDirectory
from chatbot.stores.base import Store
from chatbot.stores.records import BotRecord
from chatbot.stores.url import is_in_memory
from chatbot.stores.writes import RenameBot, SaveBot

FACTS: Final = "identities"

ALLOW: Final = "--allow-new-users (or `allow_new_users: true`) starts it as a new user"


class LostIdentity(Struct, frozen=True):
    """A bot that would get a new user.

    Args:
        bot: the bot's name in bots.yaml.
        candidates: the users that it may have had, by bot name; under its own name if the store has lost it.
    """

    bot: str
    candidates: Mapping[str, UserId]

    @property
    def problem(self) -> str:
        """The problem, as a sentence."""
        if self.bot in self.candidates:
            return (
                f"the store does not know the bot {self.bot}, which was the user {self.candidates[self.bot]}: "
                "the store was lost, or bots.yaml names another one"
            )
        known = ", ".join(f"{name} ({user})" for name, user in self.candidates.items())
        return f"the store does not know the bot {self.bot}, but one that bots.yaml lacks: {known}; was it renamed?"

    @property
    def remedy(self) -> str:
        """The remedy, as a sentence."""
        if self.bot in self.candidates:
            return f"restore the store, or continue as that user: chatbot identity adopt {self.bot}; {ALLOW}"
        old = next(iter(self.candidates)) if len(self.candidates) == 1 else "OLD"
        return f"continue as the same user: chatbot identity adopt {self.bot} --from {old}; {ALLOW}"

    def __str__(self) -> str:
        return f"{self.problem}; {self.remedy}"


def noted_users(config: Config, resource: str) -> dict[str, UserId]:
    """Return the users of the bots of this bots.yaml at their last start, by name.

    Raises:
        StoreError: the file cannot be read.
    """
    found = _noted(ControlDirectory(config.directory).read_facts(FACTS), config.path.name).get(resource)
    return {str(name): UserId(str(user)) for name, user in found.items()} if isinstance(found, dict) else {}


def note_users(config: Config, resource: str, users: Mapping[str, UserId]) -> None:
    """Store the users of the bots.

    Raises:
        StoreError: the file cannot be written.
    """
    control = ControlDirectory(config.directory)
    facts = control.read_facts(FACTS)
    noted = _noted(facts, config.path.name)
    if noted.get(resource) != users:
        control.write_facts(FACTS, {**facts, config.path.name: {**noted, resource: dict(users)}})


def _noted(facts: Mapping[str, object], file: str) -> dict[str, object]:
    # By file, because two bots.yaml in one directory, each with its own store, do not rename each other's bots.
    found = facts.get(file)
    return dict(found) if isinstance(found, dict) else {}


def lost_identities(
    config: Config, resource: str, stored: Sequence[BotRecord], noted: Mapping[str, UserId]
) -> list[LostIdentity]:
    """Return the bots that would get a new user although they, or their predecessors, had one.

    Args:
        config: the configuration that is to run.
        resource: the resource of the service.
        stored: the identities in the store. A store in memory is always empty after a restart: nothing is lost there.
        noted: from `noted_users`.
    """
    if is_in_memory(config.store.get_secret_value()):
        return []
    records = {record.name: record for record in stored if record.resource == resource}
    taken = {bot.user for bot in config.bots.values()} | {
        record.user for name, record in records.items() if name in config.bots
    }
    known = {**noted, **{name: record.user for name, record in records.items()}}
    orphans = {
        name: user
        for name, user in sorted(known.items())
        if name not in config.bots and user not in taken and not (name in records and records[name].is_retired)
    }
    lost: list[LostIdentity] = []
    for name, bot in config.bots.items():
        if bot.user is not None or name in records:
            continue
        before = noted.get(name)
        candidates = {name: before} if before is not None and before not in taken else orphans
        if candidates:
            lost.append(LostIdentity(name, candidates))
    return lost


async def adopt(store: Store, name: str, *, resource: str, user: UserId | None, old: str | None, since_ms: int) -> str:
    """Assign a bot the user that it, or another bot, had before; return that user.

    Args:
        store: opened by the caller.
        name: the bot's name in bots.yaml.
        resource: the resource of the service; "" if `old` tells it.
        user: the user.
        old: or the name of the bot in the store that it continues.
        since_ms: for `user`: older messages are not answered, epoch ms.

    Raises:
        UnknownName: the store does not know the old bot.
        StateError: the old bot has run on several resources, and which one is meant is not known.
        StoreError: the store cannot be written.
    """
    if old is None:
        if user is None:
            message = "name the user with --user, or the former name of the bot with --from"
            raise StateError(message)
        await store.commit(user, [SaveBot(BotRecord(name, resource, user, since_ms))])
        return user
    record = _record_of(old, resource, await store.bots())
    await store.commit(record.user, [RenameBot(old, name, record.resource)])
    return record.user


def _record_of(name: str, resource: str, records: Sequence[BotRecord]) -> BotRecord:
    found = [one for one in records if one.name == name and resource in ("", one.resource)]
    if len(found) == 1:
        return found[0]
    if found:
        message = f"the bot {name} has run on several resources; start the bots, or set the service, to select one"
        raise StateError(message)
    known = ", ".join(sorted({one.name for one in records})) or "none"
    message = f"the store knows no bot {name!r}; it knows: {known}"
    raise UnknownName(message)
