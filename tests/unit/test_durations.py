from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500ms", timedelta(milliseconds=500)),
        ("1s", timedelta(seconds=1)),
        ("2m", timedelta(minutes=2)),
        ("1h 30m", timedelta(minutes=90)),
        ("1h30m", timedelta(minutes=90)),
        ("30d", timedelta(days=30)),
        ("1.5s", timedelta(milliseconds=1500)),
        ("0s", timedelta()),
        ("2w 1D", timedelta(days=15)),
    ],
)
def test_a_duration_is_a_sum_of_numbers_with_units(text: str, expected: timedelta) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("1 sec", '"1 sec" is not a duration (try 1s)'),
        ("5 Minutes", '"5 Minutes" is not a duration (try 5m)'),
        ("1,5 h", '"1,5 h" is not a duration (try 1.5h)'),
        ("10", '"10" is not a duration (try 10s)'),
        (10, "10 is not a duration (try 10s)"),
        ("soon", '"soon" is not a duration (try 1s, 500ms, 2m, 1h 30m or 30d)'),
        ("-1s", '"-1s" is not a duration (try 1s, 500ms, 2m, 1h 30m or 30d)'),
        ("1s 1s", '"1s 1s" is not a duration (try 1s, 500ms, 2m, 1h 30m or 30d)'),
        ("30m 1h", '"30m 1h" is not a duration (try 1s, 500ms, 2m, 1h 30m or 30d)'),
        ("99999999999999d", '"99999999999999d" is too long: 36500d (100 years) is the most'),
        ("36501d", '"36501d" is too long: 36500d (100 years) is the most'),
        ("99999999999999w 1d", '"99999999999999w 1d" is too long: 36500d (100 years) is the most'),
        ("99999999999999w x", '"99999999999999w x" is not a duration (try 1s, 500ms, 2m, 1h 30m or 30d)'),
        (timedelta.max, "999999999 days, 23:59:59.999999 is too long: 36500d (100 years) is the most"),
        ("", '"" is not a duration (try 1s, 500ms, 2m, 1h 30m or 30d)'),
        (None, "nothing is not a duration (try 1s, 500ms, 2m, 1h 30m or 30d)"),
        (True, "true is not a duration (try 1s, 500ms, 2m, 1h 30m or 30d)"),
    ],
)
def test_what_is_no_duration_is_refused_with_the_nearest_spelling(value: object, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole text is compared below
        parse_duration(value)

    assert str(caught.value) == sentence


@given(st.integers(min_value=0, max_value=10**12).map(lambda ms: timedelta(milliseconds=ms)))
def test_what_is_written_is_read_again_as_the_same(duration: timedelta) -> None:
    assert parse_duration(format_duration(duration)) == duration
