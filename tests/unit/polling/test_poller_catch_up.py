"""A deep catch-up against a model of a thread: whatever happens while it is read, order is kept and nothing is skipped.

The model pages as the service may: what changed since the walk began is shown first on a linked page and pushes the
rest down, and what does not fit is passed over; or it is not shown at all; or it moves everything down.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import anyio
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chatbot.errors import NotFound, ProtocolError
from chatbot.model import ChatMessage, MessageId, MessageType, ThreadId, UserId
from chatbot.polling.cursor import Change, Cursor
from chatbot.polling.poller import HELD_PAGES, MAX_PASSES, Poll, order_by_cursor
from chatbot.service.base import MessagePage
from chatbot.service.budget import QUOTAS, Budget, Window

pytestmark = pytest.mark.virtual_time

START = 1_700_000_000_000
SLACK = 5_000
BOT = UserId("8:acs:bot")
NO_QUOTAS = dict.fromkeys(QUOTAS, (Window(10**9, 1),))
Paging = Literal["passing", "frozen", "by number"]
Happening = Literal["say", "edit", "delete"] | None


def message(number: int, version: int, *, is_deleted: bool = False) -> ChatMessage:
    changed_on = datetime.fromtimestamp(version // 1000, UTC)
    return ChatMessage(
        id=MessageId(str(number)),
        version=version,
        type=MessageType.TEXT,
        created_on=datetime.fromtimestamp(number // 1000, UTC),
        deleted_on=changed_on if is_deleted else None,
    )


@dataclass
class ModelService:
    """One thread as the service shows it; something may happen after every request."""

    paging: Paging
    happenings: Iterator[tuple[Happening, int]]
    messages: dict[int, ChatMessage] = field(default_factory=dict)
    last: int = START
    user: UserId = BOT
    requests: int = 0

    def next_version(self) -> int:
        self.last += 1
        return self.last

    def happen(self, what: Happening, index: int) -> None:
        if what == "say":
            number = self.next_version()
            self.messages[number] = message(number, number)
            return
        alive = [found for found in self.messages.values() if not found.deleted_on]
        if what is not None and alive:
            number = alive[index % len(alive)].number
            self.messages[number] = message(number, self.next_version(), is_deleted=what == "delete")

    def let_something_happen(self) -> None:
        self.happen(*next(self.happenings, (None, 0)))

    async def list_messages(
        self, _thread: ThreadId, *, start_time: Any, page_size: int, link: str | None, known: int | None
    ) -> MessagePage:
        assert start_time is None
        assert known is None
        self.requests += 1
        timeline = sorted(self.messages.values(), key=lambda found: found.version, reverse=True)
        last, newest = (self.last + 1, self.last) if link is None else (int(part) for part in link.split())
        if self.paging == "by number" and link is not None:
            # `last` counts the messages that were given: what is said meanwhile moves all others down.
            rest = timeline[last:]
        else:
            bound = self.last if self.paging == "frozen" else newest
            rest = [found for found in timeline if found.version < last or found.version > bound]
        shown = rest[:page_size]
        self.let_something_happen()
        if len(rest) <= page_size:
            return MessagePage(tuple(shown), None, None)
        if self.paging == "by number":
            given = len(shown) if link is None else last + len(shown)
            return MessagePage(tuple(shown), f"{given} 0", None)
        if link is None or self.paging == "passing":
            newest = max(newest if link is not None else 0, shown[0].version)
        return MessagePage(tuple(shown), f"{min(last, shown[-1].version)} {newest}", None)

    async def get_message(self, _thread: ThreadId, number: MessageId) -> ChatMessage:
        self.requests += 1
        found = self.messages.get(int(number))
        self.let_something_happen()
        if found is None:
            raise NotFound("get_message", "no such message")  # pragma: no cover - messages leave tombstones
        return found


@dataclass
class ModelBot:
    """Handles one message a commit, and may be killed before any of them."""

    service: ModelService
    page_size: int
    cursor: Cursor = field(default_factory=lambda: Cursor(START, START, slack_ms=SLACK))
    handled: list[tuple[Change, ChatMessage]] = field(default_factory=list)
    stored: dict[int, int] = field(default_factory=dict)
    tops: list[int | None] = field(default_factory=list)

    async def look(self, kill_after: int | None = None) -> None:
        left = kill_after
        look = Poll(
            self.service,  # type: ignore[arg-type]
            ThreadId("19:model"),
            bound=self.cursor.low,
            budget=Budget(NO_QUOTAS),
            page_size=self.page_size,
            order_of=order_by_cursor(self.cursor),
        )
        await look.read()
        while (batch := await look.next_batch()) is not None:
            for found in batch:
                if left is not None:
                    if not left:
                        self.cursor = Cursor(START, START, self.stored, slack_ms=SLACK)
                        return
                    left -= 1
                self.handle(found)
        self.tops.append(look.top)

    def handle(self, found: ChatMessage) -> None:
        change = self.cursor.classify(found)
        if change is Change.NONE:
            return
        self.handled.append((change, found))
        self.cursor.mark({found.number: found.version})
        self.stored[found.number] = found.version
        self.service.let_something_happen()


happenings = st.tuples(st.sampled_from(["say", "say", "edit", "delete", None, None]), st.integers(0, 400))


@settings(max_examples=300, deadline=None)
@given(
    paging=st.sampled_from(["passing", "frozen", "by number"]),
    page_size=st.integers(2, 5),
    depth=st.integers(0, 90),
    before=st.lists(happenings, max_size=25),
    meanwhile=st.lists(happenings, max_size=60),
    kills=st.lists(st.integers(0, 60), max_size=3),
)
@example(paging="frozen", page_size=2, depth=3, before=[], meanwhile=[("edit", 0)], kills=[])  # the last page is empty
async def test_a_deep_catch_up_keeps_the_order_and_skips_nothing(
    paging: Paging,
    page_size: int,
    depth: int,
    before: Sequence[tuple[Happening, int]],
    meanwhile: Sequence[tuple[Happening, int]],
    kills: Sequence[int],
) -> None:
    # Busier than so many pages in a look, a thread is still read whole, but not in one look.
    within = (MAX_PASSES - 2) * page_size
    service = ModelService(paging, iter(meanwhile[:within]))
    for what, index in [*[("say", 0)] * depth, *before]:
        service.happen(what, index)  # type: ignore[arg-type]
    bot = ModelBot(service, page_size)

    for kill_after in [*kills, None, None]:
        await bot.look(kill_after)
    service.happenings = iter(())
    await bot.look()

    received = [found.number for change, found in bot.handled if change is Change.RECEIVED]
    assert received == sorted(set(received)), "in the order in which it was said, and once"
    dealt_with = {found.number: found.version for _, found in bot.handled}
    assert dealt_with == {number: found.version for number, found in service.messages.items()}
    versions: dict[int, int] = {}
    for _, found in bot.handled:
        assert found.version > versions.get(found.number, 0), "no change twice"
        versions[found.number] = found.version


async def test_a_look_that_ends_claims_nothing_that_it_has_not_yielded() -> None:
    arrivals: list[tuple[Happening, int]] = [("say", 0)] * 300
    service = ModelService("passing", iter(()))
    for _ in range(5 * (HELD_PAGES + 20)):
        service.happen("say", 0)
    bot = ModelBot(service, 5)
    service.happenings = iter([(None, 0)] * (HELD_PAGES + 25) + arrivals)  # type: ignore[list-item]

    await bot.look()

    [top] = bot.tops
    assert top is not None
    yielded = {found.number for _, found in bot.handled}
    assert yielded >= {number for number, found in service.messages.items() if found.version <= top}


async def test_a_deep_page_is_not_read_again_for_what_was_handled_before() -> None:
    service = ModelService("passing", iter(()))
    for _ in range(5 * (HELD_PAGES + 20)):
        service.happen("say", 0)
    bot = ModelBot(service, 5)
    await bot.look()
    service.requests = 0

    await bot.look()

    assert service.requests == HELD_PAGES + 20 + 1


@pytest.mark.parametrize("length", [1, 2, 3])
async def test_cyclic_page_links_fail_the_poll(length: int) -> None:
    class Circle(ModelService):
        async def list_messages(self, *args: Any, **kwargs: Any) -> MessagePage:
            self.requests += 1
            return MessagePage((), str(self.requests % length), None)

    circle = Circle("frozen", iter(()))
    look = Poll(circle, ThreadId("19:model"), bound=0, budget=Budget(NO_QUOTAS))  # type: ignore[arg-type]

    with pytest.raises(ProtocolError, match="leads back"), anyio.fail_after(60):
        await look.read()
