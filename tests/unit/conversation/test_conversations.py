"""What a bot has going on: learnt through its commits, the same as the store knows."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from chatbot import BotInfo, DialogTimedOut, ScheduleFired, TimerFired, UserId
from chatbot.conversation import Conversations, unit_of_work
from chatbot.conversation.journal import Entry, JournalStep, dump
from chatbot.conversation.schedules import Every
from chatbot.events import MessageReceived
from chatbot.stores import MemoryStore
from chatbot.stores.records import DialogRecord, ThreadRecord, TimerRecord
from chatbot.stores.writes import DropTimer, EnterThread, LeaveThread, SaveDialog, SaveThread, SetTimer
from chatbot.testing import EventStream

BOT = BotInfo("bot", UserId("8:acs:test_bot"), "Bot")
STREAM = EventStream(bot=BOT)
ANN, BOB = STREAM.user("Ann"), STREAM.user("Bob")
HOURLY = Every(timedelta(hours=1))
HOUR = 3_600_000


class Clock:
    """Epoch seconds, as a test says."""

    def __init__(self) -> None:
        self.ms = 1000

    def __call__(self) -> float:
        return self.ms / 1000


def waiting(event: MessageReceived, deadline_ms: int | None = None, **fields: object) -> DialogRecord:
    record = unit_of_work.new_dialog_record(event, "shop.order", 0)
    journal = dump([Entry(JournalStep.BEGAN), Entry(JournalStep.ASKED, "mark")])
    return replace(record, journal=journal, is_waiting=True, deadline_ms=deadline_ms, **fields)  # type: ignore[arg-type]


def timer(id: str, due_ms: int, **fields: object) -> TimerRecord:
    values = {"thread": STREAM.thread, "caused_by": ANN.user} | fields
    return TimerRecord(id, "shop.remind", due_ms, **values)  # type: ignore[arg-type]


async def test_a_due_timer_fires_in_order_and_stays_until_it_is_committed() -> None:
    store, clock = MemoryStore(), Clock()
    async with store:
        conversations = Conversations(BOT.user, store, clock=clock)
        await conversations.load({"shop.sweep": HOURLY})
        changed = conversations.changed
        await conversations.commit([SetTimer(timer("k1", 5000)), SetTimer(timer("k2", 4000))])
        assert changed.is_set()
        assert conversations.collect_due() == set()
        assert conversations.first_due(STREAM.thread) is None

        clock.ms = HOUR + 1000
        assert conversations.is_due(None)
        assert conversations.collect_due() == {None, STREAM.thread}
        for _ in range(2):
            due = conversations.first_due(STREAM.thread)
            assert due is not None
            event, writes = due
            assert isinstance(event, TimerFired)
            assert (event.id, writes) == ("k2", [DropTimer("k2")])
        await conversations.commit(writes)
        assert conversations.is_due(STREAM.thread)
        scheduled = conversations.first_due(None)
        assert scheduled is not None
        assert isinstance(scheduled[0], ScheduleFired)
        await conversations.commit(scheduled[1])
        assert conversations.first_due(None) is None
        assert conversations.next_due_ms() == 2 * HOUR + 1000

        again = Conversations(BOT.user, store, clock=clock)
        await again.load({"shop.sweep": HOURLY})
        assert again.collect_due() == {STREAM.thread}
        assert again.next_due_ms() == 2 * HOUR + 1000


async def test_a_removed_schedule_ends_and_a_changed_one_starts_over() -> None:
    store, clock = MemoryStore(), Clock()
    async with store:
        conversations = Conversations(BOT.user, store, clock=clock)
        await conversations.load({"shop.sweep": HOURLY, "shop.count": HOURLY})
        clock.ms += 10 * HOUR
        await conversations.reschedule({"shop.sweep": Every(timedelta(hours=2))})

        assert [(one.handler, one.due_ms) for one in await store.timers(BOT.user)] == [("shop.sweep", 12 * HOUR + 1000)]
        assert conversations.collect_due() == set()


async def test_a_message_goes_to_the_dialog_of_its_user_that_asked_last() -> None:
    store, clock = MemoryStore(), Clock()
    older, newer = waiting(ANN.said("/a"), changed_ms=1), waiting(ANN.said("/b"), changed_ms=2)
    async with store:
        conversations = Conversations(BOT.user, store, clock=clock)
        await conversations.load({})
        await conversations.commit([SaveDialog(newer), SaveDialog(older)])
        assert conversations.unit_of_work(ANN.said("x")).pending == older
        assert conversations.unit_of_work(BOB.said("x")).pending is None
        assert conversations.unit_of_work(ANN.edited("y")).pending is None

        again = Conversations(BOT.user, store, clock=clock)
        await again.load({})
        assert again.unit_of_work(ANN.said("x")).pending == newer
        assert again.unit_of_work(newer.event).pending == newer
        assert again.unit_of_work(older.event).pending == older
        assert again.dialogs_like(newer) == [older.id]


async def test_an_overdue_dialog_is_informed_once() -> None:
    store, clock = MemoryStore(), Clock()
    record = waiting(ANN.said("/a"), deadline_ms=2000)
    async with store:
        conversations = Conversations(BOT.user, store, clock=clock)
        await conversations.commit([SaveDialog(record)])
        clock.ms = 2000
        assert conversations.collect_due() == {STREAM.thread}
        due = conversations.first_due(STREAM.thread)
        assert due is not None
        event, writes = due
        assert isinstance(event, DialogTimedOut)
        assert event.key == f"overdue:{record.id}@1"
        assert conversations.unit_of_work(event).pending == record
        await conversations.commit(writes)

        assert conversations.first_due(STREAM.thread) is None
        assert conversations.next_due_ms() is None


async def test_an_erased_user_has_no_dialogs_and_nothing_is_due_in_left_threads() -> None:
    store, clock = MemoryStore(), Clock()
    async with store:
        conversations = Conversations(BOT.user, store, clock=clock)
        begin = SaveThread(ThreadRecord(STREAM.thread, 0, 0))
        hers, his = waiting(ANN.said("/a")), waiting(BOB.said("/b"), deadline_ms=9000)
        named = timer("k2", 3000, caused_by=BOB.user, payload=f'{{"who":"{ANN.user}"}}')
        await conversations.commit([begin, SaveDialog(hers), SaveDialog(his)])
        await conversations.commit(
            [SetTimer(timer("k1", 2000)), SetTimer(named), SetTimer(timer("k3", 4000, caused_by=None))]
        )
        conversations.erase(ANN.user)

        assert conversations.unit_of_work(ANN.said("x")).pending is None
        assert conversations.unit_of_work(BOB.said("x")).pending == his
        assert conversations.next_due_ms() == 4000

        await conversations.commit([LeaveThread(STREAM.thread, 7)])
        assert conversations.unit_of_work(BOB.said("x")).pending == his
        assert conversations.next_due_ms() is None

        again = Conversations(BOT.user, store, clock=clock)
        await again.load({}, parked=[STREAM.thread])
        assert again.next_due_ms() is None

        for one in (conversations, again):
            await one.commit([EnterThread(STREAM.thread)])
            assert one.next_due_ms() is not None

        given_up = conversations.give_up(STREAM.thread, "the bot is not in the thread")
        await conversations.commit(given_up)
        dead_letters = await store.dead_letters(BOT.user)
        assert {letter.handler for letter in dead_letters} >= {his.handler}
        assert not conversations.has_pending(STREAM.thread)
        assert his not in await store.dialogs(BOT.user)
        assert "k3" not in {record.id for record in await store.timers(BOT.user)}


@given(error_hours=st.integers(-100_000, 100_000), is_restarted=st.booleans(), readings=st.integers(1, 8))
async def test_a_timer_set_by_a_wrong_clock_fires_when_its_time_has_passed(
    error_hours: int, is_restarted: bool, readings: int
) -> None:
    true_ms = 1_700_000_000_000
    store, clock = MemoryStore(), Clock()
    clock.ms = true_ms + error_hours * HOUR
    async with store:
        conversations = Conversations(BOT.user, store, clock=clock)
        await conversations.load({})
        for _ in range(readings):
            conversations.note_service_time(true_ms)
        memory = conversations.unit_of_work(ANN.said("/later"))
        memory.set_timer("k", "shop.remind", memory.now + timedelta(hours=1), "{}")
        await conversations.commit(memory.writes())

        clock.ms = true_ms + HOUR - 1  # somebody has set the clock
        if is_restarted:
            conversations = Conversations(BOT.user, store, clock=clock)
            await conversations.load({})
        for _ in range(5):
            conversations.note_service_time(clock.ms)
        assert conversations.collect_due() == set()
        clock.ms += 1
        assert conversations.collect_due() == {STREAM.thread}
        assert conversations.first_due(STREAM.thread) is not None


async def test_one_wrong_reading_of_the_services_clock_changes_nothing() -> None:
    store, clock = MemoryStore(), Clock()
    async with store:
        conversations = Conversations(BOT.user, store, clock=clock)
        for error_ms in (0, 900, -1500, 5 * HOUR, 0):
            conversations.note_service_time(clock.ms + error_ms)
            assert conversations.now_ms == clock.ms


async def test_a_timer_that_a_wrong_clock_fired_waits_until_it_is_due() -> None:
    store, clock = MemoryStore(), Clock()
    async with store:
        conversations = Conversations(BOT.user, store, clock=clock)
        await conversations.load({})
        await conversations.commit([SetTimer(timer("k", 2 * HOUR))])
        clock.ms = 5 * HOUR
        assert conversations.collect_due() == {STREAM.thread}

        conversations.note_service_time(HOUR)
        assert conversations.first_due(STREAM.thread) is None
        assert conversations.next_due_ms() == 2 * HOUR
