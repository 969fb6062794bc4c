from __future__ import annotations

import pytest

from chatbot import testing


@pytest.mark.parametrize("name", testing.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(testing, name).__name__ == name


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'chatbot\.testing' has no attribute 'chatt'"):
        testing.chatt  # type: ignore[attr-defined]  # noqa: B018
