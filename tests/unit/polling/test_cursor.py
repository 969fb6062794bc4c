"""The cursor against a model of a thread: stale reads, equal versions, clock steps, and a crash between any commits."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from chatbot.model import ChatMessage, MessageId, MessageType
from chatbot.polling.cursor import Change, Cursor, order_key

START = 1_700_000_000_000
SLACK = 5_000


def message(identifier: int, version: int | None = None, *, is_deleted: bool = False) -> ChatMessage:
    moment_of_change = datetime.fromtimestamp((version or identifier) // 1000, UTC)
    return ChatMessage(
        id=MessageId(str(identifier)),
        version=version or identifier,
        type=MessageType.TEXT,
        created_on=datetime.fromtimestamp(identifier // 1000, UTC),
        deleted_on=moment_of_change if is_deleted else None,
    )


def test_an_unseen_message_above_the_floor_is_received_once() -> None:
    cursor = Cursor(START, START, slack_ms=SLACK)

    assert cursor.classify(message(START + 1)) is Change.RECEIVED
    cursor.mark({START + 1: START + 1})
    assert cursor.classify(message(START + 1)) is Change.NONE


def test_a_correction_does_not_hide_the_message_it_corrects() -> None:
    """A at 100, B at 200, A corrected at 300: in one look A is new, with its current content."""
    cursor = Cursor(START, START, slack_ms=SLACK)
    a, b = message(START + 100, START + 300), message(START + 200)

    cursor.mark({b.number: b.version})

    assert cursor.classify(a) is Change.RECEIVED


def test_an_edit_of_a_seen_message_is_an_edit_and_a_tombstone_is_a_deletion() -> None:
    cursor = Cursor(START, START, slack_ms=SLACK)
    cursor.mark({START + 1: START + 1})

    assert cursor.classify(message(START + 1, START + 9)) is Change.EDITED
    assert cursor.classify(message(START + 1, START + 9, is_deleted=True)) is Change.DELETED


def test_an_edit_of_a_message_older_than_the_history_is_an_edit_and_never_a_new_message() -> None:
    cursor = Cursor(START, START, slack_ms=SLACK)

    assert cursor.classify(message(START - 50, START + 9)) is Change.EDITED
    assert cursor.classify(message(START - 50, START - 20)) is Change.NONE


def test_what_was_created_and_deleted_between_two_looks_needs_no_handler() -> None:
    cursor = Cursor(START, START, slack_ms=SLACK)

    assert cursor.classify(message(START + 1, START + 2, is_deleted=True)) is Change.VANISHED


def test_the_base_rises_only_when_the_next_whole_look_was_committed_too() -> None:
    cursor = Cursor(START, START, slack_ms=SLACK)
    top = START + 60_000
    cursor.mark({top: top})

    assert cursor.finish_full_poll(top) is None
    settled = cursor.finish_full_poll(top)

    assert settled is not None
    assert (settled.base, settled.below) == (top, top - SLACK)


def test_what_is_above_the_slack_stays_remembered_when_the_base_rises() -> None:
    cursor = Cursor(START, START, slack_ms=SLACK)
    old, recent = START + 1, START + 60_000
    cursor.mark({old: old, recent: recent})

    cursor.finish_full_poll(recent)
    cursor.finish_full_poll(recent)

    assert cursor.seen == {recent: recent}
    assert cursor.classify(message(recent)) is Change.NONE
    assert cursor.classify(message(old)) is Change.NONE


# ── against a model ───────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class ModelThread:
    """A thread as the service keeps it: ids and versions from one strictly rising counter, reads may be stale."""

    last: int = START
    messages: dict[int, ChatMessage] = field(default_factory=dict)
    stale_until: dict[int, tuple[int, ChatMessage | None]] = field(default_factory=dict)
    now: int = START
    elapsed: int = 0

    def tick(self, milliseconds: int) -> None:
        """Time passes; a negative step is the service's clock set back, while no less time passes."""
        self.now += milliseconds
        self.elapsed += abs(milliseconds)

    def _next(self) -> int:
        self.last = max(self.now, self.last + 1)
        return self.last

    def _put(self, changed: ChatMessage, lag: int) -> None:
        if lag:
            self.stale_until[changed.number] = (self.elapsed + lag, self.messages.get(changed.number))
        self.messages[changed.number] = changed

    def send(self, lag: int) -> None:
        self._put(message(self._next()), lag)

    def touch(self, index: int, lag: int, *, delete: bool) -> None:
        alive = [found for found in self.messages.values() if not found.deleted_on]
        if alive:
            old = alive[index % len(alive)]
            self._put(message(old.number, self._next(), is_deleted=delete), lag)

    def look(self, bound: int) -> list[ChatMessage]:
        shown = []
        for identifier, current in self.messages.items():
            until, before = self.stale_until.get(identifier, (0, None))
            visible = before if until > self.elapsed else current
            if visible is not None and visible.version > bound:
                shown.append(visible)
        return shown


@dataclass
class ModelBot:
    """A bot that handles one event a commit and may crash after any of them."""

    cursor: Cursor
    handled: list[tuple[Change, ChatMessage]] = field(default_factory=list)
    stored: tuple[int, dict[int, int]] = (START, {})

    def look(self, thread: ModelThread, *, brief: bool, crash_after: int | None) -> None:
        bound = max(self.cursor.top - 2_000, self.cursor.low) if brief else self.cursor.low
        shown = thread.look(bound)
        changes = sorted(((self.cursor.classify(m), m) for m in shown), key=lambda pair: order_key(*pair))
        for count, (change, found) in enumerate(changes):
            if crash_after is not None and count >= crash_after:
                self.cursor = Cursor(START, self.stored[0], self.stored[1], slack_ms=SLACK)
                return
            if change is Change.NONE:
                continue
            self.handled.append((change, found))
            self.cursor.mark({found.number: found.version})
            self.stored = (self.stored[0], {**self.stored[1], found.number: found.version})
        if not brief:
            settled = self.cursor.finish_full_poll(max((m.version for m in shown), default=None))
            if settled is not None:
                kept = {key: value for key, value in self.stored[1].items() if value > settled.below}
                self.stored = (settled.base, kept)


lags = st.sampled_from([0, 0, 0, 400, 1_500])
steps = st.one_of(
    st.tuples(st.just("send"), lags),
    st.tuples(st.just("edit"), st.integers(0, 9), lags),
    st.tuples(st.just("delete"), st.integers(0, 9), lags),
    st.tuples(st.just("tick"), st.sampled_from([0, 1, 300, 1_000, 4_000, 60_000, -2_000])),
    st.tuples(st.just("look"), st.booleans(), st.none() | st.integers(0, 3)),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(steps, max_size=60))
def test_every_message_is_received_exactly_once_and_its_last_change_is_never_missed(
    script: list[tuple[object, ...]],
) -> None:
    thread, bot = ModelThread(), ModelBot(Cursor(START, START, slack_ms=SLACK))

    for step in [*script, ("tick", 3_000), ("look", False, None), ("look", False, None)]:
        match step:
            case ("send", int(lag)):
                thread.send(lag)
            case ("edit", int(index), int(lag)):
                thread.touch(index, lag, delete=False)
            case ("delete", int(index), int(lag)):
                thread.touch(index, lag, delete=True)
            case ("tick", int(milliseconds)):
                thread.tick(milliseconds)
                if milliseconds > SLACK:  # a bot that runs looks at least once in a slack
                    bot.look(thread, brief=False, crash_after=None)
            case ("look", bool(brief), crash_after):
                bot.look(thread, brief=brief, crash_after=crash_after)  # type: ignore[arg-type]

    for identifier, current in thread.messages.items():
        changes = [(change, found) for change, found in bot.handled if found.number == identifier]
        received = [found for change, found in changes if change in (Change.RECEIVED, Change.VANISHED)]
        assert len(received) == 1, "received once"
        assert changes[-1][1].version == current.version, "the last change was seen"
        versions = [found.version for _, found in changes]
        assert versions == sorted(set(versions)), "no change twice, none out of order"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=30), st.integers(0, 30))
def test_new_messages_are_handled_in_the_order_of_their_creation_even_over_a_crash(
    gaps: list[int], crash_after: int
) -> None:
    thread, bot = ModelThread(), ModelBot(Cursor(START, START, slack_ms=SLACK))
    for gap in gaps:
        thread.tick(gap)
        thread.send(0)

    bot.look(thread, brief=False, crash_after=crash_after)
    bot.look(thread, brief=False, crash_after=None)

    order = [found.number for _, found in bot.handled]
    assert order == sorted(order)
    assert len(order) == len(gaps)


def test_a_copy_of_a_message_keeps_its_place() -> None:
    edited = replace(message(START + 1), version=START + 7)

    assert order_key(Change.RECEIVED, edited) < order_key(Change.EDITED, edited)
