"""Filters: select the events that a handler receives. Combine them with `&`, `|` and `~`.

A synchronous function from an event to a bool is a filter too. A match may yield named texts (the groups of a `regex`),
which are passed to the handler's parameters of the same names.
"""

from __future__ import annotations

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from chatbot.actions import expect_result
from chatbot.dispatch.event_view import EventView
from chatbot.dispatch.plugin_tasks import call_as_plugin
from chatbot.dispatch.source_location import place_of, place_of_caller
from chatbot.errors import PluginError
from chatbot.events import Event
from chatbot.model import MessageType, ThreadId, UserId, Value
from chatbot.normalization import fold, spell

Found: TypeAlias = Mapping[str, str | None]
"""The named texts of a match; None for a group that did not participate."""

_USER: Final = re.compile(r"\d+:")
"""The prefix of every user id: 8:acs:, 8:orgid:, 4:+ and so on."""

NOTHING: Final[Found] = MappingProxyType({})
"""A match without named texts."""


class Filter(ABC):
    """Selects the events of a handler; combine filters with `&`, `|` and `~`."""

    __slots__ = ()

    @property
    def names(self) -> frozenset[str]:
        """Return the names of the texts that a match may yield."""
        return frozenset()

    @abstractmethod
    def match(self, view: EventView) -> Found | None:
        """Return the named texts if the event matches, else None."""

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
"""A filter, or a function that is used as one."""


def as_filter(value: FilterLike) -> Filter:
    """Return a filter unchanged, or wrap a synchronous predicate.

    Raises:
        TypeError: the value is neither. An async function is rejected, because a coroutine is always true; so are a
            generator function and a class.
    """
    if isinstance(value, Filter):
        if is_unfinished_function(type(value).match):
            msg = f"the filter {type(value).__name__} has a match() that is async, or yields; write a plain method"
            raise TypeError(msg)
        return value
    if not callable(value) or isinstance(value, type):
        msg = f"{value!r} is not a filter; use one of chatbot's filters or a function from an event to a bool"
        raise TypeError(msg)
    makers: tuple[object, ...] = (text, regex, from_user, in_thread)
    if value in makers:
        msg = f"{value.__name__} makes filters; call it, as in {value.__name__}(…)"
        raise TypeError(msg)
    if is_unfinished_function(value):
        name = name_of_filter(value)
        msg = f"the filter {name} is async, or yields; a filter is a plain function from an event to a bool"
        raise TypeError(msg)
    return _Predicate(value)


def finder(filter: Filter, what: Callable[[], str]) -> Callable[[EventView], Found | None]:
    """Return the function that applies a filter. Classes of a plugin run as code of the plugin, and are checked.

    Args:
        filter: the filter.
        what: returns what it is, for error messages.
    """
    if not _is_of_plugin(filter):
        return filter.match

    def find(view: EventView) -> Found | None:
        found = call_as_plugin(filter.match, view)
        if found is None or isinstance(found, Mapping):
            return found
        expect_result(found, what())
        msg = f"{what()} returned {type(found).__name__}; match() returns a dict or None"
        raise TypeError(msg)

    return find


def part_of(filter: Filter | None) -> str:
    """Return a text that occurs in every plain text that the filter matches; empty if none is known.

    A message without it need not be shown to the filter, because the filter would only look for this text first.
    """
    match filter:
        case _Regex(part=part):
            return part
        case _Both(first=first):
            return part_of(first)
    return ""


def _is_of_plugin(filter: Filter) -> bool:
    match filter:
        case _Pair(first=first, second=second):
            return _is_of_plugin(first) or _is_of_plugin(second)
        case _Not(inner=inner):
            return _is_of_plugin(inner)
    return type(filter).__module__.partition(".")[0] != __name__.partition(".")[0]


def is_unfinished_function(function: object) -> bool:
    """Return whether calling this gives a coroutine or a generator rather than a result."""
    called = function if inspect.isroutine(function) or isinstance(function, partial) else type(function).__call__
    return any(is_such(called) for is_such in (iscoroutinefunction, isgeneratorfunction, isasyncgenfunction))


def name_of_filter(function: object) -> str:
    """Return a name for people: filters may be functions, partial functions and objects that can be called."""
    while isinstance(function, partial):
        function = function.func
    return str(getattr(function, "__name__", None) or type(function).__name__)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _Predicate(Value, Filter):
    predicate: Callable[[Event], bool]

    def match(self, view: EventView) -> Found | None:
        verdict = call_as_plugin(self.predicate, view.event)
        if verdict is True:
            return NOTHING
        if verdict is False:
            return None
        what = f"{place_of(self.predicate)}: the filter {name_of_filter(self.predicate)}"
        return NOTHING if expect_result(verdict, what) else None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _Pair(Value, Filter):
    first: Filter
    second: Filter

    @property
    def names(self) -> frozenset[str]:
        return self.first.names | self.second.names


class _Both(_Pair):
    __slots__ = ()

    def match(self, view: EventView) -> Found | None:
        first = self.first.match(view)
        if first is None:
            return None
        second = self.second.match(view)
        return None if second is None else {**first, **second}


class _Either(_Pair):
    __slots__ = ()

    def match(self, view: EventView) -> Found | None:
        first = self.first.match(view)
        return self.second.match(view) if first is None else first


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _Not(Value, Filter):
    inner: Filter

    def match(self, view: EventView) -> Found | None:
        return NOTHING if self.inner.match(view) is None else None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _Test(Value, Filter):
    """A filter that only needs a test of the event."""

    description: str
    test: Callable[[EventView], bool]

    def __repr__(self) -> str:
        return self.description

    def match(self, view: EventView) -> Found | None:
        return NOTHING if self.test(view) else None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _Regex(Value, Filter):
    """A filter that searches for a pattern.

    `part` occurs in every match. Most messages do not contain it, and looking for it is much faster than a search.
    """

    pattern: re.Pattern[str]
    part: str

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self.pattern.groupindex)

    def match(self, view: EventView) -> Found | None:
        if self.part in view.text and (found := self.pattern.search(view.text)) is not None:
            return found.groupdict()
        if view.is_plain or (typed := view.normalized_if_different) is None:
            return None
        if (found := self.pattern.search(typed.text)) is None:
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
    """Match messages by their plain text; all given conditions must hold.

    Different encodings of accents, spaces, quotation marks, dashes and full-width letters are equal, and invisible
    characters are ignored.

    Args:
        texts: the whole text, without surrounding white space, equals one of these.
        equals: the keyword form of `texts`: `text(equals="hi")` is `text("hi")`.
        startswith: the text starts with this, or with one of these.
        endswith: the text ends with this, or with one of these.
        contains: the text contains this, or one of these.
        ignore_case: whether "Hi" matches "hi".
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
    """Match messages whose plain text contains the pattern (anchor it with ^ and $ to match the whole text).

    A parameter of the handler with the name of a group receives the text of the group, converted to the parameter's
    type. A message whose text cannot be converted does not match. If a group did not participate, the parameter keeps
    its default.

    If the original text does not match, the normalized text is tried: with plain spaces, quotation marks and dashes,
    composed accents, and without invisible characters. Groups always contain the original characters.

    Raises:
        PluginError: the pattern is not a valid regular expression.
    """
    try:
        compiled = re.compile(pattern, flags)
        return _Regex(compiled, _part_of_every_match(compiled))
    except (re.error, TypeError, ValueError) as error:
        msg = f"{place_of_caller()}: {pattern!r} is not a regular expression: {error}"
        raise PluginError(msg) from None


def _part_of_every_match(pattern: re.Pattern[str]) -> str:
    """Return the longest literal text at the top level of a pattern; empty if there is none, or case is ignored."""
    if pattern.flags & re.IGNORECASE or not isinstance(pattern.pattern, str):
        return ""
    parts = [""]
    # Python has no public parser of patterns. Without this one, every message is searched.
    parser: Any = getattr(re, "_parser", None)
    for operation, argument in parser.parse(pattern.pattern, pattern.flags & ~re.DEBUG) if parser else ():
        if str(operation) == "LITERAL":
            parts[-1] += chr(argument)
        else:
            parts.append("")
    return max(parts, key=len)


def from_user(*users: UserId) -> Filter:
    """Match messages sent by one of these users.

    Raises:
        PluginError: a value is not a user id, for example a name.
    """
    for user in users:
        if not _USER.match(user):
            msg = f"{place_of_caller()}: from_user({user!r}) never matches; write a user's id, such as 8:acs:…"
            raise PluginError(msg)
    return _Test(f"from_user{users!r}", lambda view: view.message is not None and view.message.sender in users)


def in_thread(*threads: ThreadId) -> Filter:
    """Match events of one of these threads."""
    return _Test(f"in_thread{threads!r}", lambda view: view.thread in threads)


mentioned: Final[Filter] = _Test("mentioned", lambda view: view.is_mentioned)
"""Match messages that mention the bot: by its id, or by its display name as a whole word, with or without @."""

is_html: Final[Filter] = _Test(
    "is_html", lambda view: view.message is not None and view.message.type is MessageType.HTML
)
"""Match messages of type html."""

has_attachment: Final[Filter] = _Test("has_attachment", lambda view: bool(view.message and view.message.attachments))
"""Match messages with attachments."""

has_text: Final[Filter] = _Test("has_text", lambda view: view.has_text)
"""Match messages that have text, rather than only attachments."""

admin: Final[Filter] = _Test("admin", lambda view: view.message is not None and view.message.sender in view.bot.admins)
"""Match messages sent by the bot's `admins` in bots.yaml."""
