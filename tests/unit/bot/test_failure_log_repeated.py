from __future__ import annotations

from typing import Any

import pytest
import structlog

from chatbot.bot.failure_log import FORGOTTEN_SECONDS, MAX_FAILURES, RepeatedFailures


@pytest.fixture
def said() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def recurrence(said: list[dict[str, Any]]) -> RepeatedFailures:
    def keep(_logger: object, _method: str, event: dict[str, Any]) -> str:
        said.append(event)
        raise structlog.DropEvent

    return RepeatedFailures(structlog.wrap_logger(None, processors=[keep]))


def raised(divisor: object) -> Exception:
    try:
        1 / divisor  # type: ignore[operator]
    except Exception as error:
        return error
    raise AssertionError


def test_a_failure_is_logged_once_and_summed_up_afterwards(
    recurrence: RepeatedFailures, said: list[dict[str, Any]]
) -> None:
    news = [recurrence.is_new("echo", raised(0), now) for now in (0.0, 1.0, 2.0)]
    recurrence.log_summary(60.0)
    recurrence.log_summary(120.0)

    assert news == [True, False, False]
    (line,) = said
    assert (line["event"], line["handler"], line["error"]) == ("handler.failed_again", "echo", "ZeroDivisionError")
    assert (line["times"], line["seconds"]) == (2, 60)
    assert line["at"].startswith(f"{__file__}:")


def test_another_handler_error_or_line_of_code_is_another_failure(recurrence: RepeatedFailures) -> None:
    assert recurrence.is_new("echo", raised(0), 0.0)
    assert recurrence.is_new("faq", raised(0), 0.0)
    assert recurrence.is_new("echo", raised("x"), 0.0)
    assert recurrence.is_new("echo", ZeroDivisionError(), 0.0)


def test_a_failure_that_returns_after_an_hour_is_logged_again(recurrence: RepeatedFailures) -> None:
    recurrence.is_new("echo", ValueError(), 0.0)

    assert not recurrence.is_new("echo", ValueError(), FORGOTTEN_SECONDS - 1)
    assert not recurrence.is_new("echo", ValueError(), 2 * FORGOTTEN_SECONDS - 2)
    assert recurrence.is_new("echo", ValueError(), 3 * FORGOTTEN_SECONDS)


def test_the_memory_for_failures_is_bounded(recurrence: RepeatedFailures, said: list[dict[str, Any]]) -> None:
    for number in range(MAX_FAILURES + 10):
        for _ in range(2):
            recurrence.is_new(f"handler {number}", ValueError(), 0.0)
    recurrence.log_summary(1.0)

    assert len(said) == MAX_FAILURES
