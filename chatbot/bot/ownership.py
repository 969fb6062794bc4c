"""Which threads this process serves: all of them, or those that the processes of a cluster leave it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from chatbot.model import ThreadId, UserId


class Ownership(Protocol):
    """What this process owns now. It changes while bots run: see `Bot.take`, `Bot.release` and `Bot.lose`."""

    @property
    def replicas(self) -> int:
        """How many processes share the quotas that the service counts for each user; at least 1."""
        ...

    def owns(self, thread: ThreadId) -> bool:
        """Return whether this process serves a thread."""
        ...

    def owns_bot(self, bot: UserId) -> bool:
        """Return whether this process runs what belongs to a bot and to no thread: its thread list, its schedules."""
        ...

    def shards(self, bot: UserId, threads: Sequence[ThreadId]) -> frozenset[int]:
        """Return the shards of these threads for a commit; those of `NO_THREAD` are the bot's own."""
        ...


class Everything(Ownership):
    """The ownership of a process that shares its store with no other."""

    replicas = 1

    def owns(self, thread: ThreadId) -> bool:
        return True

    def owns_bot(self, bot: UserId) -> bool:
        return True

    def shards(self, bot: UserId, threads: Sequence[ThreadId]) -> frozenset[int]:
        return frozenset()
