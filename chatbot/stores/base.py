"""The protocol of all stores: read records, and commit lists of writes, each list whole or not at all.

Every lane of a bot commits once per handled event. Commands and the admin API use the same methods.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

from msgspec import Struct

from chatbot.actions import ActionKey
from chatbot.errors import StoreError
from chatbot.model import MessageId, ThreadId, UserId
from chatbot.stores.records import (
    Attempt,
    BotRecord,
    DeadLetter,
    DialogRecord,
    OutboxRow,
    PersonalRecord,
    StateKey,
    StoredState,
    ThreadRecord,
    TimerRecord,
)
from chatbot.stores.writes import Write

NOTE_BYTES: Final = 7_500
"""How long a note to other processes may be; PostgreSQL takes less than 8,000 bytes, with what its store adds."""


class Store(Protocol):
    """A store of bots' records. Use it as `async with store:`, which opens it, and closes it after the last commit.

    Every method raises `StateError` while the store is not open, and `StoreError` if it cannot be read.
    """

    async def __aenter__(self) -> Store:
        """Take the lock and migrate the schema."""
        ...

    async def __aexit__(self, *exc_info: object) -> None:
        """Write what is still queued, then close and release the lock."""
        ...

    async def commit(
        self, bot: UserId, writes: Sequence[Write], *, shards: Collection[int] = (), notes: Sequence[str] = ()
    ) -> None:
        """Make these changes durable, all of them or none; returns when they are.

        Cancelled, it may or may not have happened, but never in part.

        Args:
            bot: whose records they are.
            writes: the changes.
            shards: the shards that they belong to. A `SharedStore` refuses them unless this process owns all of these.
            notes: what a `SharedStore` tells the other processes once the changes are durable.

        Raises:
            NotOwner: another process owns one of the shards, or may; nothing was changed.
            CannotStore: a value has no stored form; nothing was changed, and the same writes will fail again.
            StoreError: nothing was changed; committing the same writes again later is safe.
            StoreConflict: a state was changed since it was read; nothing was changed.
            StateError: a write changes a thread that no `SaveThread` began; nothing was changed.
        """
        ...

    async def find_bot(self, name: str, resource: str) -> BotRecord | None:
        """Return the identity of a bot's name at a resource."""
        ...

    async def bots(self) -> Sequence[BotRecord]:
        """Return all identities, by name, also of bots and resources that are not in use any more."""
        ...

    async def horizon(self, bot: UserId) -> int | None:
        """Return the service's time, epoch ms, before which everything is settled; None if none is stored."""
        ...

    async def threads(self, bot: UserId) -> Sequence[ThreadRecord]:
        """Return all threads that the bot has ever been in, with their seen-sets."""
        ...

    async def pending(self, bot: UserId) -> Sequence[OutboxRow]:
        """Return all pending actions; those of a thread are in order."""
        ...

    async def row(self, bot: UserId, key: ActionKey) -> OutboxRow | None:
        """Return the action of this key, pending or settled; None if there is none, or it was pruned."""
        ...

    async def made(self, bot: UserId, messages: Collection[MessageId]) -> frozenset[MessageId]:
        """Return those of these messages that a settled action has created, edited or deleted."""
        ...

    async def attempts(self, bot: UserId) -> Mapping[ThreadId, Attempt]:
        """Return the handlers that are recorded as running, by their threads."""
        ...

    async def dead_letters(self, bot: UserId) -> Sequence[DeadLetter]:
        """Return all dead letters, oldest first."""
        ...

    async def state(self, bot: UserId, key: StateKey) -> StoredState | None:
        """Return a state as it was last committed; None if there is none."""
        ...

    async def states(self, bot: UserId, name: str) -> Sequence[tuple[StateKey, StoredState]]:
        """Return all states of one name, by thread and person."""
        ...

    async def every_state(self, bot: UserId) -> Sequence[tuple[StateKey, StoredState]]:
        """Return all states of a bot, by name, thread and person."""
        ...

    async def about(self, user: UserId) -> Sequence[PersonalRecord]:
        """Return everything that is stored about a person, for every bot: what `forget` would erase."""
        ...

    async def dialogs(self, bot: UserId) -> Sequence[DialogRecord]:
        """Return all dialogs in progress, in the order in which they began to wait."""
        ...

    async def timers(self, bot: UserId) -> Sequence[TimerRecord]:
        """Return all timers, earliest first."""
        ...

    async def result(self, bot: UserId, key: str) -> str | None:
        """Return the result of a call that is made once; None if it was not made, or its result was pruned."""
        ...

    @property
    def was_killed(self) -> bool:
        """Whether the last process that had this store open did not close it: it was killed, it crashed, power failed,
        or its stop did not end."""
        ...

    @property
    def was_stopping(self) -> bool:
        """Whether `was_killed`, but after a request to stop: handlers that ran then were interrupted, not the cause."""
        ...

    async def forget(self, user: UserId) -> int:
        """Erase a person, for every bot, and return how many records were changed.

        Actions that the person caused or that name them lose their texts, names and people; pending ones fail. Their
        rows stay, so that nothing is done twice. The person's states, dialogs and timers are deleted; in states of
        others, their id is replaced.
        """
        ...


@runtime_checkable
class EndableStore(Protocol):
    """A store that a process can use while it ends, without the event loop. Its methods are thread-safe."""

    def stop_began(self) -> None:
        """Record that this process was asked to stop; does not wait."""
        ...

    def submit_from_thread(self, bot: UserId, writes: Sequence[Write]) -> None:
        """Queue changes of a bot behind everything that was submitted; does not wait."""
        ...

    def stay_marked(self) -> None:
        """Leave the store on close as a killed process would: this process does not end in order."""
        ...

    def finish(self, seconds: float) -> None:
        """Block until everything that was queued is durable, or the time has passed."""
        ...


@runtime_checkable
class OwnedStore(Protocol):
    """A store on a server, which decides who owns it, and can give it to another process."""

    @property
    def is_held(self) -> bool:
        """Whether no other process can own the store now; while it is false, nothing may be polled or sent."""
        ...

    async def lost(self) -> StoreError:
        """Wait until the store is lost for good, and return why: this process must end without another write."""
        ...


@runtime_checkable
class MeasuredStore(Protocol):
    """A store on a server that measures its work.

    Attributes:
        on_round_trip: called with the seconds that each round trip of commits to the server took, in any thread.
        refused: the commits that were refused because another process owned one of their shards.
    """

    on_round_trip: Callable[[float], None]
    refused: int

    async def replication_lag(self) -> float | None:
        """Return by how many seconds the slowest standby of the server is behind; None if there is none to be seen.

        Raises:
            StoreError: the store cannot be read.
        """
        ...


class ShardsGained(Struct, frozen=True):
    """This process owns these shards from now on.

    Args:
        shards: the shards; none if the connection was lost and nothing else, so that notes may have been lost.
        after_crash: those of them whose last owner did not release them in order.
    """

    shards: frozenset[int]
    after_crash: frozenset[int] = frozenset()


class ShardsOffered(Struct, frozen=True):
    """These shards are free, and planned for this process: it claims those that it accepts (`SharedStore.accept`).

    Nobody changes anything in them meanwhile. Sent only by a store that was opened with `asks`.
    """

    shards: frozenset[int]


class ShardsWanted(Struct, frozen=True):
    """Other processes shall own these shards: finish what runs in their threads, then call `SharedStore.release`."""

    shards: frozenset[int]


class ShardsLost(Struct, frozen=True):
    """Another process owns these shards, or may: drop their threads at once, without another write."""

    shards: frozenset[int]


ShardChange = ShardsGained | ShardsOffered | ShardsWanted | ShardsLost


@dataclass(frozen=True, slots=True)
class Replica:
    """A process that shares a store.

    Args:
        name: distinguishes it from the others.
        host: its machine.
        pid: its process id there.
        version: the version of chatbot that it runs.
        started_ms: since when, epoch ms.
        shards: what it owns.
        is_oneself: it is this process.
        share: the largest share of all shards that it takes, 0 to 1; None is without limit.
        report: what it says of itself, see `SharedStore.publish`.
    """

    name: str
    host: str
    pid: int
    version: str
    started_ms: int
    shards: frozenset[int]
    is_oneself: bool = False
    share: float | None = None
    report: str = ""


@runtime_checkable
class SharedStore(OwnedStore, Protocol):
    """A store that several processes share. Each owns some of the shards, see `chatbot.stores.shards`.

    A process polls, handles and sends only for threads of shards that it owns, and only while `is_held`.
    """

    async def next_change(self) -> ShardChange:
        """Wait until this process gains shards, shall release some, or has lost some; return the next change."""
        ...

    async def release(self, shards: Collection[int]) -> None:
        """Give up shards, in order: nothing of their threads runs here any more, and no commit of them is pending."""
        ...

    async def accept(self, shards: Collection[int]) -> None:
        """Claim shards that were offered, as far as they are still planned for this process."""
        ...

    async def limit_to(self, share: float | None) -> None:
        """Take no more than this share of all shards, 0 to 1; None is without limit. The others take what is above it.

        Raises:
            StoreError: the others could not be told.
        """
        ...

    async def publish(self, report: str) -> None:
        """Show the others a short text about this process, see `Replica.report`. It contains no people's words.

        Raises:
            StoreError: it could not be written.
        """
        ...

    async def next_note(self) -> str:
        """Wait for the next note of another process. Notes may be lost while the connection is."""
        ...

    async def tell(self, notes: Sequence[str]) -> None:
        """Send notes to the other processes; those of a commit are better passed to `Store.commit`.

        Raises:
            StoreError: they could not be sent.
        """
        ...

    async def replicas(self) -> Sequence[Replica]:
        """Return the processes that share the store, with what they own.

        Raises:
            StoreError: the store cannot be read.
        """
        ...

    def exclusive(self, name: str) -> AbstractAsyncContextManager[None]:
        """Return a block that one process at a time may be in, for each name.

        Raises:
            StoreError: the store cannot be reached.
        """
        ...
