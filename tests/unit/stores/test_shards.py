"""The shard of a thread, and which member of a cluster claims and releases which shards."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatbot.model import ThreadId, UserId
from chatbot.stores.shards import ALL_SHARDS, SHARDS, ShardPlan, plan, shard_of, shard_of_bot, shares


@pytest.mark.parametrize(
    ("thread", "shard"),
    [
        ("19:acsV1_1@thread.v2", 50),
        ("19:acsV1_jfYVS3Dlw5XXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX1@thread.v2", 103),
        ("19:überall_日本@thread.v2", 220),
        ("a", 12),
        (" ", 114),
    ],
)
def test_the_shard_of_a_thread_never_changes(thread: str, shard: int) -> None:
    # Stored: these numbers must hold for ever. PostgreSQL: SELECT get_byte(decode(md5('a'), 'hex'), 0)
    assert shard_of(ThreadId(thread)) == shard
    assert shard_of_bot(UserId(thread)) == shard


def test_threads_are_spread_evenly_over_all_shards() -> None:
    counts = Counter(shard_of(ThreadId(f"19:acsV1_{number}@thread.v2")) for number in range(100 * SHARDS))
    assert set(counts) == ALL_SHARDS
    assert max(counts.values()) < 150


def test_no_thread_and_no_bot_have_no_shard() -> None:
    with pytest.raises(ValueError, match="use shard_of_bot"):
        shard_of(ThreadId(""))
    with pytest.raises(ValueError, match="the bot is empty"):
        shard_of_bot(UserId(""))


@dataclass
class Cluster:
    """What the locks of a server would show, and members that plan from it."""

    members: list[str]
    owners: dict[int, str]
    limits: dict[str, float] = field(default_factory=dict)
    releases: int = 0

    def plans(self, owners: Mapping[int, str] | None = None) -> dict[str, ShardPlan]:
        facts = self.owners if owners is None else owners
        return {
            name: plan(member=name, members=self.members, owners=facts, limits=self.limits) for name in self.members
        }

    def apply(self, member: str, planned: ShardPlan) -> int:
        """Return how many claims failed, because another member was faster."""
        assert not set(planned.claim) & set(planned.release)
        for shard in planned.release:
            assert self.owners.pop(shard) == member
        self.releases += len(planned.release)
        lost = [shard for shard in planned.claim if self.owners.setdefault(shard, member) != member]
        return len(lost)

    def round(self) -> int:
        return sum(self.apply(member, planned) for member, planned in self.plans().items())

    def sizes(self) -> list[int]:
        counts = Counter(self.owners.values())
        return sorted((counts[name] for name in self.members), reverse=True)

    @property
    def is_fair(self) -> bool:
        return set(self.owners) == ALL_SHARDS and self.sizes()[0] - self.sizes()[-1] <= 1


def fair(members: int) -> list[int]:
    return [SHARDS // members + (place < SHARDS % members) for place in range(members)]


def names(count: int, first: int = 0) -> list[str]:
    return [f"replica-{number}" for number in range(first, first + count)]


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    members = names(draw(st.integers(1, 12)))
    weights = draw(st.lists(st.integers(0, 4), min_size=len(members) + 1, max_size=len(members) + 1))
    random = Random(draw(st.integers()))
    pool = [name for name, weight in zip([*members, ""], weights, strict=True) for _ in range(weight)] or [""]
    owners = {shard: owner for shard in range(SHARDS) if (owner := random.choice(pool))}
    return Cluster(members, owners)


@given(clusters())
@settings(max_examples=40)
def test_from_any_start_two_rounds_reach_fair_shares_without_collisions_or_needless_moves(cluster: Cluster) -> None:
    held = cluster.sizes()
    needed = sum(max(0, size - target) for size, target in zip(held, fair(len(held)), strict=True))
    assert cluster.round() + cluster.round() == 0
    assert cluster.is_fair
    assert cluster.releases == needed
    assert set(cluster.plans().values()) == {ShardPlan()}


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=8))
@settings(max_examples=25)
def test_members_join_and_leave_and_only_their_shards_move(changes: list[tuple[bool, int]]) -> None:
    cluster = Cluster(names(1), {})
    cluster.round()
    for number, (joins, pick) in enumerate(changes, start=1):
        before = dict(cluster.owners)
        if joins or len(cluster.members) == 1:
            cluster.members.append(f"later-{number}")
        else:
            gone = cluster.members.pop(pick % len(cluster.members))
            cluster.owners = {shard: owner for shard, owner in cluster.owners.items() if owner != gone}
        expected = SHARDS // len(cluster.members) if joins or len(cluster.members) == 2 else 0
        cluster.releases = 0
        cluster.round()
        cluster.round()
        assert cluster.is_fair
        if len(cluster.members) > len(set(before.values())):
            assert cluster.releases == expected  # a joining member gets its share, and nothing else moves
        else:
            assert cluster.releases == 0
            assert all(cluster.owners[shard] == owner for shard, owner in before.items() if owner in cluster.members)


@given(clusters(), st.integers())
@settings(max_examples=40)
def test_members_that_act_one_after_the_other_on_older_facts_still_reach_fair_shares(
    cluster: Cluster, seed: int
) -> None:
    random = Random(seed)
    past = [dict(cluster.owners)]
    for _ in range(12):
        for member in random.sample(cluster.members, len(cluster.members)):
            # What others hold is known from up to a round ago; what is its own, each member knows.
            seen = random.choice(past[-len(cluster.members) - 1 :])
            facts = {shard: owner for shard, owner in seen.items() if owner != member}
            facts |= {shard: owner for shard, owner in cluster.owners.items() if owner == member}
            cluster.apply(member, plan(member=member, members=cluster.members, owners=facts))
            past.append(dict(cluster.owners))
        if cluster.is_fair:
            break
    assert cluster.is_fair


@given(clusters(), st.sets(st.integers(0, 11)))
@settings(max_examples=25)
def test_members_that_know_of_different_members_own_all_shards_once_they_agree(
    cluster: Cluster, missing: set[int]
) -> None:
    partial = [name for number, name in enumerate(cluster.members) if number not in missing]
    for number, member in enumerate(cluster.members):
        view = partial if number % 2 else cluster.members
        cluster.apply(member, plan(member=member, members=view, owners=cluster.owners))
    cluster.round()
    cluster.round()
    assert cluster.is_fair


@given(clusters(), st.dictionaries(st.integers(0, 11), st.floats(0, 1)))
@settings(max_examples=25)
def test_a_limited_member_stays_below_its_limit_and_the_others_take_the_rest(
    cluster: Cluster, chosen: dict[int, float]
) -> None:
    # The last member has no limit: somebody can take what is left over.
    cluster.limits = {
        cluster.members[number]: limit for number, limit in chosen.items() if number < len(cluster.members) - 1
    }
    cluster.round()
    cluster.round()
    counts = Counter(cluster.owners.values())
    for member, limit in cluster.limits.items():
        assert counts[member] <= max(1, limit * SHARDS) if limit else counts[member] == 0
    free = [counts[member] for member in cluster.members if member not in cluster.limits]
    assert max(free) - min(free) <= 1
    assert max(counts.values()) <= max(free) + 1
    assert set(cluster.owners) == ALL_SHARDS
    assert set(cluster.plans().values()) == {ShardPlan()}


def test_a_canary_takes_a_twentieth_and_no_more_when_it_is_alone() -> None:
    others = dict.fromkeys(ALL_SHARDS, "old")
    release = plan(member="old", members=["old", "new"], owners=others, limits={"new": 0.05}).release
    assert len(release) == 12
    owners = dict.fromkeys(ALL_SHARDS.difference(release), "old")
    claim = plan(member="new", members=["old", "new"], owners=owners, limit=0.05).claim
    assert set(claim) == set(release)
    assert len(plan(member="new", members=["new"], owners={}, limit=0.05).claim) == 12
    assert len(plan(member="new", members=["new"], owners={}, limit=0.0001).claim) == 1


def test_a_member_without_a_share_hands_back_what_others_take_but_never_to_nobody() -> None:
    owners = dict.fromkeys(ALL_SHARDS, "new")
    assert set(plan(member="new", members=["old", "new"], owners=owners, limit=0).release) == ALL_SHARDS
    assert plan(member="new", members=["new"], owners=owners, limit=0) == ShardPlan()


def test_shards_that_are_being_released_are_neither_free_nor_released_again() -> None:
    owners = dict.fromkeys(ALL_SHARDS, "a")
    first = plan(member="a", members=["a", "b"], owners=owners)
    assert len(first.release) == SHARDS // 2
    assert plan(member="a", members=["a", "b"], owners=owners, releasing=first.release) == ShardPlan()
    assert plan(member="b", members=["a", "b"], owners=owners, releasing=first.release) == ShardPlan()


def test_shards_of_a_dead_holder_are_not_free_until_its_locks_are() -> None:
    owners = {shard: "a" if shard < SHARDS // 2 else "dead" for shard in ALL_SHARDS}
    assert plan(member="a", members=["a", "b"], owners=owners) == ShardPlan()
    assert plan(member="b", members=["a", "b"], owners=owners) == ShardPlan()
    held = {shard: owner for shard, owner in owners.items() if owner == "a"}
    assert set(plan(member="b", members=["a", "b"], owners=held).claim) == set(range(SHARDS // 2, SHARDS))


def test_a_member_that_the_others_do_not_see_yet_counts_itself() -> None:
    assert len(plan(member="b", members=["a"], owners={}).claim) == SHARDS // 2


def test_more_members_than_shards_leave_some_without_any() -> None:
    members = names(SHARDS + 4)
    assert Counter(shares(members, {}, {}).values()) == {1: SHARDS, 0: 4}
    owners = dict(zip(range(SHARDS), members, strict=False))
    assert plan(member=members[0], members=members, owners=owners) == ShardPlan()
    assert plan(member=members[-1], members=members, owners=owners) == ShardPlan()


def test_shards_and_limits_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="0 to 255"):
        plan(member="a", members=[], owners={SHARDS: "a"})
    with pytest.raises(ValueError, match="0 to 255"):
        plan(member="a", members=[], owners={}, releasing=[-1])
    with pytest.raises(ValueError, match="from 0 to 1, not 5"):
        shares(["a"], {}, {"a": 5})
