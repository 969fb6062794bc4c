"""Stories of replicas, played from their seeds. More of them: `python -m tests.simulation --seeds 1000`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.simulation.story import story_of
from tests.simulation.world import play

PAST: Final = (2, 63)
"""Seeds that have found something:

* 2: the write-behind stopped as soon as shards were given up.
* 63: what it was storing when the bot was stopped was not stored.
"""


@pytest.mark.parametrize("seed", [PAST[0], *(pytest.param(seed, marks=pytest.mark.chaos) for seed in PAST[1:])])
def test_a_story_that_has_found_something_ends_well(seed: int) -> None:
    assert play(story_of(seed, 3)).problems == ()


def test_the_same_seed_is_the_same_story_in_each_process() -> None:
    here = play(story_of(1, 2))
    command = [sys.executable, "-m", "tests.simulation", "--seed", "1", "--replicas", "2"]
    root = Path(__file__).parents[2]
    other = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=root, env={"PYTHONHASHSEED": "4711"}
    )

    assert other.stdout.startswith(f"seed 1: {here.digest}, ")
