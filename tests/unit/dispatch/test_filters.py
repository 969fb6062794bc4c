import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot import (
    Attachment,
    BotInfo,
    Event,
    Filter,
    MessageReceived,
    ThreadId,
    UserId,
    from_user,
    has_attachment,
    in_thread,
    is_html,
    mentioned,
    regex,
    text,
)
from chatbot.dispatch.event_view import EventView
from chatbot.dispatch.filters import FilterLike, as_filter, has_text
from chatbot.testing import EventStream
from tests.unit.dispatch.talk import BOT


def matches(wanted: FilterLike, event: Event) -> bool:
    return as_filter(wanted).match(EventView(event, BOT)) is not None


def said(words: str = "", html: str | None = None) -> MessageReceived:
    return EventStream(bot=BOT).user("Ann").said(words, html=html)


def is_long(event: Event) -> bool:
    return isinstance(event, MessageReceived) and len(event.message.content) > 3


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (text("hi"), " Hi "),
        (text("hi", "hello"), "hello"),
        (text(startswith="!"), "!now"),
        (text(startswith=("a", "b")), "Bee"),
        (text(endswith="?"), "why?"),
        (text(contains="bot"), "A Robot"),
        (text(contains=("cat", "bot")), "A Robot"),
        (text(equals="Hi"), " hi "),
        (text("ho", equals=("hi", "hello")), "Hello"),
        (text("Hi", ignore_case=False), "Hi"),
        (regex(r"\d+"), "route 66"),
        (regex(re.compile("^HI", re.IGNORECASE)), "hi there"),
        (mentioned, "help desk, are you there?"),
        (mentioned, "ask @Help Desk"),
        (mentioned, "(Help  desk)"),
        (text("hi") | text("hello"), "hello"),
        (text(startswith="a") & text(endswith="z"), "abcz"),
        (~text("hi"), "hello"),
        (is_long, "long enough"),
        (text("long enough") & is_long, "long enough"),
        (is_long & text("long enough"), "long enough"),
        (is_long | text("hi"), "hi"),
        (has_text, "x"),
    ],
)
def test_a_filter_takes_what_it_describes(wanted: FilterLike, words: str) -> None:
    assert matches(wanted, said(words))


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (text("hi"), "hi there"),
        (text("hi", startswith="x"), "hi"),
        (text("Hi", ignore_case=False), "hi"),
        (regex("^there"), "hi there"),
        (mentioned, "the Help desks"),
        (mentioned, "unhelp desk"),
        (text("hi") & text("hello"), "hi"),
        (text("hi") | text("hello"), "bye"),
        (~text("hi"), "hi"),
        (is_long, "no"),
        (has_text, " \n"),
        (is_html, "<p>hi</p>"),
        (has_attachment, "none"),
    ],
)
def test_a_filter_leaves_everything_else(wanted: FilterLike, words: str) -> None:
    assert not matches(wanted, said(words))


def test_text_filters_read_html_as_plain_text() -> None:
    event = said(html="<p>fish &amp; chips</p>")

    assert matches(text("fish & chips") & is_html, event)


def test_users_threads_and_attachments_are_filtered_by_what_they_are() -> None:
    stream = EventStream(thread=ThreadId("19:here@thread.v2"))
    ann = stream.user("Ann")
    event = ann.said(attachments=(Attachment("1", "file"),))

    assert matches(from_user(ann.user) & in_thread(stream.thread) & has_attachment, event)
    assert not matches(from_user(UserId("8:acs:somebody")), event)
    assert not matches(in_thread(ThreadId("19:there@thread.v2")), event)


def test_a_bot_without_a_display_name_is_never_mentioned() -> None:
    assert not EventView(said("hi"), BotInfo("x", UserId("8:acs:x"), " ")).is_mentioned


def test_named_groups_of_combined_filters_come_together() -> None:
    both = regex(r"(?P<from_>\w+) to") & regex(r"to (?P<to>\w+)")
    either = regex(r"^at (?P<hour>\d+)") | both

    assert both.match(EventView(said("Rome to Oslo"), BOT)) == {"from_": "Rome", "to": "Oslo"}
    assert either.match(EventView(said("at 7"), BOT)) == {"hour": "7"}
    assert either.names == {"from_", "to", "hour"}
    assert (~both).names == frozenset()


@pytest.mark.parametrize("wrong", ["hi", 3, None])
def test_what_is_no_filter_is_refused(wrong: object) -> None:
    with pytest.raises(TypeError, match="is not a filter"):
        as_filter(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("maker", [text, regex, from_user, in_thread])
def test_what_makes_filters_is_not_taken_for_one(maker: Any) -> None:
    with pytest.raises(TypeError, match=rf"{maker.__name__} makes filters; call it, as in {maker.__name__}\("):
        as_filter(maker)


def test_an_async_predicate_is_refused_because_it_would_always_match() -> None:
    async def is_good(event: Event) -> bool:
        return False

    with pytest.raises(TypeError, match="the filter is_good is async"):
        as_filter(is_good)  # type: ignore[arg-type]


def test_filters_are_values_with_a_readable_repr() -> None:
    assert isinstance(mentioned, Filter)
    assert repr(mentioned) == "mentioned"
    assert regex("a") == regex("a")


async def looks_up(event: Event) -> bool:
    return True


def yields(event: Event) -> Iterator[bool]:
    yield False


class Asynchronous:
    async def __call__(self, event: Event) -> bool:
        return True


class AsyncFilter(Filter):
    async def match(self, view: EventView) -> dict[str, str | None]:  # type: ignore[override]
        return {}


@pytest.mark.parametrize("value", [looks_up, partial(looks_up), yields, Asynchronous(), AsyncFilter(), bool])
def test_what_gives_no_verdict_is_refused_where_a_filter_is_wanted(value: Any) -> None:
    with pytest.raises(TypeError, match=r"filter"):
        as_filter(value)


@pytest.mark.parametrize("wrong", [lambda event: looks_up(event), lambda event: yields(event)])
def test_a_verdict_that_is_always_true_as_it_has_not_begun_is_an_error(wrong: Any) -> None:
    for wanted in (as_filter(wrong), ~as_filter(wrong), mentioned | wrong):
        with pytest.raises(TypeError, match=r"test_filters\.py:\d+: the filter .* returned a (coroutine|generator)"):
            wanted.match(EventView(said("x"), BOT))


@pytest.mark.parametrize("verdict", [True, 1, "x", re.compile("x").search("x")])
def test_what_is_true_is_a_match(verdict: Any) -> None:
    assert matches(lambda event: verdict, said("x"))


ATOMS = st.sampled_from(
    ["a", "b", "ab", "abc", ".", r"\b", "[ab]", "[^a]", r"\w", "^", "$", "(?i:ab)", "(?=ab)", "(?<!a)"]
)


def patterns() -> st.SearchStrategy[str]:
    def larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.one_of(
            st.lists(inner, min_size=1, max_size=4).map("".join),
            st.lists(inner, min_size=2, max_size=3).map("|".join),
            inner.map(lambda part: f"({part})"),
            st.tuples(inner, st.sampled_from(["?", "*", "+", "{2}", "{0,1}", "*?"])).map(
                lambda pair: f"(?:{pair[0]}){pair[1]}"
            ),
        )

    return st.recursive(ATOMS, larger, max_leaves=8)


@given(patterns(), st.sampled_from([0, re.IGNORECASE, re.VERBOSE, re.ASCII]), st.text("abcAB x1", max_size=8))
def test_a_regex_finds_whatever_python_finds(pattern: str, flags: int, words: str) -> None:
    found = re.search(pattern, words, flags) is not None
    assert matches(regex(pattern, flags), said(words)) == found


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("colou?r", "color"),
        ("cat|dog", "a dog"),
        ("cat|car", "a car"),
        ("(?i)HELP", "help"),
        ("(?x) he  lp  # a comment", "help"),
        (r"(a)?b(?(1)c|d)", "bd"),
        (r"(?:really )*sure", "sure"),
        (r"ﬁx it", "ﬁx it"),
        (r"it's", "it’s"),  # found in the normalized text only
    ],
)
def test_a_regex_is_not_skipped_for_a_text_that_matches_need_not_contain(pattern: str, words: str) -> None:
    assert matches(regex(pattern), said(words))
