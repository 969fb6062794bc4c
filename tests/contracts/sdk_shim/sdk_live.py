"""A pytest plugin for the SDK's own tests: the fixture and the marks that their sources take for granted."""

from __future__ import annotations

import pytest
from devtools_testutils import test_proxy

__all__ = ["test_proxy"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "live_test_only: needs the service")
