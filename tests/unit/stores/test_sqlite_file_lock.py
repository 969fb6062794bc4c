"""The lock of a store: taken from nobody, and not refused because of somebody who only looks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chatbot.errors import StoreInUse
from chatbot.stores.sqlite_file import StoreLock


class Waiting(logging.Handler):
    """Calls back when somebody begins to wait for a lock."""

    def __init__(self, then: Callable[[], None]) -> None:
        super().__init__()
        self._then = then

    def emit(self, record: logging.LogRecord) -> None:
        if "waiting" in record.getMessage():
            self._then()


@contextmanager
def whenever_somebody_waits(then: Callable[[], None]) -> Iterator[None]:
    log, handler = logging.getLogger("filelock"), Waiting(then)
    level = log.level
    log.setLevel(logging.DEBUG)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def test_who_opens_a_store_waits_for_somebody_who_only_looks(tmp_path: Path) -> None:
    looking, opening = StoreLock(tmp_path / "bots.db"), StoreLock(tmp_path / "bots.db")
    looking.acquire()

    with whenever_somebody_waits(looking.release):
        opening.acquire()

    opening.release()


def test_who_only_looks_does_not_wait(tmp_path: Path) -> None:
    holding, looking = StoreLock(tmp_path / "bots.db"), StoreLock(tmp_path / "bots.db", timeout=0)
    holding.acquire()

    with whenever_somebody_waits(holding.release), pytest.raises(StoreInUse):
        looking.acquire()

    holding.release()
