"""Which events a handler wants: filters are values, combined with `&`, `|` and `~`.

A plain function from an event to a bool is a filter too. A filter that matches may find named texts (the groups of
a `regex`), which the handler receives through parameters of the same names.
"""

from __future__ import annotations

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias

from chatbot.dispatch.event_view import EventView
from chatbot.dispatch.source_location import place_of_caller
from chatbot.errors import PluginError
from chatbot.events import Event
from chatbot.model import MessageType, ThreadId, UserId
from chatbot.normalization import fold, spell

Found: TypeAlias = Mapping[str, str | None]
"""The named texts of a match; None for a group that took no part in it."""

_USER: Final = re.compile(r"\d+:")
"""How every id of a user begins: 8:acs:, 8:orgid:, 4:+ and so on."""

NOTHING: Final[Found] = MappingProxyType({})
"""A match that found no named texts."""


class Filter(ABC):
    """Says whether a handler wants an event; combine filters with `&`, `|` and `~`."""

    __slots__ = ()

    @property
    def names(self) -> frozenset[str]:
        """The names of the texts that a match may find."""
        return frozenset()

    @abstractmethod
    def match(self, view: EventView) -> Found | None:
        """The named texts if the event matches, None if it does not."""

    def __and__(self, other: FilterLike) -> Filter:
        return _Both(self, as_filter(other))

    def __rand__(self, other: FilterLike) -> Filter:
        return _Both(as_filter(other), self)

    def __or__(self, other: FilterLike) -> Filter:
        return _Either(self, as_filter(other))

    def __ror__(self, other: FilterLike) -> Filter:
        return _Either(as_filter(other), self)

    def __invert__(self) -> Filter:
        return _Not(self)


FilterLike: TypeAlias = Filter | Callable[[Event], bool]
"""What stands where a filter is wanted."""


def as_filter(value: FilterLike) -> Filter:
    """A filter as it is, or a plain predicate as a filter.

    Raises:
        TypeError: it is neither. An async function is refused: what it returns would always be true.
    """
    if isinstance(value, Filter):
        return value
    if not callable(value):
        msg = f"{value!r} is not a filter; use one of chatbot's filters or a function from an event to a bool"
        raise TypeError(msg)
    makers: tuple[object, ...] = (text, regex, from_user, in_thread)
    if value in makers:
        msg = f"{value.__name__} makes filters; call it, as in {value.__name__}(…)"
        raise TypeError(msg)
    if inspect.iscoroutinefunction(value):
        msg = f"the filter {value.__name__} is async; a filter is a plain function from an event to a bool"
        raise TypeError(msg)
    return _Predicate(value)


@dataclass(frozen=True, slots=True)
class _Predicate(Filter):
    predicate: Callable[[Event], bool]

    def match(self, view: EventView) -> Found | None:
        return NOTHING if self.predicate(view.event) else None


@dataclass(frozen=True, slots=True)
class _Both(Filter):
    first: Filter
    second: Filter

    @property
    def names(self) -> frozenset[str]:
        return self.first.names | self.second.names

    def match(self, view: EventView) -> Found | None:
        first = self.first.match(view)
        if first is None:
            return None
        second = self.second.match(view)
        return None if second is None else {**first, **second}


@dataclass(frozen=True, slots=True)
class _Either(Filter):
    first: Filter
    second: Filter

    @property
    def names(self) -> frozenset[str]:
        return self.first.names | self.second.names

    def match(self, view: EventView) -> Found | None:
        first = self.first.match(view)
        return self.second.match(view) if first is None else first


@dataclass(frozen=True, slots=True)
class _Not(Filter):
    inner: Filter

    def match(self, view: EventView) -> Found | None:
        return NOTHING if self.inner.match(view) is None else None


@dataclass(frozen=True, slots=True)
class _Test(Filter):
    """One of the filters below that need no more than a look."""

    description: str
    test: Callable[[EventView], bool]

    def __repr__(self) -> str:
        return self.description

    def match(self, view: EventView) -> Found | None:
        return NOTHING if self.test(view) else None


@dataclass(frozen=True, slots=True)
class _Regex(Filter):
    pattern: re.Pattern[str]

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self.pattern.groupindex)

    def match(self, view: EventView) -> Found | None:
        found = self.pattern.search(view.text)
        if found is not None:
            return found.groupdict()
        typed = view.typed_otherwise
        if typed is None or (found := self.pattern.search(typed.text)) is None:
            return None
        spans = {name: found.span(name) for name in self.pattern.groupindex}
        return {
            name: None if first < 0 else view.text[typed.original_at(first) : typed.original_at(last)]
            for name, (first, last) in spans.items()
        }


def text(
    *texts: str,
    equals: str | tuple[str, ...] = (),
    startswith: str | tuple[str, ...] = "",
    endswith: str | tuple[str, ...] = "",
    contains: str | tuple[str, ...] = "",
    ignore_case: bool = True,
) -> Filter:
    """Messages by their plain text; everything that is given must hold.

    Accents, spaces, quotation marks, dashes and full-width letters count as the same however they were typed, and
    invisible marks do not count.

    Args:
        texts: the whole text, apart from white space around it, is one of these.
        equals: the same, by name: `text(equals="hi")` is `text("hi")`.
        startswith: it begins with this, or with one of these.
        endswith: it ends with this, or with one of these.
        contains: it holds this, or one of these, somewhere.
        ignore_case: whether "Hi" is "hi".
    """

    compared = fold if ignore_case else spell

    def fold_all(values: str | tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(compared, (values,) if isinstance(values, str) else values))

    wanted, begins, ends, inside = (
        {compared(value).strip() for value in (*texts, *((equals,) if isinstance(equals, str) else equals))},
        fold_all(startswith),
        fold_all(endswith),
        fold_all(contains),
    )

    def test(view: EventView) -> bool:
        said = view.folded_text if ignore_case else view.spelled_text
        is_wanted = not wanted or said in wanted
        return is_wanted and said.startswith(begins) and said.endswith(ends) and any(part in said for part in inside)

    return _Test(f"text({', '.join(map(repr, texts)) or '…'})", test)


def regex(pattern: str | re.Pattern[str], flags: int = 0) -> Filter:
    """Messages in whose plain text the pattern is found anywhere (anchor it with ^ and $ for less).

    A handler's parameter with the name of a group receives what the group matched, converted to the parameter's
    type; text that does not convert does not match. A group that took no part leaves the parameter its default.

    Where the text as it was typed does not match, the text with plain spaces, quotation marks and dashes, composed
    accents and without invisible marks is tried; groups are the person's characters all the same.

    Raises:
        PluginError: the pattern is not a regular expression.
    """
    try:
        return _Regex(re.compile(pattern, flags))
    except (re.error, TypeError, ValueError) as error:
        msg = f"{place_of_caller()}: {pattern!r} is no regular expression: {error}"
        raise PluginError(msg) from None


def from_user(*users: UserId) -> Filter:
    """Messages written by one of these.

    Raises:
        PluginError: one of them is no user id, such as a name.
    """
    for user in users:
        if not _USER.match(user):
            msg = f"{place_of_caller()}: from_user({user!r}) never matches; write a user's id, such as 8:acs:…"
            raise PluginError(msg)
    return _Test(f"from_user{users!r}", lambda view: view.message is not None and view.message.sender in users)


def in_thread(*threads: ThreadId) -> Filter:
    """Events of one of these threads."""
    return _Test(f"in_thread{threads!r}", lambda view: view.thread in threads)


mentioned: Final[Filter] = _Test("mentioned", lambda view: view.is_mentioned)
"""Messages that mention the bot: by its id, or by its display name as a whole word, with or without @."""

is_html: Final[Filter] = _Test(
    "is_html", lambda view: view.message is not None and view.message.type is MessageType.HTML
)
"""Messages that were written as html."""

has_attachment: Final[Filter] = _Test("has_attachment", lambda view: bool(view.message and view.message.attachments))
"""Messages with something attached."""

has_text: Final[Filter] = _Test("has_text", lambda view: view.has_text)
"""Messages that say something, rather than only carry attachments."""

admin: Final[Filter] = _Test("admin", lambda view: view.message is not None and view.message.sender in view.bot.admins)
"""Messages of the bot's `admins` in bots.yaml."""
