"""Masks for what tells who somebody is: names, ids, e-mail addresses, phone numbers. Pure.

The same thing gets the same mask throughout, so that a masked conversation still makes sense to a bot.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final

from chatbot.model import UserId

# fmt: off
NAMES: Final = (
    "Ann", "Ben", "Cat", "Dan", "Eve", "Fay", "Gus", "Hal", "Ida", "Jon", "Kim", "Leo", "Mia",
    "Ned", "Ola", "Pia", "Ray", "Sue", "Tom", "Uma", "Vic", "Wes", "Xia", "Yan", "Zoe",
)
# fmt: on

_PATTERNS: Final[Mapping[str, str]] = {
    "thread": r"19:[\w-]+@thread\.\w+",
    "user": r"(?<!\w)(?:8|28|48):[a-z]+:[\w.:+-]*\w|(?<!\w)4:\+?\d{5,}",
    "email": r"[\w.+%-]+@[\w-]+(?:\.[\w-]+)+",
    "uuid": r"(?<!\w)[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}(?!\w)",
    "token": r"(?<![\w-])(?=[\w-]*[0-9])(?=[\w-]*[A-Za-z])[\w-]{20,}",
    "phone": r"(?<![\w.])(?![0-9]{4}-[0-9]{2}-[0-9]{2}(?![0-9]))(?:\+|\()?[0-9][0-9 ()/.-]{5,}[0-9](?!\w)",
}
_MASKS: Final[Mapping[str, str]] = {
    "thread": "19:thread{}@thread.v2",
    "user": "8:acs:user{}",
    "email": "person{}@example.com",
    "uuid": "00000000-0000-0000-0000-{:012}",
    "token": "id{}",
    "phone": "+1 555 01{:02}",
}
_FEWEST_DIGITS: Final = 7
_SHORTEST_PART: Final = 3
_PARTICLES: Final = {"and", "das", "del", "den", "der", "die", "dos", "las", "les", "los", "the", "van", "von"}
"""What stands in names and everywhere else, too."""


class Masks:
    """The masks of one conversation.

    Args:
        people: everybody in it, in the order in which they are to be named, with the names they go by.
        bots: what is not to be masked: the bots' names.
    """

    def __init__(self, people: Mapping[UserId, str | None], bots: Collection[str] = ()) -> None:
        self._taken = {name.casefold() for name in bots}
        self._people: dict[UserId, str] = {}
        self._masks: dict[str, str] = {}
        self._counts = dict.fromkeys(_MASKS, 0)
        for user, name in people.items():
            self._learn(self.person(user), name or "")
        self._pattern = self._compiled()

    def person(self, user: UserId) -> str:
        """The name that somebody gets instead of their own."""
        if user not in self._people:
            free = [name for name in NAMES if name.casefold() not in self._taken]
            self._people[user] = free[0] if free else f"Person {len(self._people) + 1}"
            self._taken.add(self._people[user].casefold())
        return self._people[user]

    def text(self, text: str) -> str:
        """A text with everything masked."""
        return self._pattern.sub(self._mask, text)

    def _learn(self, mask: str, name: str) -> None:
        """Mask a name as a whole, and each of its parts, in any case."""
        parts = [part for part in re.findall(r"\w+", name) if len(part) >= _SHORTEST_PART]
        for known in (name.strip(), *parts):
            if known and known.casefold() not in _PARTICLES:
                self._masks.setdefault(known.casefold(), mask)

    def _compiled(self) -> re.Pattern[str]:
        kinds = [f"(?P<{kind}>{pattern})" for kind, pattern in _PATTERNS.items()]
        names = "|".join(re.escape(name) for name in sorted(self._masks, key=len, reverse=True))
        if names:
            kinds.append(rf"(?i:(?<!\w)(?:{names})(?!\w))")
        return re.compile("|".join(kinds))

    def _mask(self, found: re.Match[str]) -> str:
        value, kind = found[0], found.lastgroup
        if kind == "phone" and not _is_phone(value):
            return value
        key = value.casefold()
        if kind is not None and key not in self._masks:
            self._counts[kind] += 1
            self._masks[key] = _MASKS[kind].format(self._counts[kind])
        return self._masks.get(key, value)


def _is_phone(value: str) -> bool:
    """Many digits, and not only small numbers in a row."""
    has_group = re.search(r"[0-9]{3}", value) is not None
    return has_group and sum(character.isdigit() for character in value) >= _FEWEST_DIGITS
