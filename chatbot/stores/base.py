"""The protocol of all stores: read records, and commit lists of writes, each list whole or not at all.

Every lane of a bot commits once per handled event. Commands and the admin API use the same methods.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, runtime_checkable

from chatbot.actions import ActionKey
from chatbot.model import MessageId, ThreadId, UserId
from chatbot.stores.records import (
    Attempt,
    BotRecord,
    DeadLetter,
    DialogRecord,
    OutboxRow,
    StateKey,
    StoredState,
    ThreadRecord,
    TimerRecord,
)
from chatbot.stores.writes import Write


class Store(Protocol):
    """A bot's memory. Use it as `async with store:`; that opens it, and closes it after the last commit.

    Every method raises `StateError` while the store is not open, and `StoreError` when the memory cannot be read.
    """

    async def __aenter__(self) -> Store:
        """Open: take the lock, bring the schema up to date."""
        ...

    async def __aexit__(self, *exc_info: object) -> None:
        """Write what is still waiting, then close and give the lock back."""
        ...

    async def commit(self, bot: UserId, writes: Sequence[Write]) -> None:
        """Make these changes durable, all of them or none; returns when they are.

        Cancelled, it may or may not have happened, but never in part.

        Raises:
            CannotStore: a value has no stored form; nothing was changed, and the same writes will fail again.
            StoreError: nothing was changed; committing the same writes again later is safe.
            StoreConflict: a state was changed since it was read; nothing was changed.
            StateError: a write changes a thread that no `SaveThread` began; nothing was changed.
        """
        ...

    async def find_bot(self, name: str, resource: str) -> BotRecord | None:
        """The identity remembered for this name at this resource."""
        ...

    async def bots(self) -> Sequence[BotRecord]:
        """All identities ever remembered, by name; also of bots and resources that nobody runs any more."""
        ...

    async def horizon(self, bot: UserId) -> int | None:
        """The time, the service's, epoch ms, before which everything is settled; None if none was noted."""
        ...

    async def threads(self, bot: UserId) -> Sequence[ThreadRecord]:
        """All threads the bot was ever in, seen-sets included."""
        ...

    async def pending(self, bot: UserId) -> Sequence[OutboxRow]:
        """All wishes still to be done, in the order of their threads."""
        ...

    async def row(self, bot: UserId, key: ActionKey) -> OutboxRow | None:
        """The wish of this key, pending or settled; None if there is none (or it was pruned)."""
        ...

    async def made(self, bot: UserId, messages: Collection[MessageId]) -> frozenset[MessageId]:
        """Those of these messages that a settled wish is known to have made, changed or deleted."""
        ...

    async def attempts(self, bot: UserId) -> Mapping[ThreadId, Attempt]:
        """The handlers that were noted as about to run and never as ended."""
        ...

    async def dead_letters(self, bot: UserId) -> Sequence[DeadLetter]:
        """Everything that was given up and not dropped, oldest first."""
        ...

    async def state(self, bot: UserId, key: StateKey) -> StoredState | None:
        """A state as it was last committed; None if there is none."""
        ...

    async def states(self, bot: UserId, name: str) -> Sequence[tuple[StateKey, StoredState]]:
        """All states of one name, by thread and person."""
        ...

    async def dialogs(self, bot: UserId) -> Sequence[DialogRecord]:
        """All dialogs that have begun and not ended, in the order in which they began to wait."""
        ...

    async def timers(self, bot: UserId) -> Sequence[TimerRecord]:
        """All timers that were not dropped, the earliest first."""
        ...

    async def result(self, bot: UserId, key: str) -> str | None:
        """What came of something that was done once; None if it was not done (or was pruned)."""
        ...

    @property
    def was_killed(self) -> bool:
        """Whether whoever had this store open before did not close it in order: a kill, a crash, a power failure, a
        stop that did not end."""
        ...

    @property
    def was_stopping(self) -> bool:
        """Whether `was_killed`, but only after it had been told to stop: what ran then was cut, and killed nobody."""
        ...

    async def forget(self, user: UserId) -> int:
        """Erase a person, for every bot; returns how many records were changed.

        Wishes this person caused, and wishes that name them, lose their text, names and people; what of them was
        still to be said fails. The rows themselves stay, so that nothing already done is done again. This person's
        state, dialogs and timers go; where the state of others names them, the name goes.
        """
        ...


@runtime_checkable
class EndableStore(Protocol):
    """A store that a process which is about to end can speak to without the event loop. Safe in any thread."""

    def stop_began(self) -> None:
        """Note that this process was told to stop; returns at once."""
        ...

    def submit_from_thread(self, bot: UserId, writes: Sequence[Write]) -> None:
        """Hand over changes of a bot, to be written after everything that was submitted; returns at once."""
        ...

    def stay_marked(self) -> None:
        """Close it, when it is closed, as a killed process would leave it: this process does not end in order."""
        ...

    def finish(self, seconds: float) -> None:
        """Wait until everything that was handed over is durable, at most so long. Blocks."""
        ...
