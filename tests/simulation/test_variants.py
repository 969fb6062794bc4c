"""The simulation finds rules that are broken on purpose, each by a seed that is known to find it."""

from __future__ import annotations

from typing import Final

import pytest

from tests.simulation.story import shrunk, story_of
from tests.simulation.variants import VARIANTS, Variant
from tests.simulation.world import play

pytestmark = pytest.mark.chaos

FOUND_BY: Final = {}
"""The seed that finds each broken variant; `python -m tests.simulation --variant all` searches anew."""

BROKEN: Final = [variant for variant in VARIANTS if variant.name in FOUND_BY]
HARMLESS: Final = [variant for variant in VARIANTS if variant.is_harmless]


def name_of(variant: Variant) -> str:
    return variant.name


@pytest.mark.parametrize("variant", BROKEN, ids=name_of)
def test_a_broken_rule_is_found(variant: Variant) -> None:
    with variant.patch():
        outcome = play(story_of(FOUND_BY[variant.name], 3))

    assert outcome.problems


@pytest.mark.parametrize("variant", HARMLESS, ids=name_of)
def test_what_is_harmless_is_no_failure(variant: Variant) -> None:
    with variant.patch():
        assert play(story_of(4, 3)).problems == ()


@pytest.mark.parametrize("seed", range(3, 13))
def test_stories_end_well(seed: int) -> None:
    assert play(story_of(seed, 3)).problems == ()


def test_a_story_that_fails_is_shortened() -> None:
    variant = next(variant for variant in VARIANTS if variant.name == "key without its part")
    with variant.patch():
        story = story_of(FOUND_BY[variant.name], 3)
        kind = play(story).problems[0].kind
        shorter = shrunk(story, lambda story: kind in play(story).kinds)

        assert len(shorter.steps) == 1
        assert kind in play(shorter).kinds
