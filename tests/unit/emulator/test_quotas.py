import pytest

from chatbot.emulator import Emulator, Quirks
from chatbot.emulator.quotas import TABLE, Quotas, Row
from tests.unit.emulator.asgi import Scene, call


def scene_with_quotas(**quirks: object) -> Scene:
    scene = Scene(**quirks)
    scene.emulator.has_quotas = True
    return scene


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{'-'.join(row.operations)} by {row.bucket}")
def test_each_documented_limit_admits_its_count_and_recovers(row: Row) -> None:
    for limit in row.limits:
        quotas = Quotas((Row(row.operations, row.bucket, (limit,)),))
        times = [10_000_000 + number for number in range(limit.count)]

        assert [quotas.admit(row.operations[-1], "u", "t", now, Quirks()) for now in times] == [0] * limit.count
        free = Quirks(refused_requests="free")
        wait = quotas.admit(row.operations[0], "u", "t", times[-1], free)
        assert 0 < wait <= limit.seconds
        again = times[-1] + round(wait * 1000)
        assert quotas.admit(row.operations[0], "u", "t", again - 1, free) > 0
        assert quotas.admit(row.operations[0], "u", "t", again, free) == 0


def test_refused_requests_count_so_that_obeying_the_hint_once_may_not_be_enough() -> None:
    quotas, quirks = Quotas(), Quirks()
    for second in (5.0, 5.3, 6.0, 6.3, 8.0):
        assert quotas.admit("update_thread", "a", "t", round(second * 1000), quirks) == 0

    refused = [quotas.admit("update_thread", "a", "t", at, quirks) for at in (8_900, 8_950, 8_990, 8_995, 15_000)]

    assert refused[0] == pytest.approx(6.1)
    assert refused[-1] > 0
    assert quotas.admit("update_thread", "a", "t", 25_000, quirks) == 0


async def test_typing_is_limited_to_thirty_a_minute_for_all_in_a_thread() -> None:
    scene = scene_with_quotas()
    others = [scene.emulator.create_user() for _ in range(2)]
    scene.emulator.add(scene.thread, scene.ann, *others)
    statuses = []
    for _ in range(3):
        for user in (scene.ann, scene.bob):
            statuses += [(await scene("POST", "/typing", {}, user=user)).status for _ in range(5)]
        scene.clock.advance(11)

    assert statuses == [200] * 30
    assert (await scene("POST", "/typing", {}, user=others[0])).status == 429
    scene.clock.advance(60)
    assert (await scene("POST", "/typing", {}, user=others[0])).status == 200


def test_buckets_are_counted_apart() -> None:
    quotas = Quotas()

    def used_up(operation: str, user: str, thread: str) -> bool:
        return any(quotas.admit(operation, user, thread, 1000, Quirks()) for _ in range(50))

    assert used_up("send_message", "a", "1")
    assert quotas.admit("send_message", "b", "1", 1000, Quirks()) > 0
    assert quotas.admit("update_message", "b", "1", 1000, Quirks()) > 0
    assert quotas.admit("update_message", "b", "1", 1000, Quirks(quota_rows="each")) == 0
    assert quotas.admit("send_message", "a", "2", 1000, Quirks()) == 0
    assert not used_up("list_messages", "a", "1")
    assert quotas.admit("list_messages", "a", "1", 1000, Quirks()) > 0
    assert quotas.admit("list_messages", "b", "1", 1000, Quirks()) == 0


def test_fixed_windows_are_reset_at_their_boundary() -> None:
    quirks = Quirks(quota_window="fixed")
    quotas = Quotas()
    for _ in range(10):
        assert quotas.admit("create_thread", "a", "", 19_999, quirks) == 0

    assert quotas.admit("create_thread", "a", "", 19_999, quirks) == 0.001
    assert quotas.admit("create_thread", "a", "", 20_000, quirks) == 0


async def test_the_eleventh_message_within_ten_seconds_is_refused_without_a_hint() -> None:
    scene = scene_with_quotas(retry_after="none")
    statuses = [(await scene("POST", "/messages", {"content": "x"})).status for _ in range(10)]

    refused = await scene("POST", "/messages", {"content": "x"}, user=scene.bob)

    assert statuses == [201] * 10
    assert refused.status == 429
    assert refused.json == {"CommunicationError": {"Code": "TooManyRequests", "Details": []}}
    assert "retry-after" not in refused.headers
    assert len(scene.emulator.texts(scene.thread)) == 10
    scene.clock.advance(10)
    assert (await scene("POST", "/messages", {"content": "x"})).status == 201


@pytest.mark.parametrize(
    ("quirk", "header", "value"), [("seconds", "retry-after", "7"), ("milliseconds", "x-ms-retry-after-ms", "6500")]
)
async def test_429_can_carry_a_hint(quirk: str, header: str, value: str) -> None:
    scene = scene_with_quotas(retry_after=quirk)
    for _ in range(10):
        await scene("POST", "/messages", {"content": "x"})
    scene.clock.advance(3.5)

    assert (await scene("POST", "/messages", {"content": "x"})).headers[header] == value


async def test_quotas_can_be_switched_off() -> None:
    emulator = Emulator(quotas=False)
    user = emulator.create_user()
    token = emulator.issue_token(user).text

    statuses = {(await call(emulator, "GET", "/chat/threads", token=token)).status for _ in range(60)}

    assert statuses == {200}
