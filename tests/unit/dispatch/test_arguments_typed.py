"""What people type, as phones, Teams, keyboards of all scripts and pasted text have it: each line with its reading."""

import re
import time
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Literal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot import BotInfo, Context, Plugin, Rest, UserId, mentioned, regex, text
from chatbot.dispatch.event_view import EventView
from chatbot.normalization import INVISIBLE, Normalized, fold, fold_name, normalize
from chatbot.testing import EventStream

BOT = BotInfo("helper", UserId("8:acs:bot"), "Helper")
HELP = ("помощь", "été", "帮助", "مساعدة", "도움", "ヘルプ", "βοήθεια", "עזרה", "मदद", "ช่วย", "über")
_ESCAPE = re.compile(r"\\(u[0-9a-f]{4}|U[0-9a-f]{8}|[nrt\\])")
_SIGNS = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}


def unescaped(written: str) -> str:
    return _ESCAPE.sub(lambda found: _SIGNS.get(found[1]) or chr(int(found[1][1:], 16)), written)


def corpus() -> list[tuple[str, str, str]]:
    lines = Path(__file__).with_name("typed.tsv").read_text(encoding="utf-8").splitlines()
    rows = [tuple(map(unescaped, line.split("\t"))) for line in lines if not line.startswith("#")]
    return [(who, typed, reading) for who, typed, reading in rows]


def helper() -> Plugin:
    plugin = Plugin("helper")

    @plugin.command("roll")
    async def roll(ctx: Context, count: int, sides: int | None = None) -> str:
        return f"roll {count} {sides or '-'}"

    @plugin.command("size")
    async def size(ctx: Context, size: float) -> str:
        return f"size {size}"

    @plugin.command("when")
    async def when(ctx: Context, day: date) -> str:
        return f"when {day}"

    @plugin.command("wait")
    async def wait(ctx: Context, delay: timedelta) -> str:
        return f"wait {delay.total_seconds():g}"

    @plugin.command("id")
    async def identify(ctx: Context, id: UUID) -> str:
        return f"id {str(id)[:8]}"

    @plugin.command("pair")
    async def pair(ctx: Context, first: str, second: str) -> str:
        return f"pair {first}|{second}"

    @plugin.command("note")
    async def note(ctx: Context, words: Rest) -> str:
        return f"note {words}"

    @plugin.command("set")
    async def change(ctx: Context, name: str, *, loud: bool = False, color: Literal["red", "blue"] = "red") -> str:
        return f"set {name} {'loud' if loud else 'quiet'} {color}"

    @plugin.command("pick")
    async def pick(
        ctx: Context, what: Literal["café", "don't know", "Привет", "Straße", "λογος", "한글", "tiếng", "❤"]
    ) -> str:
        return f"pick {what}"

    for name in HELP:

        @plugin.command(name)
        async def explain(ctx: Context) -> str:
            return "help"

    @plugin.message(text("yes please"))
    async def yes(ctx: Context) -> str:
        return "yes"

    @plugin.message(text("I don't"))
    async def no(ctx: Context) -> str:
        return "no"

    @plugin.message(text(startswith="a caf", endswith="?", contains="café"))
    async def coffee(ctx: Context) -> str:
        return "coffee"

    @plugin.message(regex("^ticket № (?P<number>\\d+)$"))
    async def ticket(ctx: Context, number: int) -> str:
        return f"ticket {number}"

    @plugin.message(regex("^order (?P<number>[a-z]-\\d+)$"))
    async def order(ctx: Context, number: str) -> str:
        return f"order {number}"

    @plugin.message(mentioned)
    async def called(ctx: Context) -> str:
        return "mentioned"

    @plugin.message()
    async def others(ctx: Context) -> str:
        return "text"

    return plugin


PLUGIN = helper()


@pytest.mark.parametrize(("who", "typed", "reading"), corpus())
async def test_what_people_type_is_read_as_they_mean_it(who: str, typed: str, reading: str) -> None:
    stream = EventStream(bot=BOT)
    ann = stream.user("Ann")
    stream += [ann.said(html=typed) if "(html)" in who else ann.said(typed)]

    replies = (await stream.into(PLUGIN)).replies

    if reading == "usage":
        assert "Usage: /" in replies[0]
    else:
        assert replies == ([] if reading == "-" else [reading])


@pytest.mark.parametrize(
    "typed", [typed for who, typed, _ in corpus() if "(html)" not in who and "msft-mention" not in typed]
)
def test_the_text_that_a_handler_sees_is_what_was_typed(typed: str) -> None:
    assert EventView(EventStream(bot=BOT).user("Ann").said(typed), BOT).text == typed


_TYPED = st.text(
    alphabet=st.one_of(
        st.sampled_from(
            "aé/@ =\u0338\u00ad\u0301\u0308\u200b\u200c\u200d\ufe0f\r\n\u1112\u1161\u11ab\u0915\u09c7\u09be👨"
            "🏴\U000e0067“’—２"
        ),
        st.characters(),
    ),
    max_size=30,
)


@given(_TYPED)
def test_normalized_text_stays_as_it_is(typed: str) -> None:
    assert normalize(normalize(typed)) == normalize(typed)
    assert fold(fold(typed)) == fold(typed)


@given(_TYPED)
def test_every_normalized_character_has_its_place_in_the_original(typed: str) -> None:
    normalized = Normalized(typed)
    places = [normalized.original_at(at) for at in range(len(normalized.text) + 1)]

    assert places == sorted(places)
    assert places[-1] == len(typed)
    for char, (first, last) in zip(normalized.text, pairwise(places), strict=True):
        if last - first == 1 and char not in "\u200c\u200d\U000e0067":  # what these are depends on their neighbors
            assert char in normalize(typed[first])  # which can be several: U+FB1D is always decomposed


@given(_TYPED, st.sampled_from(INVISIBLE), st.integers(0, 30))
def test_invisible_marks_change_nothing_that_is_compared(typed: str, mark: str, at: int) -> None:
    assert fold_name(typed + mark) == fold_name(mark + typed) == fold_name(typed)


@pytest.mark.parametrize(
    "piece",
    ["/", "@Helper ", "“a ", "'", "\u200d", "\U000e0067", "e\u0301", "<msft-mention id=a>", "@", "\u200b", "— "],
)
@pytest.mark.parametrize("begin", ["", "/pair ", "@Helper "])
async def test_reading_takes_no_longer_than_the_length_asks_for(begin: str, piece: str) -> None:
    stream = EventStream(bot=BOT)
    ann = stream.user("Ann")
    typed = begin + piece * (27_000 // len(piece.encode()))
    stream += [ann.said(typed), ann.said(html=typed)]
    began = time.process_time()

    await stream.into(PLUGIN)

    assert time.process_time() - began < 2
