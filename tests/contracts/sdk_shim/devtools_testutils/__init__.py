"""What the SDK's own tests need of Microsoft's test utilities, which are on no index: everything is live here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest

Test = TypeVar("Test", bound=Callable[..., Any])


class AzureRecordedTestCase:
    """Of a live run, nothing is recorded."""

    is_live = True

    def is_playback(self) -> bool:
        return False


def is_live() -> bool:
    return True


def recorded_by_proxy(test: Test) -> Test:
    return test


@pytest.fixture(scope="session")
def test_proxy() -> None:
    """No proxy is between."""


def set_default_session_settings() -> None:
    """There is no session."""


def _sanitize_nothing(**_: object) -> None:
    """Nothing is recorded, so nothing is sanitized."""


add_body_key_sanitizer = _sanitize_nothing
add_general_regex_sanitizer = _sanitize_nothing
add_general_string_sanitizer = _sanitize_nothing
add_header_regex_sanitizer = _sanitize_nothing
add_oauth_response_sanitizer = _sanitize_nothing
