"""The people of the simulation, and what must have come of all that they said."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import anyio

from chatbot.model import ThreadId
from tests.cluster.cluster import BEGUN, Cluster
from tests.simulation.oracle import Oracle, Trace
from tests.simulation.plugins import TICK_SECONDS
from tests.simulation.story import KNOWN_THREADS, Step

PEOPLE: Final = ("Ann", "Dan")

DEATHS: Final = 4
"""How many processes a message can kill: the first death is not counted, because nothing was recorded before it."""

STORED_SECONDS: Final = 5.0
"""How long it may take until a result is stored that no event carries along."""

CANCELED_SECONDS: Final = 15.0
"""A timer that was canceled so long before it was due must not fire."""

LATE_TICK_SECONDS: Final = 8.0
"""How late a schedule may be in quiet times."""


@dataclass
class Said:
    """Something that was said.

    Args:
        number: of its step.
        what: of its step.
        thread: the number of the thread.
        message: its id.
        text: as it reads now.
        is_edited: it was changed.
    """

    number: int
    what: str
    thread: int
    message: int
    text: str
    is_edited: bool = False


@dataclass
class Reminder:
    """A timer that was asked for."""

    due: float
    canceled_by: int | None = None


@dataclass
class Judge:
    """Says what the steps tell, and judges the answers.

    Args:
        cluster: where.
        oracle: gets the problems.
        trace: gets a line for everything that is said.
    """

    cluster: Cluster
    oracle: Oracle
    trace: Trace
    said: list[Said] = field(default_factory=list)
    reminders: dict[int, Reminder] = field(default_factory=dict)
    news: dict[int, int] = field(default_factory=dict)
    _threads: dict[int, ThreadId] = field(default_factory=dict)

    def thread(self, number: int) -> ThreadId:
        """Return the thread of a number, which begins now if it has not yet."""
        if number not in self._threads:
            self._threads[number] = self.cluster.thread(*PEOPLE)
        return self._threads[number]

    @property
    def threads(self) -> Collection[ThreadId]:
        """The threads that have begun."""
        return self._threads.values()

    # ── people ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def act(self, step: Step) -> None:
        """Do what a person does in a step."""
        number = step.number
        match step.what:
            case "say" | "slow":
                self._say(step, f"{step.what} {number}")
            case "remind":
                self.reminders[number] = Reminder(anyio.current_time() + step.seconds)
                self._say(step, f"/remind {number} {step.seconds}")
            case "tell":
                self.news[number] = (step.where + 1 + number) % KNOWN_THREADS
                self._say(step, f"/tell {number} {self.thread(self.news[number])}")
            case "forget":
                self._forget(step)
            case "edit":
                self._edit(step)
            case "ask":
                self._say(step, f"/ask {number}", person="Dan")
                await anyio.sleep(step.seconds)
                self._say(step, f"answer {number}", what="answer", person="Dan")
            case _:
                self._say(step, f"/{step.what} {number}")

    def _say(self, step: Step, text: str, *, what: str = "", person: str = "Ann") -> None:
        thread, cluster = self.thread(step.where), self.cluster
        message = cluster.emulator.send(thread, cluster.person(person), text)
        self.said.append(Said(step.number, what or step.what, step.where, message, text))

    def _edit(self, step: Step) -> None:
        """Correct what was said last in the thread, or say something."""
        for said in reversed(self.said):
            if said.thread == step.where and said.what in {"say", "slow"} and not said.is_edited:
                said.text, said.is_edited = f"{said.text} anew", True
                person = self.cluster.person("Ann")
                self.cluster.emulator.edit(self.thread(step.where), person, said.message, said.text)
                return
        self._say(step, f"say {step.number}", what="say")

    def _forget(self, step: Step) -> None:
        """Cancel a timer that is known by now, or say something."""
        for number, reminder in self.reminders.items():
            timer = self._timer(number)
            if timer is not None and reminder.canceled_by is None and reminder.due > anyio.current_time() + 1:
                reminder.canceled_by = step.number
                self._say(step, f"/forget {step.number} {timer}")
                return
        self._say(step, f"say {step.number}", what="say")

    def _timer(self, number: int) -> str | None:
        """Return the id of a timer that the bot has told."""
        for replies in self._all_replies().values():
            for _, text in replies:
                if found := re.fullmatch(rf"remind {number} by (.+)", text):
                    return found[1]
        return None

    # ── what is there ─────────────────────────────────────────────────────────────────────────────────────────────

    def _all_replies(self) -> dict[int, list[tuple[int, str]]]:
        """Return the ids and texts of what the bot has said and not deleted, by thread."""
        cluster, bot = self.cluster, self.cluster.bot
        return {
            number: [
                (message.id, message.text)
                for message in cluster.emulator.transcript(thread)
                if message.sender == bot and not message.is_system and message.deleted is None
            ]
            for number, thread in self._threads.items()
        }

    def _wanted(self, deaths: Mapping[int, int]) -> Iterator[tuple[int, str]]:
        """Yield the thread and the pattern of each reply that there must be once."""
        for said in self.said:
            yield from ((said.thread, text) for text in _answers(said, deaths))
            if said.what == "tell":
                yield self.news[said.number], rf"tell {said.number} news"
        for number, reminder in self.reminders.items():
            if reminder.canceled_by is None:
                thread = next(said.thread for said in self.said if said.number == number)
                yield thread, rf"remind {number} rings as \d+"

    def is_settled(self, deaths: Mapping[int, int]) -> bool:
        """Return whether everything that is owed is there, and nothing is pending."""
        if any(self.oracle.now() < reminder.due for reminder in self.reminders.values()):
            return False
        if self.cluster.database.pending():
            return False
        if any(said.what == "die" and deaths.get(said.number, 0) < DEATHS for said in self.said):
            return False
        replies = self._all_replies()
        there = _ids(replies)
        return all(
            any(re.fullmatch(pattern, text) for _, text in replies.get(thread, ()))
            for thread, pattern in self._wanted(deaths)
        ) and all(len(there.intersection(doubles)) < 2 for doubles in self._doubles().values())

    def _doubles(self) -> dict[tuple[str, str], list[int]]:
        return {place: sorted(one.message for one in sent) for place, sent in self.oracle.sent.items() if len(sent) > 1}

    # ── the judgment ──────────────────────────────────────────────────────────────────────────────────────────────

    async def judge(self, deaths: Mapping[int, int]) -> None:
        """Report everything that is not as it must be."""
        replies = self._all_replies()
        report = self.oracle.report
        for thread, pattern in self._wanted(deaths):
            found = [text for _, text in replies.get(thread, ()) if re.fullmatch(pattern, text)]
            if not found:
                report("lost", f"nothing in thread {thread} reads {pattern!r}")
            elif len(found) > 1:
                report("doubled", f"in thread {thread}: {found}")
        for thread, texts in replies.items():
            self._judge_thread(thread, texts)
        self._judge_counts("tally", sorted(_numbers(r"tally \d+ is (\d+)", replies)))
        self._judge_ticks(sorted(_numbers(r"tick (\d+)", replies)))
        self._judge_canceled(replies)
        self._judge_healing(replies)
        await self._judge_letters(deaths)
        with suppress(TimeoutError):
            await self.cluster.until(lambda: not self.cluster.database.pending(), seconds=STORED_SECONDS)
        if pending := self.cluster.database.pending():
            report("not stored", f"{len(pending)} actions are pending, although nothing is left to do")
        self.oracle.counts["messages"] += len(self.said)
        self.oracle.counts["replies"] += sum(map(len, replies.values()))

    def _judge_thread(self, thread: int, replies: list[tuple[int, str]]) -> None:
        texts = [text for _, text in replies]
        for text, count in Counter(texts).items():
            if count > 1:
                self.oracle.report("doubled", f"{text!r} is in thread {thread} {count} times")
        for name, pattern in (("messages", r"\w+ \d+.* heard as (\d+)"), ("timers", r"remind \d+ rings as (\d+)")):
            counts = [int(found[1]) for text in texts if (found := re.fullmatch(pattern, text))]
            self._judge_counts(f"{name} of thread {thread}", counts)
        order = {
            -1 - said.number if said.what == "answer" else said.number: place
            for place, said in enumerate(self.said)
            if said.thread == thread
        }
        places = [order.get(number) for text in texts if (number := _first_answer(text)) is not None]
        known = [place for place in places if place is not None]
        if known != sorted(known):
            self.oracle.report("out of order", f"thread {thread}: {texts}")

    def _judge_counts(self, name: str, counts: list[int]) -> None:
        if counts != [*range(1, len(counts) + 1)]:
            self.oracle.report("wrong count", f"{name} were counted as {counts}")

    def _judge_ticks(self, ticks: list[int]) -> None:
        steps = {later - earlier for earlier, later in itertools.pairwise(ticks)}
        if any(step % TICK_SECONDS for step in steps) or 0 in steps:
            self.oracle.report("schedule", f"it ran at {ticks}")
        latest = ticks[-1] if ticks else BEGUN
        if self.cluster.clock() - latest > TICK_SECONDS + LATE_TICK_SECONDS:
            self.oracle.report("schedule", f"it does not run any more: {ticks}")

    def _judge_canceled(self, replies: Mapping[int, list[tuple[int, str]]]) -> None:
        texts = {text: id for replies_there in replies.values() for id, text in replies_there}
        begun = self.cluster.clock() - anyio.current_time()
        for number, reminder in self.reminders.items():
            rang = [id for text, id in texts.items() if text.startswith(f"remind {number} rings")]
            due = begun + reminder.due
            if rang and rang[0] / 1000 < due - 2.0:
                self.oracle.report("timer", f"{number} rang {due - rang[0] / 1000:.1f} s too early")
            forgotten = texts.get(f"forget {reminder.canceled_by} done")
            is_early = forgotten is not None and due - forgotten / 1000 > CANCELED_SECONDS
            if rang and is_early and not self.oracle.may_miss:
                self.oracle.report("timer", f"{number} rang although it was canceled")

    def _judge_healing(self, replies: Mapping[int, list[tuple[int, str]]]) -> None:
        there = _ids(replies)
        for (_, key), messages in self._doubles().items():
            living = [message for message in messages if message in there]
            if living != messages[:1]:
                self.oracle.report("healing", f"of the messages {messages} with the key {key}, {living} are left")

    async def _judge_letters(self, deaths: Mapping[int, int]) -> None:
        letters = await self.cluster.running[0].store.dead_letters(self.cluster.bot)
        errors = sorted(letter.error for letter in letters)
        expected = sum(count >= DEATHS for count in deaths.values())
        if len(errors) != expected:
            self.oracle.report("dead letters", f"there are {len(errors)} instead of {expected}: {errors}")


def _answers(said: Said, deaths: Mapping[int, int]) -> list[str]:
    """Return the patterns of the replies to a message."""
    number = said.number
    match said.what:
        case "say" | "slow" if said.is_edited:
            return [rf"{said.text} (again|heard as \d+)"]
        case "say" | "slow":
            return [rf"{said.text} heard as \d+"]
        case "two":
            return [f"two {number} a", f"two {number} b"]
        case "tally":
            return [rf"tally {number} is \d+"]
        case "ask":
            return [rf"ask {number} who\?"]
        case "answer":
            return [f"hello answer {number}"]
        case "remind":
            return [rf"remind {number} by .+"]
        case "die":
            return []
        case _:
            return [f"{said.what} {number} done"]


def _first_answer(text: str) -> int | None:
    """Return the number of the message that a reply answers; None if it may stand elsewhere. Answers are negative."""
    if found := re.fullmatch(r"hello answer (\d+)", text):
        return -1 - int(found[1])
    if text.endswith((" again", " news")) or " rings as " in text or text.startswith("tick "):
        return None
    found = re.match(r"\w+ (\d+)", text)
    return int(found[1]) if found else None


def _ids(replies: Mapping[int, list[tuple[int, str]]]) -> set[int]:
    return {id for texts in replies.values() for id, _ in texts}


def _numbers(pattern: str, replies: Mapping[int, list[tuple[int, str]]]) -> list[int]:
    texts = (text for texts in replies.values() for _, text in texts)
    return [int(found[1]) for text in texts if (found := re.fullmatch(pattern, text))]
