"""Which threads this process serves: all of them, or those that the processes of a cluster leave it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from chatbot.cluster.notes import BotNote
from chatbot.model import ThreadId, UserId

_NONE: Final[frozenset[int]] = frozenset()


class Ownership(Protocol):
    """What this process owns now. It changes while bots run: see `Handover`."""

    @property
    def is_shared(self) -> bool:
        """Whether other processes may own a part of the threads."""
        ...

    @property
    def replicas(self) -> int:
        """How many processes share the quotas that the service counts for each user; at least 1."""
        ...

    @property
    def owned(self) -> frozenset[int]:
        """The shards in which this process may begin work; empty if `is_shared` is false."""
        ...

    @property
    def crashed(self) -> frozenset[int]:
        """Those of them whose last owner did not release them in order."""
        ...

    def shards(self, bot: UserId, threads: Sequence[ThreadId]) -> frozenset[int]:
        """Return the shards of these threads for a commit; that of `NO_THREAD` is the bot's own."""
        ...

    def tell(self, note: BotNote) -> None:
        """Tell the other processes something soon; does not wait, and the note may be lost."""
        ...


class Everything:
    """The ownership of a process that shares its store with no other."""

    is_shared = False
    replicas = 1
    owned = _NONE
    crashed = _NONE

    def shards(self, bot: UserId, threads: Sequence[ThreadId]) -> frozenset[int]:
        return _NONE

    def tell(self, note: BotNote) -> None:
        pass
