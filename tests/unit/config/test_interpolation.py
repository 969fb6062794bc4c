from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot.config.interpolation import InterpolationError, interpolate

ENVIRON = {"V": "value", "EMPTY": "", "DOLLAR": "${V}"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("<${V}>", "<value>"),
        ("<$V>", "<value>"),
        ("${V:-default}", "value"),
        ("${NONE:-default}", "default"),
        ("${EMPTY:-default}", "default"),
        ("${EMPTY-default}", ""),
        ("${NONE-default}", "default"),
        ("${NONE:-}", ""),
        ("${NONE:-${V}}", "value"),
        ("${NONE:-a${ALSO_NONE:-b}c}", "abc"),
        ("${V:?message}", "value"),
        ("${EMPTY?message}", ""),
        ("${V:+other}", "other"),
        ("${EMPTY:+other}", ""),
        ("${EMPTY+other}", "other"),
        ("${NONE+other}", ""),
        ("$$V $${V}", "$V ${V}"),
        ("${NONE:-$$}", "$"),
        ("${V}${V}", "valuevalue"),
        ("${EMPTY}", ""),
        ("${DOLLAR}", "${V}"),  # a value is never looked into again
    ],
)
def test_variables_are_replaced_as_compose_does(text: str, expected: str) -> None:
    assert interpolate(text, ENVIRON) == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("${NONE}", "the environment variable NONE is not set (set it, or give a default: ${NONE:-default})"),
        ("$NONE", "the environment variable NONE is not set (set it, or give a default: ${NONE:-default})"),
        ("${NONE:?ask Ann for it}", "the environment variable NONE is not set: ask Ann for it"),
        ("${NONE?}", "the environment variable NONE is not set"),
        ("${EMPTY:?ask Ann for it}", "the environment variable EMPTY is empty: ask Ann for it"),
        ("${V", "a ${ is not closed by }"),
        ("${NONE:-${V}", "a ${ is not closed by }"),
        ("5 $", "a $ must be followed by {NAME}; for a plain dollar sign write $$"),
        ("${1}", "a $ must be followed by {NAME}; for a plain dollar sign write $$"),
        ("${V V}", "${V V} is not valid (try ${V} or ${V:-default})"),
        ("${NONE:-" * 30 + "}" * 30, "variables are nested more than 20 deep"),
    ],
)
def test_a_dollar_sign_without_a_variable_is_refused_with_the_remedy(text: str, sentence: str) -> None:
    with pytest.raises(InterpolationError) as caught:
        interpolate(text, ENVIRON)

    assert str(caught.value) == sentence


@given(st.text())
def test_doubling_every_dollar_sign_keeps_any_text_as_it_is(text: str) -> None:
    assert interpolate(text.replace("$", "$$"), {}) == text


@given(st.text(alphabet="${}:-?+V "))
def test_any_text_is_either_replaced_or_refused(text: str) -> None:
    with suppress(InterpolationError):
        assert "${V}" not in interpolate(text.replace("$$", ""), ENVIRON)
