"""The emulator answers as the real service was recorded to answer."""

import pytest

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
