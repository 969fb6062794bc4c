from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot.cli.masks import NAMES, Masks
from chatbot.model import UserId

MARIA = UserId("8:acs:11111111-1111-1111-1111-111111111111_0000")
BO = UserId("8:acs:2")


def masks() -> Masks:
    return Masks({MARIA: "Maria Müller van Dam", BO: "Bo"}, ["Ben"])


def test_people_get_names_in_their_order_and_none_of_a_bot() -> None:
    assert [masks().person(MARIA), masks().person(BO)] == ["Ann", "Cat"]


def test_somebody_has_a_name_when_all_are_taken() -> None:
    masks = Masks({UserId(f"8:acs:{number}"): None for number in range(40)})

    assert masks.person(UserId("8:acs:39")) == "Person 40"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("I am Maria Müller van Dam, or maria; MÜLLER", "I am Ann, or Ann; Ann"),
        ("Bo and Bob and the van", "Cat and Bob and the van"),
        ("maria.mueller@contoso.com, x@y.de, X@Y.de", "person1@example.com, person2@example.com, person2@example.com"),
        (f"I am {MARIA}!", "I am 8:acs:user1!"),
        ("see 19:abc_DEF-1@thread.v2", "see 19:thread1@thread.v2"),
        ("4:+4915112345678 called", "8:acs:user1 called"),
        ("key 3F2504E0-4F89-41D3-9A0C-0305E82C3301.", "key 00000000-0000-0000-0000-000000000001."),
        ("token eyJhbGciOiJIUzI1NiIsInR5", "token id1"),
        ("call +49 (0)30 901820-11 or 0151/12345678", "call +1 555 0101 or +1 555 0102"),
        ("card 4111 1111 1111 1111", "card +1 555 0101"),
    ],
)
def test_what_tells_who_somebody_is_is_masked(text: str, masked: str) -> None:
    assert masks().text(text) == masked


@pytest.mark.parametrize("text", ["/roll 2 6 1 2 3 4 5", "on 2026-11-23 10:30", "3.14159 + 12345", "Ann, Mariage"])
def test_what_tells_nobody_is_left_as_it_is(text: str) -> None:
    assert masks().text(text) == text


def test_the_same_thing_has_the_same_mask_in_every_text() -> None:
    one = masks()

    assert one.text("a@b.de") == one.text("write to A@B.DE").removeprefix("write to ")


@given(st.text())
def test_no_name_of_a_person_is_left_in_any_text(text: str) -> None:
    masked = masks().text(f"{text} Maria {text}")

    assert "Maria" not in masked.split()
    assert set(NAMES) & set(masked.split())
