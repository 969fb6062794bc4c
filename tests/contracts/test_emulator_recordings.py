"""The emulator answers as the real service was recorded to answer."""

import pytest

from chatbot.emulator import Quirks
from tests.contracts.recent import RecentReplay, replay_recent, runs
from tests.contracts.replay import replay_all, table


async def test_every_recorded_session_is_answered_as_the_service_answered_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    results = await replay_all()

    with capsys.disabled():
        print(f"\n{table(results)}")
    assert len(results) == 229
    assert sum(len(outcomes) for _, outcomes in results) == 767
    assert [text for _, outcomes in results for outcome in outcomes for text in outcome.differences] == []


async def test_every_session_since_2024_is_answered_with_the_bodies_and_headers_of_its_date() -> None:
    results = await replay_recent()

    assert len(results) == 79
    assert sum(len(outcomes) for _, outcomes in results) == 434
    assert [
        (session.name, outcome.exchange, text)
        for session, outcomes in results
        for outcome in outcomes
        for text in outcome.differences
    ] == []


@pytest.mark.parametrize(
    ("session", "quirks", "place"),
    [
        ("net/2024-01/", {"edited_sequence": "next"}, "sequenceId"),
        ("net/2025-06/Thread", {"thread_ids": "short"}, "form of the id"),
        ("net/2024-03/ReadReceipt", {"retention_none": "omitted"}, "keys"),
        ("cli/2024-04-01/test_chat_remove", {"removed_removal": "forbidden"}, "status"),
        ("python/2024-02/", {"hsts": "year"}, "strict-transport-security"),
        ("net/2025-06/ReadReceipt", {"location_host": "request"}, "location"),
    ],
)
async def test_a_session_differs_under_the_quirks_of_another_date(
    session: str, quirks: dict[str, str], place: str
) -> None:
    run = next(run for run in runs() if run[0].name.startswith(session))
    replay = RecentReplay(run)
    replay.emulator.world.quirks = Quirks.parse(
        [f"{name}={value}" for name, value in quirks.items()], replay.emulator.world.quirks
    )

    outcomes = await replay.run(run[0])

    assert any(place in text for outcome in outcomes for text in outcome.differences)
