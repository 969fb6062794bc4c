import pytest
import structlog

from chatbot.bot.trouble import Trouble
from chatbot.errors import Throttled, Unreachable


@pytest.fixture
def said() -> list[dict[str, object]]:
    return []


@pytest.fixture
def trouble(said) -> Trouble:
    def keep(_logger, _method, event):
        said.append(event)
        raise structlog.DropEvent

    return Trouble(structlog.wrap_logger(None, processors=[keep]))


def events(said) -> list[object]:
    return [(line["event"], line["kind"]) for line in said]


def test_trouble_is_said_once_however_often_it_is_met(trouble, said):
    for _ in range(100):
        trouble.met("read", Unreachable("nobody answers"))

    assert events(said) == [("trouble.began", "Unreachable")]
    assert trouble.current == {"read": "Unreachable"}


def test_its_end_is_said_once_with_the_number_of_failures(trouble, said):
    trouble.met("read", Unreachable("nobody answers"))
    trouble.met("read", Unreachable("nobody answers"))
    trouble.over("read")
    trouble.over("read")

    assert events(said)[1:] == [("trouble.ended", "Unreachable")]
    assert said[-1]["failures"] == 2
    assert not trouble.current


def test_two_kinds_of_failure_that_take_turns_are_said_once_each(trouble, said):
    for _ in range(10):
        trouble.met("read", Unreachable("nobody answers"))
        trouble.met("read", Throttled("slow down"))

    assert events(said) == [("trouble.began", "Unreachable"), ("trouble.began", "Throttled")]


def test_what_works_in_one_place_does_not_end_the_trouble_of_another(trouble, said):
    for _ in range(10):
        trouble.met("read", Unreachable("nobody answers"), place="hall")
        trouble.over("read", place="yard")

    assert events(said) == [("trouble.began", "Unreachable")]

    trouble.over("read", place="hall")

    assert events(said)[1:] == [("trouble.ended", "Unreachable")]
