"""How many of the points of a conversation a test kills at."""

from __future__ import annotations

import pytest

sample_and_all = pytest.mark.parametrize(
    "every",
    [
        pytest.param(24, id="a sample"),
        pytest.param(1, id="all points", marks=[pytest.mark.chaos, pytest.mark.timeout(900)]),
    ],
)
"""The default run kills at every 24th point, the gate at all of them."""
