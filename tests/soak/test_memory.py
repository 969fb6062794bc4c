"""How the soak judges memory."""

from __future__ import annotations

from tests.soak.memory import WARM_UP_SECONDS, MemoryRecord


def recorded(held: list[float], *, every: float = 10.0, settled_at: float | None = 0.0) -> MemoryRecord:
    record = MemoryRecord(settled_at=settled_at)
    for number, mebibytes in enumerate(held):
        record.note(1, number * every, mebibytes)
    return record


def test_constant_memory_is_flat_and_reported_by_minutes() -> None:
    record = recorded([50.0] * 6 + [100.0, 101.0] * 12)

    assert record.growth == 1.0
    assert record.is_flat
    assert record.by_minute == [100.5, 100.5, 100.5]


def test_growing_memory_is_not_flat() -> None:
    assert not recorded([100.0 + number for number in range(40)]).is_flat


def test_a_single_peak_is_no_growth() -> None:
    assert recorded([100.0] * 20 + [500.0] + [100.0] * 20).is_flat


def test_memory_during_warm_up_arrivals_and_silence_is_not_evaluated() -> None:
    record = recorded([10.0] * 20 + [100.0] * 20, settled_at=200.0 - WARM_UP_SECONDS)
    record.silent_at = 300.0
    record.note(1, 400.0, 900.0)

    assert [held for _, held in record.judged] == [100.0] * 11


def test_another_process_begins_a_new_measurement() -> None:
    record = recorded([100.0] * 40)
    record.note(2, 500.0, 50.0)

    assert record.growth is None
    assert record.by_minute == []


def test_of_a_short_time_nothing_is_said() -> None:
    record = recorded([100.0] * 8)

    assert record.growth is None
    assert record.is_flat
