"""What a process that shares its store knows of the others, for /status and /metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from msgspec import Struct

from chatbot.cluster.member import ClusterMember, Moves
from chatbot.runtime.observe.counters import Distribution, Stopwatch
from chatbot.stores.base import MeasuredStore, Replica, SharedStore
from chatbot.stores.shards import SHARDS


class SharingStatus(Struct, frozen=True):
    """A process among those that share a store.

    Args:
        is_held: Its session with the server is alive, so that it may work.
        owned: Number of shards it owns.
        replicas: The processes that share the store, as last counted.
        ownerless: Number of shards that have had no owner for more than ten seconds.
        moves: Shards that have come and gone.
        refused: Commits that were refused because another process owned a shard.
        commits: Round trips of commits to the server.
        lag: Seconds by which the slowest standby of the server is behind; None without any.
    """

    is_held: bool
    owned: int
    replicas: tuple[Replica, ...]
    ownerless: int
    moves: Moves
    refused: int
    commits: Distribution
    lag: float | None

    def as_json(self) -> Mapping[str, Any]:
        """Return the status as JSON data."""
        moves = self.moves
        return {
            "is_held": self.is_held,
            "shards": {"owned": self.owned, "all": SHARDS, "without_owner": self.ownerless},
            "moves": {
                "gained": moves.gained,
                "after_crash": moves.after_crash,
                "released": moves.released,
                "lost": moves.lost,
            },
            "commits_refused": self.refused,
            "replication_lag_seconds": self.lag,
            "replicas": [
                {
                    "name": one.name,
                    "host": one.host,
                    "pid": one.pid,
                    "version": one.version,
                    "shards": len(one.shards),
                    "is_oneself": one.is_oneself,
                }
                for one in self.replicas
            ],
        }


class SharingMonitor:
    """Measures the use of a shared store. Create it before the bots run.

    Args:
        member: This process.
        store: The store.
    """

    def __init__(self, member: ClusterMember, store: SharedStore) -> None:
        self._member = member
        self._store = store
        self._commits = Stopwatch()
        if isinstance(store, MeasuredStore):
            store.on_round_trip = self._commits.add

    def read(self) -> SharingStatus:
        """Return the status now."""
        member = self._member
        return SharingStatus(
            is_held=self._store.is_held,
            owned=len(member.owned),
            replicas=tuple(member.members),
            ownerless=member.ownerless,
            moves=replace(member.moves),
            refused=self._store.refused if isinstance(self._store, MeasuredStore) else 0,
            commits=self._commits.read(),
            lag=member.lag,
        )
