"""How long a wish waits before it is tried again."""

from __future__ import annotations

import pytest

from chatbot.errors import OutcomeUnknown, ServiceError, Throttled, Unreachable
from chatbot.outbox.outbox import pause_after


@pytest.mark.parametrize(
    ("error", "longest"), [(OutcomeUnknown("lost"), 60.0), (Unreachable("down"), 60.0), (Throttled("slow down"), 10.0)]
)
def test_it_doubles_up_to_a_limit_however_long_an_outage_lasts(error: ServiceError, longest: float) -> None:
    pauses = [pause_after(error, failures) for failures in (1, 2, 3, 4, 7, 100, 5_000)]

    assert pauses == [1.0, 2.0, 4.0, 8.0, longest, longest, longest]


def test_what_the_service_asks_for_is_done() -> None:
    assert pause_after(Throttled("slow down", retry_after=25.0), 1) == 25.0
