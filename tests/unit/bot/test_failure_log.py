import pytest
import structlog

from chatbot.bot.degraded import Degraded
from chatbot.bot.failure_log import OngoingFailures
from chatbot.errors import Forbidden, OutcomeUnknown, Rejected, StoreError, Throttled, Unreachable


@pytest.fixture
def said() -> list[dict[str, object]]:
    return []


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def trouble(said, now) -> OngoingFailures:
    def keep(_logger, _method, event):
        said.append(event)
        raise structlog.DropEvent

    return OngoingFailures(structlog.wrap_logger(None, processors=[keep]), lambda: now[0])


def events(said) -> list[object]:
    return [(line["event"], line["kind"]) for line in said]


def test_a_repeated_failure_is_logged_once(trouble, said):
    for _ in range(100):
        trouble.record_failure("read", Unreachable("nobody answers"))

    assert events(said) == [("trouble.began", "Unreachable")]
    assert trouble.current == {"read": "Unreachable"}


def test_its_end_is_said_once_with_the_number_of_failures(trouble, said):
    trouble.record_failure("read", Unreachable("nobody answers"))
    trouble.record_failure("read", Unreachable("nobody answers"))
    trouble.record_success("read")
    trouble.record_success("read")

    assert events(said)[1:] == [("trouble.ended", "Unreachable")]
    assert said[-1]["failures"] == 2
    assert not trouble.current


def test_two_kinds_of_failure_that_take_turns_are_said_once_each(trouble, said):
    for _ in range(10):
        trouble.record_failure("read", Unreachable("nobody answers"))
        trouble.record_failure("read", Throttled("slow down"))

    assert events(said) == [("trouble.began", "Unreachable"), ("trouble.began", "Throttled")]


def test_a_success_in_one_place_does_not_end_the_failure_of_another(trouble, said):
    for _ in range(10):
        trouble.record_failure("read", Unreachable("nobody answers"), place="hall")
        trouble.record_success("read", place="yard")

    assert events(said) == [("trouble.began", "Unreachable")]

    trouble.record_success("read", place="hall")

    assert events(said)[1:] == [("trouble.ended", "Unreachable")]


def test_what_the_service_refuses_for_two_minutes_in_one_place_is_a_reason_to_be_degraded(trouble, now):
    trouble.record_failure("list threads", Forbidden("no", status=403, code="Forbidden"))
    now[0] = 100.0
    trouble.record_failure("read", Rejected("you said: secret", status=400), place="hall")

    assert list(trouble.degraded(119.0)) == []
    assert list(trouble.degraded(120.0)) == [Degraded("list_threads:403", "the service answers 403 (Forbidden)", 120.0)]
    assert [one.reason for one in trouble.degraded(300.0)] == ["list_threads:403", "list_messages:400"]
    assert "secret" not in str(list(trouble.degraded(300.0)))

    trouble.record_success("list threads")

    assert [one.reason for one in trouble.degraded(300.0)] == ["list_messages:400"]


def test_many_threads_with_short_failures_one_after_the_other_are_no_reason(trouble, now):
    for number in range(20):
        now[0] = number * 50.0
        trouble.record_failure("read", OutcomeUnknown("no", status=503), place=f"{number + 1}")
        trouble.record_success("read", place=f"{number}")

    assert trouble.current
    assert list(trouble.degraded(now[0])) == []


def test_a_lane_that_cannot_be_written_for_two_minutes_is_a_reason_of_its_own(trouble, now):
    trouble.record_failure("store", StoreError("the disk is full"), place="hall")

    assert list(trouble.degraded(120.0)) == [Degraded("lane_failing", "the disk is full", 120.0)]
