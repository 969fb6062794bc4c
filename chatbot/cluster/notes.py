"""Notes: what processes that share a store tell each other, so that each hears at once of what concerns its threads.

A note is a hint, and may be lost: what it says is in the store or on the service, and is found there later, too. Notes
contain ids, keys and times, never people's words.

A note of a kind that this version does not know is ignored: processes of two versions run side by side.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Final, TypeAlias

from msgspec import Struct

from chatbot.actions import ActionKey
from chatbot.model import ThreadId, UserId
from chatbot.stores.base import NOTE_BYTES

MAX_TEXT_BYTES: Final = 4_000
"""The longest item of a note. One that is longer, which no service or handler gives, is left out."""


class ListedThread(Struct, frozen=True):
    """A thread that the thread list shows.

    Args:
        thread: the thread.
        stamp_ms: the time of its last activity, epoch ms; None if it is listed without one.
        deleted_ms: when it was deleted, epoch ms; None if it was not.
    """

    thread: ThreadId
    stamp_ms: int | None = None
    deleted_ms: int | None = None


class ThreadsListed(Struct, frozen=True):
    """The thread list of a bot shows threads that other processes own.

    Args:
        bot: the bot.
        listed_ms: not later than the service's time of the list, epoch ms; None if unknown.
        threads: the threads.
    """

    kind: ClassVar = "listed"
    bot: UserId
    listed_ms: int | None
    threads: tuple[ListedThread, ...]


class ActionsAdded(Struct, frozen=True):
    """Actions were committed for threads that another process owns.

    Args:
        bot: the bot.
        actions: the thread and the key of each action.
    """

    kind: ClassVar = "actions"
    bot: UserId
    actions: tuple[tuple[ThreadId, ActionKey], ...]


class TimersDropped(Struct, frozen=True):
    """Timers were canceled that the process that canceled them does not know.

    Args:
        bot: the bot.
        ids: the ids of the timers.
    """

    kind: ClassVar = "dropped"
    bot: UserId
    ids: tuple[str, ...]


class ListAgain(Struct, frozen=True):
    """A process has taken over threads of a bot: what has moved lately in the thread list must be listed again."""

    kind: ClassVar = "list"
    bot: UserId


class ThreadNotified(Struct, frozen=True):
    """Event Grid has reported activity in a thread that another process owns."""

    kind: ClassVar = "notified"
    bot: UserId
    thread: ThreadId


class DialogsDropped(Struct, frozen=True):
    """An operator has ended dialogs; the process that serves their threads may still know them.

    Args:
        bot: the bot.
        ids: the ids of the dialogs.
    """

    kind: ClassVar = "dialogs"
    bot: UserId
    ids: tuple[str, ...]


class LettersChanged(Struct, frozen=True):
    """An operator has requested retries of dead letters, or dropped them: the store says which.

    Args:
        bot: the bot.
        ids: the ids of the dead letters.
    """

    kind: ClassVar = "letters"
    bot: UserId
    ids: tuple[str, ...]


class Asked(Struct, frozen=True):
    """An operator asks all processes for something, see `chatbot.cluster.requests`.

    Args:
        id: of the request; it is the same in each repetition.
        sender: the name of the process that the operator uses.
        what: what is asked for.
        subject: whom or what it concerns: the name of a bot, or an id.
        options: how.
    """

    kind: ClassVar = "ask"
    id: str
    sender: str
    what: str
    subject: str
    options: tuple[str, ...]


class Answered(Struct, frozen=True):
    """The answer of a process to `Asked`.

    Args:
        id: of the request.
        sender: the name of the process that answers.
        outcome: one word of the program's, or a few.
    """

    kind: ClassVar = "answer"
    id: str
    sender: str
    outcome: str


BotNote: TypeAlias = (
    ThreadsListed | ActionsAdded | TimersDropped | DialogsDropped | LettersChanged | ListAgain | ThreadNotified
)
"""What the bots of one process tell those of the others."""

Note: TypeAlias = BotNote | Asked | Answered
"""What one process tells the others."""


def encode(note: Note) -> list[str]:
    """Return the texts of a note: several if it is too long for one."""
    match note:
        case ThreadsListed(bot, listed_ms, threads):
            rows = [[one.thread, one.stamp_ms, one.deleted_ms] for one in threads]
            return _split({"kind": note.kind, "bot": bot, "listed_ms": listed_ms}, "threads", rows)
        case ActionsAdded(bot, actions):
            return _split({"kind": note.kind, "bot": bot}, "actions", [list(one) for one in actions])
        case TimersDropped(bot, ids) | DialogsDropped(bot, ids) | LettersChanged(bot, ids):
            return _split({"kind": note.kind, "bot": bot}, "ids", ids)
        case _:
            values = {name: getattr(note, name) for name in note.__struct_fields__}
            return [_text({"kind": note.kind, **values})]


def decode(text: str) -> Note | None:
    """Return the note of a text; None if this version does not know its kind, or cannot read it."""
    try:
        data = json.loads(text)
        decoder = _DECODERS.get(data.get("kind"))
        return None if decoder is None else decoder(data)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _listed(data: Mapping[str, Any]) -> Note:
    threads = tuple(
        ListedThread(ThreadId(str(thread)), _number(stamp_ms), _number(deleted_ms))
        for thread, stamp_ms, deleted_ms in data["threads"]
    )
    return ThreadsListed(UserId(str(data["bot"])), _number(data["listed_ms"]), threads)


def _actions(data: Mapping[str, Any]) -> Note:
    actions = tuple((ThreadId(str(thread)), ActionKey(str(key))) for thread, key in data["actions"])
    return ActionsAdded(UserId(str(data["bot"])), actions)


def _ids(
    cls: Callable[[UserId, tuple[str, ...]], TimersDropped | DialogsDropped | LettersChanged], data: Mapping[str, Any]
) -> Note:
    return cls(UserId(str(data["bot"])), tuple(map(str, data["ids"])))


def _number(value: object) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    msg = f"expected a time in ms, not {type(value).__name__}"
    raise TypeError(msg)


_DECODERS: Final[Mapping[str, Callable[[Mapping[str, Any]], Note]]] = {
    ThreadsListed.kind: _listed,
    ActionsAdded.kind: _actions,
    TimersDropped.kind: partial(_ids, TimersDropped),
    DialogsDropped.kind: partial(_ids, DialogsDropped),
    LettersChanged.kind: partial(_ids, LettersChanged),
    Asked.kind: lambda data: Asked(
        str(data["id"]),
        str(data["sender"]),
        str(data["what"]),
        str(data["subject"]),
        tuple(map(str, data["options"])),
    ),
    Answered.kind: lambda data: Answered(str(data["id"]), str(data["sender"]), str(data["outcome"])),
    ListAgain.kind: lambda data: ListAgain(UserId(str(data["bot"]))),
    ThreadNotified.kind: lambda data: ThreadNotified(UserId(str(data["bot"])), ThreadId(str(data["thread"]))),
}


def _split(head: Mapping[str, Any], name: str, items: Iterable[Any]) -> list[str]:
    """Return texts of at most `NOTE_BYTES`, each with the head and some of the items."""
    texts: list[str] = []
    room = NOTE_BYTES - len(_text({**head, name: []}))
    part: list[Any] = []
    size = 0
    for item in items:
        length = len(_text(item)) + 1
        if length > min(room, MAX_TEXT_BYTES):
            continue
        if part and size + length > room:
            texts.append(_text({**head, name: part}))
            part, size = [], 0
        part.append(item)
        size += length
    if part:
        texts.append(_text({**head, name: part}))
    return texts


def _text(value: Any) -> str:
    """Return JSON in ASCII, so that its length is its size in bytes."""
    return json.dumps(value, separators=(",", ":"))


def merged(notes: Sequence[BotNote]) -> list[BotNote]:
    """Return the notes without repetitions, and with one list of threads for each bot: fewer texts say the same."""
    listed: dict[UserId, ThreadsListed] = {}
    others: dict[BotNote, None] = {}
    for note in notes:
        if not isinstance(note, ThreadsListed):
            others[note] = None
            continue
        known = listed.get(note.bot, note)
        # The earlier time is true of both: it is not later than either list.
        times = [at for at in (known.listed_ms, note.listed_ms) if at is not None]
        earliest = min(times) if len(times) == 2 else None
        threads = dict.fromkeys([*known.threads, *note.threads])
        listed[note.bot] = ThreadsListed(note.bot, earliest, tuple(threads))
    return [*listed.values(), *others]
