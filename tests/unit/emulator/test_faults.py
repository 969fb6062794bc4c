import asyncio
import contextlib
import ssl
from pathlib import Path

import pytest

from chatbot.emulator import ConnectionLost, Emulator, Fault, Faults, serve
from tests.unit.emulator.asgi import Answer, Scene


async def send(scene: Scene, content: str = "x") -> Answer:
    return await scene("POST", "/messages", {"content": content})


async def test_a_status_strikes_before_the_effect_or_after_it() -> None:
    scene = Scene()
    scene.emulator.faults.add("send_message:503,times=1,retry-after=2")
    scene.emulator.faults.add("send_message:500,after=true,times=1,skip=1")

    before, after, fine = await send(scene, "one"), await send(scene, "two"), await send(scene, "three")

    assert [before.status, after.status, fine.status] == [503, 500, 201]
    assert before.headers["retry-after"] == "2"
    assert [text for _, text in scene.emulator.texts(scene.thread)] == ["two", "three"]


@pytest.mark.parametrize(
    ("kind", "error", "sent"),
    [("refuse", ConnectionRefusedError, 0), ("reset", ConnectionLost, 0), ("reset-after", ConnectionLost, 1)],
)
async def test_a_broken_connection_is_an_exception_in_process(kind: str, error: type[Exception], sent: int) -> None:
    scene = Scene()
    scene.emulator.faults.add(f"send_message:{kind}")

    with pytest.raises(error):
        await send(scene)

    assert len(scene.emulator.texts(scene.thread)) == sent
    assert scene.emulator.calls[-1].status == 0


async def test_tokens_expire_once_or_are_revoked_for_good() -> None:
    scene = Scene()
    token = scene.token(scene.ann)
    scene.emulator.faults.add("get_thread:expired-token,times=1")
    headers = {"authorization": f"Bearer {token}"}

    assert (await scene("GET", headers=headers)).status == 401
    assert (await scene("GET")).status == 200
    scene.emulator.faults.clear()
    scene.emulator.faults.add("get_thread:revoked-token,times=1")
    assert (await scene("GET")).status == 401
    assert scene.emulator.world.state.users[scene.ann].generation == 1
    assert (await scene("GET")).status == 200


async def test_what_is_sent_under_stale_reads_appears_later_than_its_id_says() -> None:
    scene = Scene()
    scene.emulator.faults.add("send_message:stale=5")
    number = int((await send(scene)).json["id"])
    scene.emulator.faults.clear()
    later = scene.emulator.send(scene.thread, scene.bob, "later")

    assert (await scene.ids())[:1] == [later]
    scene.clock.advance(5)
    assert (await scene.ids())[:2] == [later, number]


async def test_an_edit_under_stale_reads_shows_the_earlier_text_for_a_while() -> None:
    scene = Scene()
    number = scene.emulator.send(scene.thread, scene.ann, "old")
    scene.emulator.faults.add("update_message:stale=5")
    await scene("PATCH", f"/messages/{number}", {"content": "new"})

    async def shown() -> list[str]:
        listed = (await scene("GET", "/messages")).json["value"]
        return [one["content"]["message"] for one in listed if one["type"] == "text"]

    assert await shown() == ["old"]
    scene.clock.advance(5)
    assert await shown() == ["new"]


async def test_the_services_clock_can_be_off() -> None:
    scene = Scene()
    scene.emulator.faults.add("send_message:skew=-3600,times=1")

    early, later = int((await send(scene)).json["id"]), int((await send(scene)).json["id"])

    assert later > early
    assert early < scene.emulator.now()


async def test_chance_is_repeatable() -> None:
    async def statuses() -> list[int]:
        scene = Scene()
        scene.emulator.faults = Faults(["send_message:503,probability=0.5"], seed=42)
        return [(await send(scene)).status for _ in range(20)]

    first = await statuses()
    assert first == await statuses()
    assert set(first) == {201, 503}


async def test_every_and_thread_and_user_narrow_a_fault() -> None:
    scene = Scene()
    scene.emulator.faults.add(f"*:500,every=3,user={scene.ann},thread={scene.thread}")

    assert [(await scene("GET")).status for _ in range(6)] == [200, 200, 500, 200, 200, 500]
    assert {(await scene("GET", user=scene.bob)).status for _ in range(6)} == {200}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("send_message", "write OPERATION:KIND"),
        ("*:explode", "there is no kind 'explode'"),
        ("*:200", "200 is not an error status"),
        ("*:500,probability=2", "probability is between 0 and 1"),
        ("*:500,often=yes", "there is no setting 'often'"),
        ("*:latency=soon", "could not convert"),
        ("*:latency=inf", "inf is not a number of seconds"),
        ("*:stale=nan", "nan is not a number of seconds"),
        ("*:500,every=0", "every is a whole number"),
    ],
)
def test_a_fault_nobody_understands_is_explained(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Fault.parse(text)


@pytest.mark.virtual_time
async def test_latency_and_dripping_delay_the_response() -> None:
    loop = asyncio.get_running_loop()
    scene = Scene()
    scene.emulator.faults.add("send_message:latency=1..3")
    scene.emulator.faults.add("list_messages:drip=10")

    before = loop.time()
    assert (await send(scene)).status == 201
    assert 1 <= loop.time() - before <= 3
    before = loop.time()
    assert (await scene("GET", "/messages")).json["value"]
    assert loop.time() - before == pytest.approx(10)


async def _until_broken(endpoint: str, context: ssl.SSLContext | None, request: str) -> bytes:
    """What arrives before the connection breaks."""
    host, _, port = endpoint.partition("://")[2].partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
    writer.write(request.encode())
    received = b""
    try:
        while piece := await reader.read(1):
            received += piece
    except ConnectionError:
        pass
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()  # else the loop may end before the socket is closed
    return received


@pytest.mark.parametrize("tls", [False, True])
async def test_over_sockets_the_connection_really_breaks(tls: bool, tmp_path: Path) -> None:
    emulator = Emulator()
    user = emulator.create_user()
    thread, token = emulator.create_thread(user), emulator.issue_token(user).text
    request = (
        f"GET /chat/threads/{thread}/messages?api-version=2024-03-07 HTTP/1.1\r\nhost: 127.0.0.1\r\n"
        f"authorization: Bearer {token}\r\n\r\n"
    )
    async with serve(emulator, tls=tls, certificates=tmp_path) as running:
        context = ssl.create_default_context(cafile=running.ca_file) if tls else None
        emulator.faults.add("list_messages:reset,times=1")
        emulator.faults.add("list_messages:truncate,skip=1")

        reset = await _until_broken(running.endpoint, context, request)
        cut = await _until_broken(running.endpoint, context, request)

    assert reset == b""
    assert cut.startswith(b"HTTP/1.1 200")
    assert not cut.endswith(b"}")


async def test_what_cannot_be_kept_is_not_acknowledged() -> None:
    scene = Scene()

    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    scene.emulator.world.listen(full)

    assert (await send(scene)).status == 503
