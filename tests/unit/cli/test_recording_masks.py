from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot.cli.recording import NAMES, Masks
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
def test_what_identifies_a_person_is_masked(text: str, masked: str) -> None:
    assert masks().text(text) == masked


@pytest.mark.parametrize("text", ["/roll 2 6 1 2 3 4 5", "on 2026-11-23 10:30", "3.14159 + 12345", "Ann, Mariage"])
def test_what_identifies_nobody_is_left_as_it_is(text: str) -> None:
    assert masks().text(text) == text


def test_the_same_thing_has_the_same_mask_in_every_text() -> None:
    one = masks()

    assert one.text("a@b.de") == one.text("write to A@B.DE").removeprefix("write to ")


@given(st.text())
def test_no_name_of_a_person_is_left_in_any_text(text: str) -> None:
    masked = masks().text(f"{text} Maria {text}")

    assert "Maria" not in masked.split()
    assert set(NAMES) & set(masked.split())


PEOPLE = {
    UserId("8:acs:3"): "王小明",
    UserId("8:acs:4"): "김민수",
    UserId("8:acs:5"): "Se\u0301an O’Neil",
    UserId("8:acs:6"): "Ludwig van der Berg",
    UserId("8:acs:7"): "山田太郎",
    UserId("8:acs:8"): "Anna-Lena Groß",
    UserId("8:acs:9"): "สมชาย",
}


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("我是王小明，小明在这里", "我是Ann，Ann在这里"),
        ("저는 김민수입니다, 민수는", "저는 Ben입니다, Ben는"),
        ("S\u00e9an, SE\u0301AN and O'Neil, o’neil, ONEIL and Neil; Sean", "Cat, Cat and Cat, Cat, Cat and Cat; Sean"),
        ("ludwigvanderberg, ludwig.van.der.berg, Ludwig_Berg, van der Berg", "Dan, Dan, Dan_Dan, van der Dan"),
        ("山田さんと太郎、山田太郎です", "EveさんとEve、Eveです"),
        ("AnnaLena, Anna-Lena, Lena, GROẞ", "Fay, Fay, Fay, Fay"),
        ("ผมชื่อสมชายครับ", "ผมชื่อGusครับ"),
        ("DE89 3704 0044 0532 0130 00, GB82WEST12345698765432.", "XX00 0000 0000 0001, XX00 0000 0000 0002."),
        ("gb82west12345698765432", "XX00 0000 0000 0001"),
        ("from 10.1.2.3 to 2001:db8:0:1::5, ::1", "from 192.0.2.1 to 2001:db8::1, 2001:db8::2"),
        ("at 12:30:45, version 1.2.3", "at 12:30:45, version 1.2.3"),
    ],
)
def test_names_of_any_script_and_spelling_ibans_and_addresses_are_masked(text: str, masked: str) -> None:
    assert Masks(PEOPLE).text(text) == masked


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        "1 ",
        "a.",
        "a@",
        "a@b.",
        "8:a:",
        "19:",
        "19:a@thread",
        "4:+1",
        "1.",
        "a:",
        ":",
        "DE89 ",
        "DE893704",
        "O'",
        "-",
        "(1",
        "_",
    ],
)
def test_a_hostile_text_is_masked_in_time_that_grows_with_its_length(piece: str) -> None:
    """28 KB are what a message holds; anything worse than linear takes minutes here, and the suite's limit ends it."""
    masks = Masks(PEOPLE)

    for length in (28_000, 280_000):
        masks.text(piece * (length // len(piece)) + "!")
