"""Record the messages of a thread as the steps of a script, with personal data masked. Pure.

Masked are names, ids, e-mail addresses, phone numbers and the like. The same value gets the same mask throughout, so
that a masked conversation still makes sense to a bot.
"""

from __future__ import annotations

import math
import re
import sys
import unicodedata
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from datetime import timedelta
from ipaddress import ip_address
from typing import Final

from chatbot.dispatch.plaintext import plain_text
from chatbot.model import ChatMessage, MessageType, UserId
from chatbot.testing.chat_files.script import Script, ScriptStep, Verb, as_written

# fmt: off
NAMES: Final = (
    "Ann", "Ben", "Cat", "Dan", "Eve", "Fay", "Gus", "Hal", "Ida", "Jon", "Kim", "Leo", "Mia",
    "Ned", "Ola", "Pia", "Ray", "Sue", "Tom", "Uma", "Vic", "Wes", "Xia", "Yan", "Zoe",
)
# fmt: on

# Every repetition is possessive, bounded, or can begin only at the start of its run. Otherwise a hostile text could
# take more than linear time.
_PATTERNS: Final[Mapping[str, str]] = {
    "thread": r"19:[\w-]++@thread\.\w+",
    "user": r"(?<!\w)(?:8|28|48):[a-z]{1,20}+:[\w.:+-]{0,200}\w|(?<!\w)4:\+?\d{5,20}",
    "email": r"(?<![\w.+%-])[\w.+%-]++@[\w-]++(?:\.[\w-]++)++",
    "uuid": r"(?<!\w)[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}(?!\w)",
    "iban": r"(?<![^\W_])[A-Za-z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,3})?(?![^\W_])"
    r"|(?<![^\W_])[a-z]{2}[0-9]{2}[a-z0-9]{11,30}(?![^\W_])",
    "address": r"(?<![\w.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?!\w|\.\w)",
    "address6": r"(?<![\w:.])(?:[0-9a-fA-F]{0,4}:){2,7}(?:[0-9a-fA-F]{0,4}|(?:[0-9]{1,3}\.){3}[0-9]{1,3})(?![\w:])",
    "token": r"(?<![\w-])(?=[\w-]*[0-9])(?=[\w-]*[A-Za-z])[\w-]{20,}+",
    "phone": r"(?<![\w.])(?![0-9]{4}-[0-9]{2}-[0-9]{2}(?![0-9]))(?:\+|\()?[0-9][0-9 ()/.-]{5,28}[0-9](?!\w)",
}
_MASKS: Final[Mapping[str, str]] = {
    "thread": "19:thread{}@thread.v2",
    "user": "8:acs:user{}",
    "email": "person{}@example.com",
    "uuid": "00000000-0000-0000-0000-{:012}",
    "iban": "XX00 0000 0000 {:04}",
    "address": "192.0.2.{}",
    "address6": "2001:db8::{:x}",
    "token": "id{}",
    "phone": "+1 555 01{:02}",
}
_MIN_PHONE_DIGITS: Final = 7
_MIN_NAME_PART: Final = 3
# fmt: off
_PARTICLES: Final = frozenset((
    "and", "bin", "das", "del", "dela", "della", "den", "der", "die", "dos", "ibn", "las", "les", "los", "the", "ten",
    "ter", "van", "von", "vom", "zum", "zur",
))
# fmt: on
"""Particles of names that are also common words."""

_APOSTROPHES: Final = "'`\u00b4\u2018\u2019\u02bc\uff07"
_WORD: Final = re.compile(rf"\w+(?:[{_APOSTROPHES}]\w+)*")
_WITHOUT_SPACES: Final = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1100-\u11ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff]"
)
"""Letters of scripts that do not separate words by spaces, or attach particles to them: Thai, Lao, Burmese, Khmer,
Korean, Japanese, Chinese."""


class Masks:
    """The masks of one conversation.

    Args:
        people: all people in it, in the order in which they are named, with the names that they use.
        bots: the bots' names, which are not masked.
    """

    def __init__(self, people: Mapping[UserId, str | None], bots: Collection[str] = ()) -> None:
        self._taken = {name.casefold() for name in bots}
        self._people: dict[UserId, str] = {}
        self._masks: dict[str, str] = {}
        self._names: list[str] = []
        self._counts = dict.fromkeys(_MASKS, 0)
        for user, name in people.items():
            self._learn(self.person(user), name or "")
        self._pattern = self._compiled()
        self._only_names = re.compile(self._any_name()) if self._names else None

    def person(self, user: UserId) -> str:
        """Return the name that replaces a person's own."""
        if user not in self._people:
            free = [name for name in NAMES if name.casefold() not in self._taken]
            self._people[user] = free[0] if free else f"Person {len(self._people) + 1}"
            self._taken.add(self._people[user].casefold())
        return self._people[user]

    def text(self, text: str) -> str:
        """Return a text with everything masked, in Unicode form NFC."""
        return self._pattern.sub(self._mask, unicodedata.normalize("NFC", text))

    def _learn(self, mask: str, name: str) -> None:
        """Mask a name as a whole, and each of its parts, in any case."""
        name = unicodedata.normalize("NFC", name).strip()
        for word in _WORD.findall(name):
            for part in (word, *re.split(f"[{_APOSTROPHES}]", word)):
                if len(part) >= _MIN_NAME_PART and part.casefold() not in _PARTICLES:
                    self._masks.setdefault(_key(part), mask)
                    self._names.append(part)
            for part in _parts_without_spaces(word):
                self._masks.setdefault(_key(part), mask)
                self._names.append(part)
        for whole in (name, *(word for word in name.split() if "-" in word)):
            if _key(whole):
                self._masks.setdefault(_key(whole), mask)
                self._names.append(whole)

    def _compiled(self) -> re.Pattern[str]:
        kinds = [f"(?P<{kind}>{pattern})" for kind, pattern in _PATTERNS.items()]
        if self._names:
            kinds.append(self._any_name())
        return re.compile("|".join(kinds))

    def _any_name(self) -> str:
        names = "|".join(_pattern_of(name) for name in sorted(set(self._names), key=len, reverse=True))
        return f"(?i:{names})"

    def _mask(self, found: re.Match[str]) -> str:
        value, kind = found[0], found.lastgroup
        if (kind == "phone" and not _is_phone(value)) or (kind in ("address", "address6") and not _is_address(value)):
            return self._only_names.sub(self._mask, value) if self._only_names else value
        key = value.casefold() if kind is not None else _key(value)
        if kind is not None and key not in self._masks:
            self._counts[kind] += 1
            self._masks[key] = _MASKS[kind].format(self._counts[kind])
        return self._masks.get(key, value)


def _key(name: str) -> str:
    """Return a name without blanks, apostrophes, hyphens and case, so that all ways to write it compare equal."""
    return re.sub(r"[\W_]+", "", name.casefold())


def _pattern_of(name: str) -> str:
    """Return a pattern for a name: any separator or none between its words, any apostrophe or none."""
    words = [re.escape(word) for word in re.split(r"[\W_]+", name) if word]
    pattern = r"(?:[^\w\n]|_){0,3}".join(words)
    is_open = _WITHOUT_SPACES.search(name) is not None
    return pattern if is_open else rf"(?<![^\W_]){pattern}(?![^\W_])"


def _parts_without_spaces(word: str) -> list[str]:
    """Return given name and two-letter family name of a name written without a space: 王小明, 山田太郎, 김민수."""
    if not all(_WITHOUT_SPACES.match(letter) for letter in word):
        return []
    if len(word) == 2:
        return [word]
    parts = [word[1:]] if len(word) == 3 else [word[:2], word[2:]]
    return parts if len(word) in (3, 4) else []


def _is_address(value: str) -> bool:
    try:
        ip_address(value)
    except ValueError:
        return False
    return True


def _is_phone(value: str) -> bool:
    """Return whether a match is a phone number: many digits, and not just a row of small numbers."""
    has_group = re.search(r"[0-9]{3}", value) is not None
    return has_group and sum(character.isdigit() for character in value) >= _MIN_PHONE_DIGITS


MAX_SERIES: Final = 150
"""Messages of one person in a row in a pytest test; after 200 answers loop protection ends them until a pause."""

PAUSE_MS: Final = 60_000
"""Shorter pauses are left out."""


def record_steps(messages: Sequence[ChatMessage], bots: Mapping[UserId, str]) -> list[ScriptStep]:
    """Convert messages to steps, with their current texts and without deleted ones.

    Args:
        messages: of one thread, in any order.
        bots: the bots' names, which are kept.
    """
    ordered = sorted(messages, key=lambda one: one.number)
    recorder = _Recorder(bots, Masks(_people(ordered, bots), bots.values()))
    return list(recorder.steps(ordered))


def _people(messages: Sequence[ChatMessage], bots: Mapping[UserId, str]) -> dict[UserId, str | None]:
    """Return all people in order of appearance, with the latest name that they used."""
    people: dict[UserId, str | None] = {}
    for message in messages:
        named = [(one.user, one.display_name) for one in message.participants]
        for user, name in [*named, (message.initiator, None), (message.sender, message.sender_display_name)]:
            if user is not None and user not in bots:
                people[user] = name or people.get(user)
    return people


_LINE_ENDS: Final = re.compile("\r\n|[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_CONTROLS: Final = re.compile("[\0-\x08\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_HALF_PAIRS: Final = re.compile("[\ud800-\udfff]")


def without_controls(text: str) -> str:
    """Return the text as a file can hold it: line feeds only, no control characters, no lone surrogates."""
    return _HALF_PAIRS.sub("\ufffd", _CONTROLS.sub("", _LINE_ENDS.sub("\n", text)))


class _Recorder:
    """Converts the messages of one thread to steps."""

    def __init__(self, bots: Mapping[UserId, str], masks: Masks) -> None:
        self._bots = bots
        self._masks = masks
        self._present: set[UserId] = set()
        self._removed: set[UserId] = set()

    def steps(self, messages: Sequence[ChatMessage]) -> Iterator[ScriptStep]:
        before: int | None = None
        for message in messages:
            steps = list(self._steps(message))
            if not steps:
                continue
            if before is not None and message.number - before >= PAUSE_MS:
                yield ScriptStep(
                    Verb.WAITS, duration=timedelta(minutes=math.ceil((message.number - before) / PAUSE_MS))
                )
            before = message.number
            yield from steps

    def _steps(self, message: ChatMessage) -> Iterator[ScriptStep]:
        if message.is_said:
            yield from self._said(message)
        elif message.type is MessageType.PARTICIPANT_ADDED:
            yield from self._added(message)
        elif message.type is MessageType.PARTICIPANT_REMOVED:
            yield from self._left(message)
        elif message.type is MessageType.TOPIC_UPDATED and message.initiator is not None:
            yield ScriptStep(
                Verb.RENAMES,
                self._name(message.initiator),
                " ".join(self._masks.text(without_controls(message.topic or "")).split()),
            )

    def _said(self, message: ChatMessage) -> Iterator[ScriptStep]:
        text = without_controls(plain_text(message.content) if message.type is MessageType.HTML else message.content)
        if message.sender is not None and message.deleted_on is None and as_written(text):
            yield ScriptStep(Verb.SAYS, self._name(message.sender), self._masks.text(text))

    def _added(self, message: ChatMessage) -> Iterator[ScriptStep]:
        people = [one.user for one in message.participants if one.user not in self._bots]
        back = [one.user for one in message.participants if one.user in self._removed]
        host = message.initiator if message.initiator in self._present else None
        if host is None or host in people:
            yield from (ScriptStep(Verb.JOINS, self._name(user)) for user in people)
            arrived = back if host is not None else []
        else:
            arrived = [*people, *back]
        if arrived and host is not None:
            yield ScriptStep(Verb.ADDS, self._name(host), ", ".join(self._name(user) for user in arrived))
        self._present.update(people)
        self._removed.difference_update(back)

    def _left(self, message: ChatMessage) -> Iterator[ScriptStep]:
        for user in (one.user for one in message.participants):
            self._present.discard(user)
            if user not in self._bots or message.initiator in (user, None):
                yield ScriptStep(Verb.LEAVES, self._name(user))
            elif message.initiator is not None:
                yield ScriptStep(Verb.REMOVES, self._name(message.initiator), self._name(user))
            if user in self._bots:
                self._removed.add(user)

    def _name(self, user: UserId) -> str:
        return self._bots.get(user) or self._masks.person(user)


def as_pytest(script: Script) -> str:
    """Return a recorded conversation as a pytest test. Replies are compared for each bot by itself, as in `.chat`."""
    plugins = {reference: _plugin_in(reference) for role in script.roles for reference in role.plugins}
    imports = [f"from {reference} import {name} as {_variable(reference)}" for reference, name in plugins.items()]
    bots = {role.name: [_variable(reference) for reference in role.plugins] for role in script.roles}
    shown = ", ".join(f"{name!r}: [{', '.join(given)}]" for name, given in bots.items())
    people: dict[str, str] = {}
    for step in script.steps:
        for name in (step.who, *(step.others if step.verb in (Verb.ADDS, Verb.REMOVES) else ())):
            if name and name not in bots and name not in people:
                people[name] = f"person_{len(people) + 1}" if not name.isidentifier() else name.lower()
    lines = [f"{variable} = room.user({name!r})" for name, variable in people.items()]
    lines += [line for step in _with_pauses(script.steps, bots) if (line := _as_code(step, people)) is not None]
    for name in bots:
        replies = [as_written(step.text) for step in script.steps if step.verb is Verb.SAYS and step.who == name]
        lines.append(f"assert [text for who, text in room.said if who == {name!r}] == [")
        lines += [*(f"    {text!r}," for text in replies), "]"]
    body = "\n".join(f"        {line}" for line in lines)
    return (
        "import pytest\n\nfrom chatbot.testing import chat\n"
        + "\n".join(imports)
        + "\n\n\n@pytest.mark.virtual_time\nasync def test_recorded_conversation() -> None:\n"
        + f"    async with chat(bots={{{shown}}}) as room:\n{body}\n"
    )


def _with_pauses(steps: Sequence[ScriptStep], bots: Container[str]) -> Iterator[ScriptStep]:
    """Yield the steps with a pause in long series of one person, which loop protection would take for a bot's."""
    who, count = "", 0
    for step in steps:
        if step.verb is Verb.WAITS or (step.verb is Verb.SAYS and step.who not in bots and step.who != who):
            count = 0
        if step.verb is Verb.SAYS and step.who not in bots:
            who, count = step.who, count + 1
            if count > MAX_SERIES:
                yield ScriptStep(Verb.WAITS, duration=timedelta(minutes=1))
                count = 1
        yield step


def _as_code(step: ScriptStep, people: Mapping[str, str]) -> str | None:
    """Return the call that performs a step; None for what a bot did."""
    if step.verb is Verb.WAITS:
        return f"await room.advance(minutes={math.ceil(step.duration.total_seconds() / 60)})"
    who = people.get(step.who)
    if who is None:
        return None
    others = ", ".join(people.get(name, f"room.bots[{name!r}]") for name in step.others)
    match step.verb:
        case Verb.SAYS:
            return f"await {who}.says({as_written(step.text)!r})"
        case Verb.RENAMES:
            return f"await {who}.renames({step.text!r})"
        case Verb.JOINS | Verb.LEAVES:
            return f"await {who}.{step.verb}()"
        case Verb.ADDS | Verb.REMOVES:
            return f"await {who}.{step.verb}({others})"
    return None


def _variable(reference: str) -> str:
    return re.sub(r"\W", "_", reference.rpartition(".")[2])


def _plugin_in(reference: str) -> str:
    """Return the name of the plugin in its module, which a running bot has imported."""
    from chatbot.plugin import Plugin

    module = sys.modules.get(reference)
    return (
        next((name for name, value in vars(module).items() if isinstance(value, Plugin)), "plugin")
        if module
        else "plugin"
    )
