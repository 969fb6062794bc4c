"""Short stories of one kind of disturbance each. They are played on the model of the database, and on a real server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tests.simulation.story import KNOWN_THREADS, Step, Story

SECONDS: Final = 10.0
"""How long people talk in a scenario, and what disturbs it lasts."""

REPLICAS: Final = 2
"""How many replicas there are; a scenario may add one."""

BEYOND: Final = 7.5
"""Seconds of a pause or a partition that the server does not wait for."""


def _scenario(seed: int, *disturbances: tuple[float, str, int, float]) -> Story:
    """Return a story in which people talk in all threads, while something happens at these times."""
    talk = [(0.3 + 0.6 * number, "say", number % KNOWN_THREADS, 0.0) for number in range(16)]
    more = [(1.0, "slow", 0, 0.0), (2.2, "remind", 1, 4.0), (2.6, "ask", 2, 5.0), (3.1, "tally", 0, 0.0)]
    more += [(3.2, "tally", 1, 0.0), (4.0, "tell", 2, 0.0), (5.0, "two", 0, 0.0), (6.0, "say", KNOWN_THREADS, 0.0)]
    happens = sorted([*talk, *more, *disturbances])
    steps = tuple(Step(number, *step) for number, step in enumerate(happens))
    return Story(seed, REPLICAS, steps, SECONDS)


SCENARIOS: Final[Mapping[str, Story]] = {
    "one joins, and leaves again": _scenario(1, (1.1, "visit", 0, 6.0)),
    "one leaves while handlers run": _scenario(2, (1.2, "leave", 0, 2.0), (5.2, "leave", 1, 1.0)),
    "one is killed after a send": _scenario(3, (1.5, "kill after send", 0, 2.0), (6.0, "kill", 1, 1.0)),
    "one is paused for longer than its session may be silent": _scenario(4, (2.0, "pause", 0, BEYOND)),
    "one freezes between the check and the send": _scenario(5, (2.0, "freeze send", 1, BEYOND)),
    "one is cut off from everything": _scenario(6, (2.0, "cut all", 1, BEYOND)),
    "one is cut off from the store": _scenario(7, (2.0, "cut store", 0, 3.0)),
    "one has a wrong clock": _scenario(8, (1.5, "rejoin askew", 0, 0.5)),
}
"""What happens, by a name."""
