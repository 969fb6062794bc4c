"""What is made by way of a draft is what the class itself would have made."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass, field, replace

import pytest

from chatbot.service.translate import draft_of, freeze


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    name: str
    size: int = 5
    marks: dict[str, str] = field(default_factory=dict, hash=False, repr=False)

    @property
    def double(self) -> int:
        return 2 * self.size


Draft = draft_of(Fact)


def test_a_finished_draft_equals_what_the_constructor_makes() -> None:
    fact = freeze(Draft(name="a"), Fact)

    assert type(fact) is Fact
    assert fact == Fact(name="a")
    assert hash(fact) == hash(Fact(name="a"))
    assert (repr(fact), fact.double) == (repr(Fact(name="a")), 10)
    assert replace(fact, size=6) == Fact(name="a", size=6)


def test_a_finished_draft_is_frozen() -> None:
    fact = freeze(Draft(name="a"), Fact)

    with pytest.raises(FrozenInstanceError):
        fact.name = "b"  # type: ignore[misc]


def test_drafts_share_no_defaults() -> None:
    one, other = (freeze(Draft(name="a"), Fact) for _ in range(2))

    assert one.marks is not other.marks


def test_the_class_itself_stays_as_it_was() -> None:
    with pytest.raises(FrozenInstanceError):
        Fact(name="a").size = 6  # type: ignore[misc]
    with pytest.raises(TypeError):
        Draft()  # type: ignore[call-arg]
