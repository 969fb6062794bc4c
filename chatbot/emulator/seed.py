"""Seeds: users, threads and messages from a document, as a starting point of a demo or test.

    users: [ann, bob]
    threads:
      - topic: Lobby
        creator: ann
        participants: [bob]
        messages:
          - {from: ann, text: "Hello"}
          - {from: bob, text: "<b>Hi</b>", type: html, metadata: {mood: good}}

Names are display names and identify users in the document. Applying a seed always creates new users and threads; the
command applies it to an empty world only, so that a restarted emulator with a data file does not grow.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from chatbot.emulator.errors import ErrorResponse
from chatbot.emulator.people import UserDirectory


class SeedError(ValueError):
    """The seed document is invalid; the message names the place and what was expected."""


def load(path: Path) -> dict[str, Any]:
    """Read the document of a YAML (or JSON) file."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        msg = f"{path}: cannot be read as YAML: {error}"
        raise SeedError(msg) from error
    if not isinstance(document, dict):
        msg = f"{path}: expected a mapping with users and threads"
        raise SeedError(msg)
    return document


def apply_seed(people: UserDirectory, document: Mapping[str, Any]) -> dict[str, Any]:
    """Create the users, threads and messages of a document; return the ids by name and topic."""
    unknown = set(document) - {"users", "threads"}
    if unknown:
        msg = f"unknown key {sorted(unknown)[0]!r}; a seed has users and threads"
        raise SeedError(msg)
    users = {name: people.create_user() for name in _names(document.get("users", []), "users")}
    threads = {}
    for number, thread in enumerate(_list(document.get("threads", []), "threads")):
        place = f"threads[{number}]"
        topic, identity = _thread(people, _mapping(thread, place), users, place)
        threads[topic] = identity
    return {"users": users, "threads": threads}


def _thread(people: UserDirectory, thread: Mapping[str, Any], users: dict[str, str], place: str) -> tuple[str, str]:
    unknown = set(thread) - {"topic", "creator", "participants", "messages"}
    if unknown:
        msg = f"{place}: unknown key {sorted(unknown)[0]!r}; a thread has topic, creator, participants and messages"
        raise SeedError(msg)
    topic = _string(thread, "topic", place)
    creator = _user(users, _string(thread, "creator", place), place)
    named = _names(thread.get("participants", []), f"{place}.participants")
    others = [_user(users, name, place) for name in named]
    try:
        identity = people.create_thread(creator, topic, others, names={user: name for name, user in users.items()})
        for number, message in enumerate(_list(thread.get("messages", []), f"{place}.messages")):
            where = f"{place}.messages[{number}]"
            _message(people, identity, _mapping(message, where), users, where)
    except ErrorResponse as error:
        msg = f"{place}: the service refuses it: {error}"
        raise SeedError(msg) from error
    return topic, identity


def _message(people: UserDirectory, thread: str, message: Mapping[str, Any], users: dict[str, str], place: str) -> None:
    unknown = set(message) - {"from", "text", "type", "metadata"}
    if unknown:
        msg = f"{place}: unknown key {sorted(unknown)[0]!r}; a message has from, text, type and metadata"
        raise SeedError(msg)
    name = _string(message, "from", place)
    kind = message.get("type", "text")
    metadata = _mapping(message.get("metadata", {}), f"{place}.metadata")
    if kind not in {"text", "html"} or not all(isinstance(value, str) for value in metadata.values()):
        msg = f"{place}: type is text or html, and metadata maps strings to strings"
        raise SeedError(msg)
    people.send(
        thread,
        _user(users, name, place),
        _string(message, "text", place),
        type=kind,
        display_name=name,
        metadata={str(key): value for key, value in metadata.items()},
    )


def _user(users: Mapping[str, str], name: str, place: str) -> str:
    if name not in users:
        msg = f"{place}: {name!r} is not among the users ({', '.join(users) or 'there are none'})"
        raise SeedError(msg)
    return users[name]


def _list(value: Any, place: str) -> list[Any]:
    if not isinstance(value, list):
        msg = f"{place}: expected a list, not {value!r}"
        raise SeedError(msg)
    return value


def _names(value: Any, place: str) -> list[str]:
    for name in _list(value, place):
        if not isinstance(name, str):
            msg = f"{place}: expected names, not {name!r}"
            raise SeedError(msg)
    return list(dict.fromkeys(value))


def _mapping(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        msg = f"{place}: expected a mapping, not {value!r}"
        raise SeedError(msg)
    return value


def _string(value: Mapping[str, Any], key: str, place: str) -> str:
    text = value.get(key)
    if not isinstance(text, str) or not text:
        msg = f"{place}: {key} must be a text, not {text!r}"
        raise SeedError(msg)
    return text
