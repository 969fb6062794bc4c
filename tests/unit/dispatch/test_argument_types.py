from datetime import date, timedelta
from enum import Enum
from typing import Annotated, Literal, NewType
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot.dispatch.argument_types import conversion_for, parse_duration


class Color(Enum):
    RED = "#f00"
    DARK_BLUE = "#00f"


Name = NewType("Name", str)


@pytest.mark.parametrize(
    ("annotation", "word", "value"),
    [
        (str, "six", "six"),
        (int, "-6", -6),
        (float, "2.5", 2.5),
        (bool, "Yes", True),
        (bool, "off", False),
        (date, "2026-02-28", date(2026, 2, 28)),
        (timedelta, "1h30m", timedelta(hours=1, minutes=30)),
        (timedelta, "1.5D", timedelta(days=1.5)),
        (UUID, "12345678123456781234567812345678", UUID(int=0x12345678123456781234567812345678)),
        (Color, "red", Color.RED),
        (Color, "dark_blue", Color.DARK_BLUE),
        (Color, "#00F", Color.DARK_BLUE),
        (Literal["small", "LARGE"], "large", "LARGE"),
        (Literal[1, 2], "2", 2),
        (int | None, "6", 6),
        (Annotated[int, "sides"], "6", 6),
        (Name, "Ann", "Ann"),
    ],
)
def test_an_argument_becomes_a_value_of_its_type(annotation: object, word: str, value: object) -> None:
    conversion = conversion_for(annotation)

    assert conversion is not None
    assert conversion.parse(word) == value


@pytest.mark.parametrize(
    ("annotation", "word"),
    [
        (int, "six"),
        (int, "2.5"),
        (float, "nan"),
        (float, "inf"),
        (bool, "perhaps"),
        (date, "2026-02-30"),
        (timedelta, "90"),
        (timedelta, "soon"),
        (timedelta, "99999999999w"),
        (UUID, "123"),
        (Color, "green"),
        (Literal["small"], "big"),
    ],
)
def test_an_argument_of_another_type_is_refused(annotation: object, word: str) -> None:
    conversion = conversion_for(annotation)

    assert conversion is not None
    with pytest.raises(ValueError):  # noqa: PT011 -- that it is a ValueError is the whole promise
        conversion.parse(word)


@pytest.mark.parametrize("annotation", [list[int], object, dict, int | str, None, "int"])
def test_other_types_have_no_conversion(annotation: object) -> None:
    assert conversion_for(annotation) is None


@given(st.integers(0, 52), st.integers(0, 6), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_durations_add_up_their_parts(weeks: int, days: int, hours: int, minutes: int, seconds: int) -> None:
    expected = timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)

    assert parse_duration(f"{weeks}w{days}d{hours}h{minutes}m{seconds}s") == expected
