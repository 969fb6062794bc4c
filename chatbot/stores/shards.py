"""Shards: which part of a store a thread belongs to, and which process owns which shards. Pure: performs no I/O.

The threads of a store are divided into a fixed number of shards by a stable hash. Processes that share a store own
shards, never single threads: there are few enough for one lock each, and one query shows who holds them all.

Nobody assigns shards. Every member reads the same facts (who is there, who holds what) and computes its own part of
the same plan with `plan`. Members that have read the facts at different moments may want the same shard; the lock
decides, and the next round plans with what came of it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Final

from msgspec import Struct

from chatbot.model import ThreadId, UserId

SHARDS: Final = 256
"""The number of shards. Fixed: stored rows carry the numbers of their shards."""

ALL_SHARDS: Final = frozenset(range(SHARDS))
"""The numbers of all shards."""


def shard_of(thread: ThreadId) -> int:
    """Return the shard of a thread.

    It never changes. In PostgreSQL it is `get_byte(decode(md5(thread), 'hex'), 0)`, in a database encoded in UTF-8.

    Raises:
        ValueError: the id is empty. What belongs to no thread has the shard of its bot (`shard_of_bot`).
    """
    if not thread:
        msg = "there is no shard of no thread: use shard_of_bot for what belongs to a bot and to no thread"
        raise ValueError(msg)
    return _shard(thread)


def shard_of_bot(bot: UserId) -> int:
    """Return the shard of what belongs to a bot and to no thread; the same hash, of the bot's user id.

    Raises:
        ValueError: the id is empty.
    """
    if not bot:
        msg = "the id of the bot is empty"
        raise ValueError(msg)
    return _shard(bot)


def _shard(text: str) -> int:
    return hashlib.md5(text.encode(), usedforsecurity=False).digest()[0]


class ShardPlan(Struct, frozen=True):
    """What a member does next.

    Args:
        claim: free shards to lock now, the preferred first.
        release: own shards to give up, as soon as what runs in them has ended.
    """

    claim: tuple[int, ...] = ()
    release: tuple[int, ...] = ()


def plan(
    *,
    member: str,
    members: Collection[str],
    owners: Mapping[int, str],
    releasing: Collection[int] = (),
    limit: float | None = None,
    limits: Mapping[str, float] | None = None,
) -> ShardPlan:
    """Return what a member does next, from facts that all members can see.

    * Fair shares differ by at most one. No shard moves while they are fair.
    * Each free shard is planned for exactly one member, so members with the same facts do not collide.
    * A member above its share releases no more than others lack, after they have claimed what is free.

    Args:
        member: the name of the member that plans.
        members: the names of all live members. The planning one always counts.
        owners: the holder of each shard that is held; a holder need not be live, and its shards are not free.
        releasing: held shards that their holders are giving up: neither free nor anybody's.
        limit: the largest share of all shards that this member takes, 0 to 1; at least one shard, unless it is 0.
            The rest of its fair share goes to the others. A member never exceeds its limit to own what is left over.
        limits: the limits of other members. All members must know them: otherwise they release shards for a member
            that does not claim them.

    Raises:
        ValueError: a shard or a limit is out of range.
    """
    all_limits = dict(limits or {})
    if limit is not None:
        all_limits[member] = limit
    everyone, leaving = {member, *members}, frozenset(releasing)
    if not ALL_SHARDS.issuperset(owners) or not ALL_SHARDS.issuperset(leaving):
        msg = f"shards have the numbers 0 to {SHARDS - 1}"
        raise ValueError(msg)
    held = Counter(owner for shard, owner in owners.items() if shard not in leaving and owner in everyone)
    targets = shares(everyone, held, all_limits)
    lacking = {name: targets[name] - held[name] for name in everyone if targets[name] > held[name]}
    free = ALL_SHARDS.difference(owners, leaving)
    if held[member] <= targets[member]:
        return ShardPlan(claim=_claims(member, free, lacking))
    wanted = sum(lacking.values()) - len(free) - len(leaving)
    surplus = min(held[member] - targets[member], max(0, wanted))
    mine = [shard for shard, owner in owners.items() if owner == member and shard not in leaving]
    # The least preferred ones: should they be free again soon, this member is the last to want them back.
    return ShardPlan(release=tuple(sorted(mine, key=lambda shard: _preference(member, shard))[:surplus]))


def shares(members: Collection[str], held: Mapping[str, int], limits: Mapping[str, float]) -> dict[str, int]:
    """Return how many shards each member should own.

    Args:
        members: the names of all live members.
        held: how many each owns now. Of shares that differ by one, the larger ones go to those that own most:
            this way, the fewest shards move.
        limits: the largest share of some members, 0 to 1 of all shards.

    Raises:
        ValueError: a limit is out of range.
    """
    caps = {name: _cap(limits.get(name)) for name in members}
    result: dict[str, int] = {}
    left, waiting = SHARDS, sorted(members, key=lambda name: (caps[name], name))
    # What a limited member does not take raises the shares of the others, and so may reach the next limit.
    while waiting and caps[waiting[0]] <= left // len(waiting):
        name = waiting.pop(0)
        result[name] = caps[name]
        left -= caps[name]
    ranked = sorted(waiting, key=lambda name: (-held.get(name, 0), name))
    for place, name in enumerate(ranked):
        result[name] = left // len(ranked) + (place < left % len(ranked))
    return result


def _cap(limit: float | None) -> int:
    if limit is None:
        return SHARDS
    if not 0 <= limit <= 1:
        msg = f"a limit of shards is a share from 0 to 1, not {limit}"
        raise ValueError(msg)
    return max(1, int(limit * SHARDS)) if limit else 0


def _claims(member: str, free: Collection[int], lacking: dict[str, int]) -> tuple[int, ...]:
    """Divide free shards among all members that lack some; return those of one member."""
    room, mine = dict(lacking), list[int]()
    if member not in room:
        return ()
    for shard in sorted(free):
        # Each member ranks each shard (rendezvous hashing): the choice hardly depends on who else lacks how many.
        chosen = max(room, key=lambda name: (_preference(name, shard), name), default=None)
        if chosen is None:
            break
        if chosen == member:
            mine.append(shard)
        room[chosen] -= 1
        if not room[chosen]:
            del room[chosen]
    return tuple(sorted(mine, key=lambda shard: _preference(member, shard), reverse=True))


def _preference(member: str, shard: int) -> bytes:
    """Return how much a member prefers a shard; what is greater is preferred."""
    return _preferences(member)[8 * shard : 8 * shard + 8]


@lru_cache(maxsize=1024)
def _preferences(member: str) -> bytes:
    return hashlib.shake_128(member.encode()).digest(8 * SHARDS)
