"""What every store keeps of events that were given up: whole, until they are revived or dropped."""

from dataclasses import replace

from chatbot.stores.writes import DropDeadLetter, RequestRetry, SaveDeadLetter
from tests.contracts.records import BOT, OTHER_BOT, letter


class TestDeadLetters:
    async def test_dead_letters_come_back_whole_and_oldest_first(self, reopen):
        dead_letters = [letter("b", died_ms=2), letter("a", died_ms=3), letter("c", died_ms=1)]

        async with reopen() as store:
            await store.commit(BOT, [SaveDeadLetter(one) for one in dead_letters])
        async with reopen() as store:
            assert await store.dead_letters(BOT) == [dead_letters[2], dead_letters[0], dead_letters[1]]
            assert await store.dead_letters(OTHER_BOT) == []

    async def test_a_dead_letter_of_the_same_id_replaces_the_first(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [SaveDeadLetter(letter("a", died_ms=1)), RequestRetry("a")])
            await store.commit(BOT, [SaveDeadLetter(letter("a", died_ms=9, attempts=7))])

            assert await store.dead_letters(BOT) == [letter("a", died_ms=9, attempts=7)]

    async def test_dead_letters_are_retried_and_dropped_by_their_bot_and_unknown_ones_are_ignored(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [SaveDeadLetter(letter(id)) for id in "abc"])
            await store.commit(OTHER_BOT, [SaveDeadLetter(letter("a"))])
            await store.commit(BOT, [RequestRetry("a"), DropDeadLetter("b"), RequestRetry("x")])
            await store.commit(BOT, [DropDeadLetter("x")])
        async with reopen() as store:
            assert await store.dead_letters(BOT) == [letter("a", is_revived=True), letter("c")]
            assert await store.dead_letters(OTHER_BOT) == [letter("a")]

    async def test_a_dead_letter_with_any_text_can_be_stored(self, reopen):
        poison = letter("a", text="half \ud83d of a \0 pair", error="ValueError: \ud83d")

        async with reopen() as store:
            await store.commit(BOT, [SaveDeadLetter(poison)])

            assert await store.dead_letters(BOT) == [replace(poison, error="ValueError: \\ud83d")]
