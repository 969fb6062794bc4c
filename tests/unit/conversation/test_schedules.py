"""When schedules are due, also where clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot.conversation.schedules import Cron, Every

PARIS = ZoneInfo("Europe/Paris")
MINUTE = 60_000

moments = st.integers(0, 4_000_000_000_000)
zones = st.sampled_from(["UTC", "Europe/Paris", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"])
numbers = st.one_of(
    st.just("*"),
    st.integers(1, 12).map(str),
    st.tuples(st.integers(1, 6), st.integers(7, 12)).map(lambda pair: f"{pair[0]}-{pair[1]}"),
    st.integers(2, 5).map(lambda step: f"*/{step}"),
)


def ms(*moment: int, tz: ZoneInfo = PARIS, fold: int = 0) -> int:
    return round(datetime(*moment, tzinfo=tz, fold=fold).timestamp() * 1000)  # type: ignore[misc, arg-type]


def shown(cron: Cron, after: int, count: int) -> list[str]:
    due = []
    for _ in range(count):
        found = cron.next_due(after)
        assert found is not None
        after = found
        due.append(datetime.fromtimestamp(after / 1000, UTC).astimezone(ZoneInfo(cron.tz)).strftime("%d. %H:%M %z"))
    return due


@given(st.timedeltas(timedelta(seconds=1), timedelta(days=400)), moments, moments)
def test_a_period_is_due_at_its_next_multiple_after_now(period: timedelta, last: int, after: int) -> None:
    step = period // timedelta(milliseconds=1)
    due = Every(period).next_due(after, last)

    assert due is not None
    assert due > after
    assert (due - last) % step == 0
    assert due - step <= after or due == last + step


def test_a_period_begins_with_now() -> None:
    assert Every(timedelta(minutes=1)).next_due(5) == 5 + MINUTE


@given(numbers, numbers, zones, moments)
def test_cron_is_due_after_now_at_a_minute_its_fields_name(minute: str, hour: str, tz: str, after: int) -> None:
    due = Cron(f"{minute} {hour} * * *", tz).next_due(after)

    assert due is not None
    assert due > after
    local = datetime.fromtimestamp(due / 1000, UTC).astimezone(ZoneInfo(tz))
    earlier = datetime.fromtimestamp(due / 1000 - 3600, UTC).astimezone(ZoneInfo(tz))
    is_after_a_change = local.utcoffset() != earlier.utcoffset()
    assert is_after_a_change or (_names(minute, local.minute) and _names(hour, local.hour))
    assert local.second == 0


@given(numbers, numbers, st.datetimes(datetime(2026, 4, 1), datetime(2026, 9, 1)))
def test_cron_leaves_no_minute_out_that_its_fields_name(minute: str, hour: str, start: datetime) -> None:
    after = round(start.replace(tzinfo=UTC).timestamp() * 1000)
    due = Cron(f"{minute} {hour} * * *").next_due(after)

    assert due is not None
    first = after // MINUTE * MINUTE + MINUTE
    for one in range(first, due, MINUTE):
        at = datetime.fromtimestamp(one / 1000, UTC)
        assert not (_names(minute, at.minute) and _names(hour, at.hour))


def _names(field: str, value: int) -> bool:
    if field == "*":
        return True
    if field.startswith("*/"):
        return value % int(field[2:]) == 0
    first, _, last = field.partition("-")
    return int(first) <= value <= int(last or first)


def test_a_time_that_a_clock_change_skips_is_due_right_after_it() -> None:
    assert shown(Cron("30 2 * * *", "Europe/Paris"), ms(2026, 3, 28, 3), 2) == ["29. 03:00 +0200", "30. 02:30 +0200"]


def test_a_time_that_comes_twice_is_due_the_first_time() -> None:
    assert shown(Cron("30 2 * * *", "Europe/Paris"), ms(2026, 10, 24, 3), 2) == ["25. 02:30 +0200", "26. 02:30 +0100"]


def test_what_is_due_every_half_hour_is_due_in_both_hours_of_a_clock_change() -> None:
    assert shown(Cron("*/30 * * * *", "Europe/Paris"), ms(2026, 10, 25, 1, 50), 5) == [
        "25. 02:00 +0200",
        "25. 02:30 +0200",
        "25. 02:00 +0100",
        "25. 02:30 +0100",
        "25. 03:00 +0100",
    ]


def test_weekdays_are_those_of_the_zone() -> None:
    monday_in_paris = Cron("0 0 * * MON", "Europe/Paris").next_due(ms(2026, 11, 20, 12))

    assert monday_in_paris == ms(2026, 11, 23)


@pytest.mark.parametrize(
    ("expression", "tz", "text"),
    [
        ("hourly", "UTC", r"'hourly' is not a cron expression; give minute, hour, day of month"),
        ("0 0 9 * * 1", "UTC", r"'0 0 9 \* \* 1' is not a cron expression; give minute"),
        ("61 * * * *", "UTC", r"is not a cron expression: bad minute; an example is"),
        ("0 0 30 2 *", "UTC", r"is not a cron expression: bad day-of-month"),
        ("0 9 * * *", "Paris", r"'Paris' is not a time zone; give one of the IANA database, as in 'Europe/Paris'"),
        ("0 9 * * *", "/etc/passwd", r"is not a time zone"),
        ("0 9 * * *", "", r"'' is not a time zone"),
    ],
)
def test_what_is_no_schedule_is_refused(expression: str, tz: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Cron(expression, tz)


def test_a_period_of_less_than_a_second_is_refused() -> None:
    with pytest.raises(ValueError, match="more often than every second"):
        Every(timedelta(milliseconds=999))
