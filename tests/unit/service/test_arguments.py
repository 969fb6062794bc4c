from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import unquote

import pytest
from azure.communication.chat._generated._serialization import Serializer

from chatbot.service.arguments import quoted_time

SDK: Any = Serializer
MOMENT = datetime(2025, 3, 9, 1, 2, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    "moment",
    [
        MOMENT,
        MOMENT.replace(microsecond=70_000),
        MOMENT.replace(microsecond=123_456),
        MOMENT.replace(year=987, microsecond=1),
        MOMENT.astimezone(timezone(timedelta(hours=-9, minutes=-30))),
    ],
)
def test_a_time_in_a_query_is_the_one_that_the_sdk_writes(moment: datetime) -> None:
    ours, of_the_sdk = unquote(quoted_time(moment)), SDK.serialize_iso(moment)

    assert datetime.fromisoformat(ours) == datetime.fromisoformat(of_the_sdk) == moment
    assert ours == of_the_sdk


def test_a_naive_time_in_a_query_is_in_utc() -> None:
    assert quoted_time(MOMENT.replace(tzinfo=None)) == quoted_time(MOMENT) == "2025-03-09T01%3A02%3A03.000Z"
