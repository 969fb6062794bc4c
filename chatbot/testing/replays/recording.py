"""A thread as it was recorded: what people did, what the bots answered, and what their calls had returned.

Ids and times are kept. So the bots get the same events in a replay, and their replies, dialogs and results of `once`
have the keys that they had: by them, old and new are compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from chatbot.conversation import journal
from chatbot.conversation.journal import JournalStep
from chatbot.errors import StateError, StoreError, UnknownName
from chatbot.message_size import MAX_MESSAGE_BYTES
from chatbot.model import Attachment, ChatMessage, MessageType, Participant, ThreadId, UserId
from chatbot.stores.erasure import NOBODY


class StepKind(StrEnum):
    """What somebody did."""

    SAYS = "says"
    ADDS = "adds"
    REMOVES = "removes"
    RENAMES = "renames"


@dataclass(frozen=True, slots=True)
class Step:
    """One act of a person, or a change of the thread.

    Args:
        kind: what it is.
        ms: when, epoch ms; also the id of its message.
        user: who did it; empty if the service did not say.
        name: the name that they used.
        text: the message or the new topic.
        is_html: the message is html.
        metadata: of the message.
        people: who was added or removed.
        attachments: of the message.
        before: the text before it was edited for this replay; None if it was not.
    """

    kind: StepKind
    ms: int
    user: str = ""
    name: str = ""
    text: str = ""
    is_html: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    people: tuple[Participant, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    before: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """A message of a bot.

    Args:
        id: its id.
        bot: the bot's user.
        text: its current text.
        is_html: the text is html.
        key: the key under which a handler's reply is known; None for others.
    """

    id: int
    bot: str
    text: str
    is_html: bool = False
    key: str | None = None


@dataclass(frozen=True, slots=True)
class RecordedBot:
    """A bot of the recording: its name in bots.yaml, its user and its display name."""

    name: str
    user: UserId
    display_name: str


@dataclass(frozen=True, slots=True)
class Recording:
    """A thread.

    Args:
        thread: its id.
        resource: identifies the resource of the service.
        topic: the topic at the beginning.
        bots: all bots of the process.
        members: who was in the thread at the beginning.
        steps: what people did, in order.
        replies: what the bots answered, in order.
        end_ms: when something happened last.
        results: the stored results of `once`, JSON texts by bot and key.
        runs: the results of `talk.run` by bot and dialog: number of the step, function, encoded result.
    """

    thread: ThreadId
    resource: str
    topic: str
    bots: tuple[RecordedBot, ...]
    members: tuple[Participant, ...]
    steps: tuple[Step, ...]
    replies: tuple[Reply, ...]
    end_ms: int
    results: Mapping[tuple[UserId, str], str] = field(default_factory=dict)
    runs: Mapping[tuple[UserId, str], Sequence[tuple[int, str, Any]]] = field(default_factory=dict)

    @property
    def begin_ms(self) -> int:
        """When it begins, epoch ms."""
        return min((step.ms for step in self.steps), default=self.end_ms)

    def edited(self, texts: Mapping[str, str]) -> Recording:
        """Return the recording with other texts of people's messages.

        Args:
            texts: by the id of the message.

        Raises:
            UnknownName: no person has written such a message.
            StateError: a text is empty or too long.
        """
        wanted = dict(texts)
        steps: list[Step] = []
        for step in self.steps:
            text = wanted.pop(str(step.ms), None) if step.kind is StepKind.SAYS else None
            text = text and text.encode(errors="replace").decode()  # the service knows no halves of surrogate pairs
            if text is not None and text != step.text:
                if not text.strip() or len(text.encode()) > MAX_MESSAGE_BYTES:
                    msg = f"an edited message needs a text, of {MAX_MESSAGE_BYTES:,} bytes at most"
                    raise StateError(msg)
                step = replace(step, text=text, before=step.text)
            steps.append(step)
        if wanted:
            msg = f"no person has written the message {next(iter(wanted))!r} in this thread"
            raise UnknownName(msg)
        return replace(self, steps=tuple(steps))


_SAID: Final = (MessageType.TEXT, MessageType.HTML)


def recording_of(
    thread: ThreadId,
    messages: Iterable[ChatMessage],
    *,
    resource: str,
    bots: Sequence[RecordedBot],
    present: Sequence[Participant],
) -> Recording:
    """Return the recording of a thread.

    Args:
        thread: its id.
        messages: all of them, in any order. Deleted ones are left out; others have their current texts.
        resource: identifies the resource of the service.
        bots: the bots of the process.
        present: who is in the thread now.

    Raises:
        StateError: nobody has said anything.
    """
    users = {bot.user for bot in bots}
    ordered = [one for one in sorted(messages, key=lambda one: one.number) if one.deleted_on is None]
    steps: list[Step] = []
    replies: list[Reply] = []
    for message in ordered:
        if message.type in _SAID and message.sender in users:
            is_html = message.type is MessageType.HTML
            replies.append(Reply(message.number, message.sender or "", message.content, is_html, message.reply_key))
        elif (step := _step(message)) is not None:
            steps.append(step)
    if not any(step.kind is StepKind.SAYS for step in steps):
        msg = "there is nothing to replay: no person has written a message in this thread, or all were deleted"
        raise StateError(msg)
    topics = [message.topic for message in ordered if message.type is MessageType.TOPIC_UPDATED and message.topic]
    members = _members(steps, replies, [*present, *(Participant(bot.user, bot.display_name) for bot in bots)], present)
    topic = topics[0] if topics else "replay"
    end_ms = max(message.number for message in ordered)
    return Recording(thread, resource, topic, tuple(bots), members, tuple(steps), tuple(replies), end_ms)


def _step(message: ChatMessage) -> Step | None:
    kinds = {
        MessageType.PARTICIPANT_ADDED: StepKind.ADDS,
        MessageType.PARTICIPANT_REMOVED: StepKind.REMOVES,
        MessageType.TOPIC_UPDATED: StepKind.RENAMES,
    }
    if message.type in _SAID:
        return Step(
            StepKind.SAYS,
            message.number,
            message.sender or "",
            message.sender_display_name or "",
            message.content,
            message.type is MessageType.HTML,
            dict(message.metadata),
            attachments=message.attachments,
        )
    if message.type not in kinds:
        return None
    user, topic = message.initiator or "", message.topic or ""
    return Step(kinds[message.type], message.number, user, text=topic, people=tuple(message.participants))


def _members(
    steps: Sequence[Step], replies: Sequence[Reply], known: Sequence[Participant], present: Sequence[Participant]
) -> tuple[Participant, ...]:
    """Return who was in the thread before the first step: those who act or are there, and were not added before."""
    names: dict[str, str | None] = {one.user: one.display_name for one in known}
    found: dict[str, Participant] = {}
    arrived: dict[str, int] = {}
    for step in steps:
        for person in step.people if step.kind is StepKind.ADDS else ():
            arrived.setdefault(person.user, step.ms)
    acts = [(step.ms, step.user, step.name) for step in steps if step.kind is not StepKind.ADDS]
    acts += [(step.ms, person.user, "") for step in steps if step.kind is StepKind.REMOVES for person in step.people]
    acts += [(reply.id, reply.bot, "") for reply in replies]
    acts += [(step.ms, one.user, "") for step in steps[-1:] for one in present if one.user not in arrived]
    for ms, user, name in acts:
        if user and arrived.get(user, ms + 1) > ms:
            found.setdefault(user, Participant(UserId(user), name or names.get(user)))
    return tuple(found.values())


def runs_in(journals: Mapping[tuple[UserId, str], str]) -> dict[tuple[UserId, str], list[tuple[int, str, Any]]]:
    """Return the results of `talk.run` in stored journals; journals that cannot be read have none."""
    runs: dict[tuple[UserId, str], list[tuple[int, str, Any]]] = {}
    for key, stored in journals.items():
        try:
            entries = journal.load(stored)
        except StoreError:
            continue
        found = [(at, entry.label, entry.value) for at, entry in enumerate(entries) if entry.step is JournalStep.RAN]
        if found:
            runs[key] = found
    return runs


def without_erased(results: Mapping[tuple[UserId, str], str]) -> dict[tuple[UserId, str], str]:
    """Return the results without those that were erased with a person."""
    return {key: text for key, text in results.items() if text != NOBODY}
