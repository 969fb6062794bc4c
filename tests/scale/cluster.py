"""Which replica owns which threads, by the shard planner of the code, and what moves when replicas come and go."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache

from chatbot.model import ThreadId
from chatbot.stores.shards import SHARDS, plan, shard_of, shares


@dataclass(frozen=True, slots=True)
class Moves:
    """What changes of the replicas move.

    Args:
        largest: shards of the replica that owns most.
        smallest: shards of the replica that owns least.
        taken: shards that one survivor takes over, at most, when a replica dies.
        joined: shards that move when one more replica joins.
        rolled: how often a shard moves, on average, while all replicas are replaced one by one.
    """

    largest: int
    smallest: int
    taken: int
    joined: int
    rolled: float


class Cluster:
    """Replicas, and the shards that they own.

    Args:
        replicas: how many there are at first.
    """

    def __init__(self, replicas: int) -> None:
        self.members = [f"replica-{number}" for number in range(replicas)]
        self.owners: dict[int, str] = {}
        self.claimed = Counter[str]()
        self._joined = replicas
        self.settle()

    def settle(self) -> None:
        """Let members plan until nothing moves. Those that own their share already have nothing to do."""
        while moving := self._unsettled():
            for member in moving:
                planned = plan(member=member, members=self.members, owners=self.owners)
                for shard in planned.release:
                    del self.owners[shard]
                self.owners.update(dict.fromkeys(planned.claim, member))
                self.claimed[member] += len(planned.claim)

    def _unsettled(self) -> list[str]:
        held = Counter(self.owners.values())
        return [member for member, share in shares(self.members, held, {}).items() if held[member] != share]

    def join(self) -> None:
        """Add a replica."""
        self.members.append(f"replica-{self._joined}")
        self._joined += 1
        self.settle()

    def leave(self, member: str) -> None:
        """Remove a replica."""
        self.members.remove(member)
        self.owners = {shard: owner for shard, owner in self.owners.items() if owner != member}
        self.settle()

    def shards_of(self, member: str) -> list[int]:
        """Return the shards of a replica."""
        return [shard for shard, owner in self.owners.items() if owner == member]


@cache
def threads_in_shards(threads: int) -> tuple[int, ...]:
    """Return how many of so many threads are in each shard."""
    counts = Counter(shard_of(ThreadId(f"19:acsV1_{number}@thread.v2")) for number in range(threads))
    return tuple(counts[shard] for shard in range(SHARDS))


def fullest(threads: int, replicas: int) -> int:
    """Return the number of threads in the replica that has most."""
    cluster, sizes = Cluster(replicas), threads_in_shards(threads)
    return max(sum(sizes[shard] for shard in cluster.shards_of(member)) for member in cluster.members)


def moves(replicas: int) -> Moves:
    """Kill one of the replicas, add one, and replace them all; return what moves."""
    cluster = Cluster(replicas)
    sizes = sorted(len(cluster.shards_of(member)) for member in cluster.members)
    cluster.claimed.clear()
    cluster.leave(cluster.members[0])
    taken = max(cluster.claimed.values(), default=0)
    cluster = Cluster(replicas)
    cluster.claimed.clear()
    cluster.join()
    joined = cluster.claimed.total()
    cluster = Cluster(replicas)
    cluster.claimed.clear()
    for member in list(cluster.members):
        cluster.join()
        cluster.leave(member)
    return Moves(sizes[-1], sizes[0], taken, joined, cluster.claimed.total() / SHARDS)
