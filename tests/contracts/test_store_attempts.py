"""What every store knows after a kill: what was begun, and whether there was one."""

import pytest

from chatbot.stores.records import Attempt
from chatbot.stores.writes import BeginAttempt, EndAttempt
from tests.contracts.records import ANN, BOT, HALL, OTHER_BOT, YARD


class TestAttempts:
    async def test_what_was_begun_and_not_ended_is_found_after_a_restart(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [BeginAttempt(HALL, Attempt("5", 1)), BeginAttempt(YARD, Attempt("6", 1))])
            await store.commit(BOT, [BeginAttempt(HALL, Attempt("7", 2)), EndAttempt(YARD)])
            await store.commit(OTHER_BOT, [BeginAttempt(YARD, Attempt("8", 3)), EndAttempt(HALL)])
        async with reopen() as store:
            assert await store.attempts(BOT) == {HALL: Attempt("7", 2)}
            assert await store.attempts(OTHER_BOT) == {YARD: Attempt("8", 3)}
            assert await store.attempts(ANN) == {}

    async def test_a_store_that_was_closed_was_not_killed(self, reopen):
        async with reopen() as store:
            assert not store.was_killed
        with pytest.raises(ZeroDivisionError):
            async with reopen():
                1 / 0  # noqa: B018
        async with reopen() as store:
            assert not store.was_killed
