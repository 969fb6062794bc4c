"""Stories of replicas, played from their seeds. More of them: `python -m tests.simulation --seeds 1000`."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.simulation.scenarios import SCENARIOS
from tests.simulation.story import story_of
from tests.simulation.world import ShuffledQueue, play

SHUFFLED: Final = 4
"""A seed that calls all ready callbacks out of turn."""


def test_a_story_ends_well() -> None:
    assert play(story_of(SHUFFLED, 3)).problems == ()


def test_the_same_seed_is_the_same_story_in_each_process() -> None:
    here = play(story_of(SHUFFLED, 2))
    command = [sys.executable, "-m", "tests.simulation", "--seed", f"{SHUFFLED}", "--replicas", "2"]
    root = Path(__file__).parents[2]
    other = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=root, env={"PYTHONHASHSEED": "4711"}
    )

    assert other.stdout.startswith(f"seed {SHUFFLED}: {here.digest}, ")


@pytest.mark.chaos
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_ends_well_on_the_model(name: str) -> None:
    """On a real server, they are played by `tests/postgres/test_scenarios.py`."""
    assert play(SCENARIOS[name]).problems == ()


# ── the order of what is ready ────────────────────────────────────────────────────────────────────────────────────────


def order_of(seed: int, disorder: float, handles: Sequence[asyncio.Handle]) -> list[asyncio.Handle]:
    queue = ShuffledQueue(random.Random(seed), disorder)
    queue.extend(handles)
    return [queue.popleft() for _ in handles]


async def handles_of(*arguments: object) -> list[asyncio.Handle]:
    loop = asyncio.get_running_loop()
    return [asyncio.Handle(print, (argument,), loop) for argument in arguments]


async def test_a_seed_gives_the_order_in_which_callbacks_are_called() -> None:
    handles = await handles_of(*range(20))

    assert order_of(1, 0.0, handles) == handles
    assert order_of(1, 1.0, handles) == order_of(1, 1.0, handles)
    assert len({tuple(order_of(seed, 1.0, handles)) for seed in range(20)}) == 20
    assert sorted(map(id, order_of(1, 1.0, handles))) == sorted(map(id, handles))


@pytest.mark.parametrize("seed", range(20))
async def test_callbacks_of_one_future_keep_their_order(seed: int) -> None:
    one, two = asyncio.Future[None](), asyncio.Future[None]()
    handles = await handles_of(one, two, 1, one, two, 2, one, two)
    order = order_of(seed, 1.0, handles)

    for future in (one, two):
        assert [handle for handle in order if handle._args[0] is future] == [  # noqa: SLF001 - nothing else tells it
            handle
            for handle in handles
            if handle._args[0] is future  # noqa: SLF001
        ]
