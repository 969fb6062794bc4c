"""A `chatbot run` for each test of the playground."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.playground import Daemon, bots_in


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    running = Daemon(bots_in(tmp_path))
    yield running
    running.stop()
