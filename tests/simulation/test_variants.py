"""The simulation finds rules that are broken on purpose."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from tests.simulation.story import shrunk, story_of
from tests.simulation.variants import VARIANTS, Variant
from tests.simulation.world import play

pytestmark = pytest.mark.chaos

FOUND_BY: Final = {
    "fence removed": 6,
    "epoch not raised": 6,
    "silent sessions not ended": 18,
    "deadline off": 1,
    "deadline too late": 1,
    "work before losses are told": 28,
    "retake with another's epoch": 21,
    "losses not passed on": 1,
    "lanes kept after a release": 1,
    "release without draining": 6,
    "release before the deferred writes": 6,
    "claim without pending actions": 1,
    "claim without dialogs": 6,
    "claim without noting crashes": 4,
    "timers loaded twice": 2,
    "timers of others kept": 1,
    "gained threads not listed again": 19,
    "actions handed to any lane": 1,
    "forwarded threads dropped": 1,
    "every replica lists threads": 1,
    "commits of lanes without shards": 13,
    "write-behind without shards": 6,
    "write-behind stops after a release": 1,
    "cursor marked before the commit": 3,
    "cursor base early": 12,
    "states written without their versions": 1,
    "actions sent before they are stored": 1,
    "key without its part": 1,
    "pending actions sent without proof": 29,
    "the elder of two doubles deleted": 18,
    "doubles not healed": 18,
    "notes of actions dropped": 1,
}
"""The seed that has found each broken variant. Another one may find it when the bot does things in another order.

`python -m tests.simulation --variant all` also searches for those that take many seeds, and are not here.
"""

SEEDS: Final = 100
"""How many seeds are tried if that one does not find it any more."""

BROKEN: Final = [variant for variant in VARIANTS if variant.name in FOUND_BY]
HARMLESS: Final = [variant for variant in VARIANTS if variant.is_harmless]


def seeds_for(variant: Variant) -> Iterator[int]:
    """Yield the seed that has found a variant, and others."""
    yield FOUND_BY[variant.name]
    yield from range(1, SEEDS)


def name_of(variant: Variant) -> str:
    return variant.name


@pytest.mark.parametrize("variant", BROKEN, ids=name_of)
def test_a_broken_rule_is_found(variant: Variant) -> None:
    with variant.patch():
        assert any(play(story_of(seed, 3)).problems for seed in seeds_for(variant))


@pytest.mark.parametrize("variant", HARMLESS, ids=name_of)
def test_what_is_harmless_is_no_failure(variant: Variant) -> None:
    with variant.patch():
        assert play(story_of(4, 3)).problems == ()


@pytest.mark.parametrize("seed", range(3, 9))
def test_stories_end_well(seed: int) -> None:
    assert play(story_of(seed, 3)).problems == ()


def test_a_story_that_fails_is_shortened() -> None:
    variant = next(variant for variant in VARIANTS if variant.name == "key without its part")
    with variant.patch():
        story = next(story for seed in seeds_for(variant) if play(story := story_of(seed, 3)).problems)
        kind = play(story).problems[0].kind
        shorter = shrunk(story, lambda story: kind in play(story).kinds)

        assert len(shorter.steps) == 1
        assert kind in play(shorter).kinds
