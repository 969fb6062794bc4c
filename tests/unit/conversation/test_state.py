"""State is read and set through `value`; other use is refused at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from chatbot import BotState, ProfileState, State, UserState
from chatbot.conversation.state import KINDS


@dataclass
class Cart:
    items: int = 0


@pytest.mark.parametrize("kind", KINDS)
def test_an_attribute_outside_of_the_value_is_refused_before_it_is_lost(kind: Any) -> None:
    state = kind(Cart())

    with pytest.raises(AttributeError, match=rf"a {kind.__name__} has no 'items' of its own;.* write `\.value\.items`"):
        state.items = 3
    with pytest.raises(AttributeError, match=r"write `\.value\.items`"):
        _ = state.items

    state.value.items = 3
    assert state.value == Cart(3)
    state.value = Cart(4)
    assert state.value == Cart(4)


def test_a_state_may_be_made_with_its_type_for_a_handler_that_is_called_plainly() -> None:
    made = [State[Cart](Cart(1)), UserState[Cart](Cart(1)), ProfileState[Cart](Cart(1)), BotState[Cart](Cart(1))]

    assert [one.value.items for one in made] == [1, 1, 1, 1]
