"""What handlers may ask to have remembered, and how it is stored and read again."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Literal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from chatbot import BotState, ProfileState, State, UserId, UserState, migration
from chatbot.conversation.state import StateType, state_type_of
from chatbot.errors import CannotStore, StateError

NOBODY = UserId("")


class Color(Enum):
    RED = "r"
    BLUE = 7


@dataclass(frozen=True)
class Item:
    name: str
    price: Decimal = Decimal("0.10")
    parts: tuple[Item, ...] = ()


@dataclass
class Cart:
    items: dict[str, Item] = field(default_factory=dict)
    by_day: dict[date, list[UUID]] = field(default_factory=dict)
    colors: set[Color] = field(default_factory=lambda: {Color.RED})
    size: tuple[int, float] | None = (1, 2.5)
    kind: Literal["big", 5] = "big"
    either: int | Item | list[str] = 0
    owner: UserId = NOBODY
    since: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    wait: timedelta = timedelta(microseconds=1)
    raw: bytes = b""
    extra: Any = None


class Profile(BaseModel):
    language: str = "en"
    visits: int = Field(default=0, alias="seen")


def kind(annotation: object) -> StateType:
    found = state_type_of(annotation)
    assert found is not None
    return found


texts = st.text(max_size=5)
items = st.deferred(
    lambda: st.builds(Item, texts, st.decimals(allow_nan=False, allow_infinity=False), st.tuples(items) | st.just(()))
)
carts = st.builds(
    Cart,
    items=st.dictionaries(texts, items, max_size=3),
    by_day=st.dictionaries(st.dates(), st.lists(st.uuids(), max_size=2), max_size=2),
    colors=st.sets(st.sampled_from(Color)),
    size=st.none() | st.tuples(st.integers(), st.floats(allow_nan=False, allow_infinity=False)),
    kind=st.sampled_from(["big", 5]),
    either=st.integers() | items | st.lists(texts, max_size=2),
    owner=texts.map(UserId),
    since=st.datetimes(timezones=st.just(UTC)),
    wait=st.timedeltas(),
    raw=st.binary(max_size=4),
    extra=st.recursive(
        st.none() | st.booleans() | st.integers() | texts,
        lambda one: st.lists(one) | st.dictionaries(texts, one),
        max_leaves=4,
    ),
)


@given(carts)
def test_what_was_stored_is_read_again_as_it_was(cart: Cart) -> None:
    shop = kind(State[Cart])

    assert shop.load(shop.dump(cart)) == cart


@given(st.sets(st.sampled_from(Color)), st.lists(texts, unique=True))
def test_equal_values_have_equal_stored_forms(colors: set[Color], names: list[str]) -> None:
    shop = kind(State[Cart])
    one = Cart(items={name: Item(name) for name in names}, colors=colors)
    other = Cart(items={name: Item(name) for name in reversed(names)}, colors={*reversed(list(colors))})

    assert shop.dump(one) == shop.dump(other)


def test_half_surrogates_and_nul_which_people_can_send_are_storable() -> None:
    shop = kind(State[Cart])
    stored = shop.dump(Cart(items={"\ud800\0": Item("\0")}))

    assert stored.isascii()
    assert "\0" not in stored
    assert shop.load(stored).items == {"\ud800\0": Item("\0")}


def test_a_pydantic_model_is_stored_as_it_says_itself() -> None:
    profile = kind(ProfileState[Profile])
    value = Profile(language="fr", seen=3)

    assert profile.load(profile.dump(value)) == value
    assert profile.load(None) == Profile()


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (Cart(items={"x": Item(5)}), r"Cart\.items\[…\]\.name is of type int; expected text"),
        (Cart(items={"x": Item("y", parts=[])}), r"Cart\.items\[…\]\.parts is of type list; expected a tuple"),
        (Cart(size=(1, float("nan"))), r"Cart\.size\[1\] is nan"),
        (Cart(size=(1,)), r"Cart\.size has 1 items; expected 2"),
        (Cart(kind="small"), r"Cart\.kind is of type str; expected 'big' or 5"),
        (Cart(either=2.5), r"Cart\.either is of type float; expected int or Item or list\[str\]"),
        (Cart(since=datetime(2026, 1, 1)), r"Cart\.since is .* without a time zone"),
        (Cart(extra={"a": {1, 2}}), r"Cart\.extra\[…\] is of type set; expected None, text"),
        (Cart(extra=[(1,)]), r"Cart\.extra\[0\] is of type tuple"),
        (Item("x"), r"Cart is of type Item; expected a Cart"),
    ],
)
def test_what_cannot_be_stored_is_refused_by_its_place(value: object, place: str) -> None:
    with pytest.raises(CannotStore, match=place):
        kind(State[Cart]).dump(value)


def test_a_field_of_a_model_that_is_not_what_it_declares_is_named() -> None:
    wrong = Profile()
    wrong.visits = "many"  # type: ignore[assignment]

    with pytest.raises(CannotStore, match=r"Profile\.visits is of type str"):
        kind(State[Profile]).dump(wrong)


@dataclass
class Unready:
    name: str


@dataclass
class Open:
    file: object = None
    lock: dict[str, memoryview] = field(default_factory=dict)


class Plain:
    pass


class NeedsName(BaseModel):
    name: str


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (State, r"State does not say what it holds; write `State\[Cart\]`"),
        (State[int], r"State\[int\] must hold a dataclass or a pydantic model"),
        (UserState[dict[str, int]], r"UserState\[dict\[str, int\]\] must hold a dataclass"),
        (State[Plain], r"State\[Plain\] must hold"),
        (State[Unready], r"Unready cannot be a state: name has no default"),
        (BotState[NeedsName], r"NeedsName cannot be a state: name has no default"),
        (State[Open], r"Open\.lock\[\] is memoryview, which cannot be stored; use dataclasses"),
    ],
)
def test_what_can_never_be_stored_is_refused_when_it_is_asked_for(annotation: object, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        state_type_of(annotation)


def test_other_annotations_ask_for_no_state() -> None:
    assert state_type_of(int) is None
    assert state_type_of(list[int]) is None
    assert state_type_of("State") is None


# ── versions ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Basket:
    names: list[str] = field(default_factory=list)


@dataclass
class BasketWithNote:
    names: list[str] = field(default_factory=list)
    note: str = "none"


@dataclass
class CountedBasket:
    count: dict[str, int] = field(default_factory=dict)

    @migration(from_version=2)
    @staticmethod
    def rename(stored: dict[str, Any]) -> dict[str, Any]:
        return {"count": stored["counted"]}

    @migration(from_version=1)
    @staticmethod
    def count_names(stored: dict[str, Any]) -> dict[str, Any]:
        return {"counted": dict.fromkeys(stored["names"], 1)}


class CountedModel(BaseModel):
    count: dict[str, int] = {}

    @migration(from_version=1)
    @staticmethod
    def count_names(stored: dict[str, Any]) -> dict[str, Any]:
        return {"count": dict.fromkeys(stored["names"], 1)}


@dataclass
class Gap:
    @migration(from_version=2)
    @staticmethod
    def skip(stored: dict[str, Any]) -> dict[str, Any]:
        return stored


STORED = kind(State[Basket]).dump(Basket(["pear", "fig"]))


def test_a_new_field_with_a_default_needs_no_migration() -> None:
    assert kind(State[BasketWithNote]).load(STORED) == BasketWithNote(["pear", "fig"], "none")


def test_migrations_lead_from_any_older_version_to_todays() -> None:
    counted = kind(State[CountedBasket])

    assert counted.version == 3
    assert counted.load(STORED) == CountedBasket({"pear": 1, "fig": 1})
    assert counted.load('{"v":2,"value":{"counted":{"pear":4}}}') == CountedBasket({"pear": 4})
    assert counted.load(counted.dump(CountedBasket({"fig": 2}))) == CountedBasket({"fig": 2})
    assert kind(State[CountedModel]).load(STORED) == CountedModel(count={"pear": 1, "fig": 1})


def test_a_changed_class_without_a_migration_says_what_to_write() -> None:
    stored = kind(State[BasketWithNote]).dump(BasketWithNote())

    with pytest.raises(StateError, match=r"class has not: note; write a `@migration\(from_version=1\)`"):
        kind(State[Basket]).load(stored)


def test_a_value_of_a_newer_version_is_not_touched() -> None:
    with pytest.raises(StateError, match=r"was stored in version 3, and its class is of version 1"):
        kind(State[Basket]).load('{"v":3,"value":{}}')


@dataclass(frozen=True)
class Forgetful:
    """Its migration forgets to return what it has made."""

    note: str = ""

    @migration(from_version=1)
    @staticmethod
    def rename(stored: dict[str, Any]) -> dict[str, Any]:  # type: ignore[return]
        stored["note"] = stored.pop("text")


def test_a_migration_that_returns_nothing_is_named() -> None:
    with pytest.raises(StateError, match=r"the migration Forgetful\.rename returned NoneType; return the converted"):
        kind(State[Forgetful]).load('{"v":1,"value":{"text":"x"}}')


def test_a_missing_migration_is_refused_at_load() -> None:
    with pytest.raises(TypeError, match=r"Gap has migrations from versions 2; write one from each version"):
        state_type_of(State[Gap])


def test_a_migration_that_is_no_static_method_is_refused_at_its_line() -> None:
    with pytest.raises(TypeError, match="must decorate a @staticmethod"):
        migration(from_version=1)(lambda stored: stored)  # type: ignore[arg-type]
