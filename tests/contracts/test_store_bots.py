"""What every store knows of bots: who they are, and how far each has looked."""

from dataclasses import replace

from chatbot.stores.records import BotRecord, ThreadRecord
from chatbot.stores.writes import MoveHorizon, PauseBot, ResumeBot, SaveBot, SaveThread
from tests.contracts.records import BOT, HALL, OTHER_BOT


class TestIdentities:
    async def test_a_bot_is_found_by_name_and_resource(self, reopen):
        mine = BotRecord("helpdesk", "contoso", BOT, 1234)
        twin = BotRecord("helpdesk", "fabrikam", OTHER_BOT, 5678)

        async with reopen() as store:
            await store.commit(BOT, [SaveBot(mine)])
            await store.commit(OTHER_BOT, [SaveBot(twin)])
        async with reopen() as store:
            assert await store.find_bot("helpdesk", "contoso") == mine
            assert await store.find_bot("helpdesk", "fabrikam") == twin
            assert await store.find_bot("lobby", "contoso") is None
            assert await store.bots() == [mine, twin]

    async def test_a_second_record_of_the_same_name_replaces_the_first(self, reopen):
        first = BotRecord("helpdesk", "contoso", BOT, 1234)

        async with reopen() as store:
            await store.commit(BOT, [SaveBot(first), SaveBot(replace(first, user=OTHER_BOT, first_started_ms=9))])

            assert await store.find_bot("helpdesk", "contoso") == replace(first, user=OTHER_BOT, first_started_ms=9)


class TestPauses:
    async def test_a_pause_is_kept_until_it_is_ended_and_not_moved_by_a_second_one(self, reopen):
        bot = BotRecord("helpdesk", "contoso", BOT, 1234)

        async with reopen() as store:
            await store.commit(BOT, [SaveBot(bot), PauseBot("helpdesk", "contoso", 7)])
            await store.commit(BOT, [PauseBot("helpdesk", "contoso", 9), PauseBot("other", "contoso", 9)])
        async with reopen() as store:
            assert await store.find_bot("helpdesk", "contoso") == replace(bot, paused_ms=7)
            await store.commit(BOT, [SaveBot(replace(bot, first_started_ms=9))])
            assert await store.bots() == [replace(bot, first_started_ms=9, paused_ms=7)]
            await store.commit(BOT, [ResumeBot("helpdesk", "contoso", is_skipping=True)])
            assert await store.bots() == [replace(bot, first_started_ms=9, is_skipping=True)]
            await store.commit(BOT, [ResumeBot("helpdesk", "contoso")])
            assert await store.bots() == [replace(bot, first_started_ms=9)]


class TestHorizons:
    async def test_each_bot_has_its_own_horizon_and_the_latest_replaces_it(self, reopen):
        async with reopen() as store:
            assert await store.horizon(BOT) is None
            await store.commit(BOT, [MoveHorizon(7), MoveHorizon(9), MoveHorizon(8)])
            await store.commit(OTHER_BOT, [SaveThread(ThreadRecord(HALL, floor=1, base=1))])
        async with reopen() as store:
            assert await store.horizon(BOT) == 8
            assert await store.horizon(OTHER_BOT) is None
