"""Whatever happens in a thread, lists keep their promises; and a journal keeps whatever happened."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from chatbot.emulator import Emulator, Quirks, World
from chatbot.emulator.persistence import decode, encode
from chatbot.emulator.records import Record
from tests.unit.emulator.asgi import Clock

thoroughly = settings(deadline=None, max_examples=200, derandomize=True)

happenings = st.lists(
    st.tuples(
        st.sampled_from(["send", "edit", "delete", "topic", "join", "leave", "read"]),
        st.integers(0, 30),
        st.sampled_from([-5000.0, -0.001, 0.0, 0.0, 0.0, 0.0005, 0.001, 1.0]),
    ),
    max_size=25,
)


@dataclass
class Story:
    """A thread in which things happen."""

    quirks: Quirks = field(default_factory=Quirks)

    def __post_init__(self) -> None:
        self.clock = Clock()
        self.emulator = Emulator(World(seed=1, quirks=self.quirks), clock=self.clock)
        self.records: list[Record] = []
        self.emulator.world.listen(self.records.append)
        self.ann = self.emulator.create_user()
        self.bob = self.emulator.create_user()
        self.thread = self.emulator.create_thread(self.ann, "x")
        self.said: list[int] = []

    def happen(self, what: str, which: int, seconds: float) -> None:
        self.clock.advance(seconds)
        emulator, thread, ann = self.emulator, self.thread, self.ann
        room = emulator.world.state.room(thread)
        number = self.said[which % len(self.said)] if self.said else None
        if what == "send" or (number is None and what in {"edit", "delete", "read"}):
            self.said.append(emulator.send(thread, ann, str(which)))
        elif what == "edit" and room.messages[number or 0].deleted is None:
            emulator.edit(thread, ann, number or 0, f"edited {which}")
        elif what == "delete":
            emulator.delete(thread, ann, number or 0)
        elif what == "topic":
            emulator.set_topic(thread, ann, f"topic {which}")
        elif what == "join":
            emulator.add(thread, ann, self.bob)
        elif what == "leave":
            emulator.remove(thread, ann, self.bob)
        elif what == "read":
            emulator.read(thread, ann, number or 0)

    def walk(self, size: int, between: list[tuple[str, int, float]]) -> list[tuple[int, int]]:
        """Id and version of everything a walk through the pages shows, while things happen between pages."""
        messages, room = self.emulator.world.messages, self.emulator.world.state.room(self.thread)
        seen: list[tuple[int, int]] = []
        page = messages.page(room, self.ann, size, self.emulator.now())
        for _ in range(500):
            seen += [(one.id, one.version) for one in page.messages]
            if page.next is None:
                return seen
            if between:
                self.happen(*between.pop())
            page = messages.page(room, self.ann, size, self.emulator.now(), cursor=page.next)
        raise AssertionError("the walk does not end")


@thoroughly
@given(happenings, st.integers(1, 7), st.booleans(), st.booleans())
def test_a_quiet_walk_shows_every_message_once_by_falling_version(
    story: list[tuple[str, int, float]], size: int, equal: bool, link: bool
) -> None:
    stage = Story(Quirks(equal_versions=equal, link_after_last=link))
    for one in story:
        stage.happen(*one)

    seen = stage.walk(size, [])

    versions = [version for _, version in seen]
    assert versions == sorted(versions, reverse=True)
    assert sorted(number for number, _ in seen) == sorted(stage.emulator.world.state.room(stage.thread).messages)


@thoroughly
@given(happenings, happenings, st.integers(1, 7))
def test_a_walk_while_things_happen_misses_nothing_that_stood_still(
    story: list[tuple[str, int, float]], between: list[tuple[str, int, float]], size: int
) -> None:
    stage = Story()
    for one in story:
        stage.happen(*one)
    room = stage.emulator.world.state.room(stage.thread)
    before = {number: message.version for number, message in room.messages.items()}

    seen = stage.walk(size, list(between))

    still = {number for number, version in before.items() if room.messages[number].version == version}
    assert still <= {number for number, _ in seen}


@thoroughly
@given(happenings)
def test_ids_versions_and_sequences_of_a_thread_rise_without_repeating(story: list[tuple[str, int, float]]) -> None:
    stage = Story()
    for one in story:
        stage.happen(*one)

    changes = [one for one in stage.records if hasattr(one, "sequence")]
    created = {one.id: one.sequence for one in reversed(changes)}
    assert sorted(created.values()) == list(range(1, len(created) + 1))
    assert all(one.sequence == created[one.id] for one in changes)
    versions = [one.version for one in changes]
    assert versions == sorted(set(versions))
    assert all(one.version >= one.id for one in changes)


@thoroughly
@given(happenings)
def test_a_journal_read_back_is_the_same_world(story: list[tuple[str, int, float]]) -> None:
    stage = Story()
    for one in story:
        stage.happen(*one)
    again = World()

    for user in (stage.ann, stage.bob):
        again.state.store(stage.emulator.world.state.users[user])
    for record in stage.records:
        again.state.store(decode(encode(record)))

    ours, theirs = stage.emulator.world.state.room(stage.thread), again.state.room(stage.thread)
    assert theirs.timeline == ours.timeline
    assert (theirs.head, theirs.members, theirs.receipts) == (ours.head, ours.members, ours.receipts)
    assert (theirs.sequence, theirs.version, theirs.activity()) == (ours.sequence, ours.version, ours.activity())
    shown = [(slot.activity, slot.room.head.id) for slot in again.state.lists[stage.ann] if slot.room]
    assert shown == [(ours.activity(), stage.thread)]
    assert again.state.activity == stage.emulator.world.state.activity


def test_the_emulator_imports_no_other_package_of_chatbot() -> None:
    sources = Path(__file__).parents[3] / "chatbot" / "emulator"
    foreign = [
        line
        for source in sources.glob("*.py")
        for line in source.read_text().splitlines()
        if line.startswith(("from chatbot.", "import chatbot", "from azure", "import azure"))
        and not line.startswith("from chatbot.emulator")
    ]
    assert foreign == []
