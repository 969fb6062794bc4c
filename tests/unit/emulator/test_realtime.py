"""The real-time channel, frame by frame: who may connect, what is acknowledged, and who hears of what."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import anyio
import pytest

from chatbot.emulator.realtime import HEARTBEAT_SECONDS
from tests.unit.emulator.asgi import Answer, Scene, call

CONFIG = "/chat/config/realTimeNotifications?api-version=2024-09-01"


class Client:
    """A websocket's other end."""

    def __init__(self, frames: Any, sending: Any) -> None:
        self._frames = frames
        self._sending = sending
        self.closed: int | None = None

    async def frame(self) -> str:
        event = await self._frames.receive()
        if event["type"] == "websocket.close":
            self.closed = event["code"]
            return "closed"
        return str(event["text"])

    async def says(self, text: str) -> None:
        await self._sending.send({"type": "websocket.receive", "text": text})

    async def event(self) -> dict[str, Any]:
        kind, _, request = (await self.frame()).partition(":::")
        assert kind == "3"
        return dict(json.loads(json.loads(request)["body"]))


async def ask(scene: Scene, method: str, path: str, token: str, body: Any = None) -> Answer:
    headers = {"x-skypetoken": token, "origin": "http://page.example"}
    return await call(scene.emulator, method, path, body, headers=headers, version=None)


async def granted(scene: Scene, token: str) -> tuple[dict[str, str], str]:
    """The parameters and the session of a client that may connect."""
    grant = (await ask(scene, "POST", "/v4/a?epid=e", token)).json
    opened = await ask(scene, "GET", f"/socket.io/1/?{urlencode(grant['connectparams'])}&v=v4", token)
    return grant["connectparams"], opened.body.decode().partition(":")[0]


@asynccontextmanager
async def connected(scene: Scene, session: str, parameters: dict[str, str]) -> AsyncIterator[Client]:
    put, frames = anyio.create_memory_object_stream[Any](1000)
    sending, taken = anyio.create_memory_object_stream[Any](1000)
    sending.send_nowait({"type": "websocket.connect"})
    scope = {
        "type": "websocket",
        "path": f"/socket.io/1/websocket/{session}",
        "query_string": urlencode(parameters).encode(),
        "headers": [],
    }
    async with put, frames, sending, taken, anyio.create_task_group() as tasks:
        tasks.start_soon(scene.emulator, scope, taken.receive, put.send)
        first = await frames.receive()
        client = Client(frames, sending)
        if first["type"] == "websocket.accept":
            assert await client.frame() == "1::"
            assert "trouter.connected" in await client.frame()
        else:
            client.closed = first["code"]
        yield client
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def listening(scene: Scene, user: str) -> AsyncIterator[Client]:
    parameters, session = await granted(scene, scene.token(user))
    async with connected(scene, session, parameters) as client:
        yield client


async def test_the_realtime_configuration_names_the_emulator_to_every_user_with_a_token() -> None:
    scene = Scene()
    token = scene.token(scene.ann)

    named = await call(scene.emulator, "GET", CONFIG, token=token, headers={"origin": "http://page.example"})

    base = "https://emulator.test"
    assert named.json == {"trouterServiceUrl": base, "registrarServiceUrl": base, "cloudType": "public"}
    assert named.headers["access-control-allow-origin"] == "*"
    assert (await call(scene.emulator, "GET", CONFIG)).status == 401
    assert (await call(scene.emulator, "GET", CONFIG, headers={"authorization": f"bearer {token}"})).status == 200
    assert (await call(scene.emulator, "GET", CONFIG, headers={"authorization": token})).status == 401
    assert (await call(scene.emulator, "GET", CONFIG.replace("09", "08"), token=token)).status == 400


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v4/a"), ("GET", "/socket.io/1/"), ("POST", "/v3/registrations"), ("DELETE", "/v3/registrations/e")],
)
async def test_every_step_asks_for_a_token_of_chat_that_has_not_expired(method: str, path: str) -> None:
    scene = Scene()
    expired, calls_only = scene.token(scene.ann), scene.token(scene.ann, "voip")

    refusals = [await ask(scene, method, path, token, {}) for token in ("", "x", "é", calls_only)]
    scene.clock.advance(90_000)

    assert {refusal.status for refusal in refusals} == {401}
    assert {refusal.headers["www-authenticate"] for refusal in refusals} == {"Bearer"}
    assert {refusal.headers["access-control-expose-headers"] for refusal in refusals} == {"*"}
    assert (await ask(scene, method, path, expired, {})).status == 401


async def test_a_registration_is_taken_and_given_up() -> None:
    scene = Scene()
    token = scene.token(scene.ann)

    assert (await ask(scene, "POST", "/v3/registrations", token, {"registrationId": "e"})).status == 202
    assert scene.emulator.realtime.registrations == {"e": scene.ann}
    assert (await ask(scene, "POST", "/v3/registrations", token, {"registrationId": 7})).status == 400
    assert (await ask(scene, "DELETE", "/v3/registrations/e", scene.token(scene.bob))).status == 204
    assert scene.emulator.realtime.registrations == {"e": scene.ann}
    assert (await ask(scene, "DELETE", "/v3/registrations/e", token)).status == 204
    assert scene.emulator.realtime.registrations == {}


async def test_a_websocket_needs_its_own_session_and_ticket_and_each_session_connects_once() -> None:
    scene = Scene()
    parameters, session = await granted(scene, scene.token(scene.ann))
    others, _ = await granted(scene, scene.token(scene.bob))
    stolen = await ask(scene, "GET", f"/socket.io/1/?{urlencode(others)}", scene.token(scene.ann))

    assert stolen.status == 401
    async with connected(scene, "unknown", parameters) as refused:
        assert refused.closed == 1008
    async with connected(scene, session, others) as refused:
        assert refused.closed == 1008
    parameters, session = await granted(scene, scene.token(scene.ann))
    async with connected(scene, session, parameters) as client:
        assert client.closed is None
    async with connected(scene, session, parameters) as again:
        assert again.closed == 1008


async def test_what_a_client_emits_is_acknowledged_and_its_goodbye_ends_the_connection() -> None:
    scene = Scene()
    async with listening(scene, scene.ann) as client:
        await client.says('5:1+::{"name":"user.activity","args":[{"state":"active"}]}')
        assert await client.frame() == "6:::1+[]"
        for noise in ("", "5", "5:x+::", "5:" + "9" * 30 + "+::", "3:::{", "\ud83d"):
            await client.says(noise)
        await client.says('5:2+::{"name":"ping"}')
        assert await client.frame() == "6:::2+[]"
        await client.says("0::")
        assert await client.frame() == "closed"

    assert scene.emulator.realtime.connections == {}


@pytest.mark.virtual_time
async def test_a_silent_client_is_disconnected_after_three_heartbeats() -> None:
    scene = Scene()
    async with listening(scene, scene.ann) as client:
        frames = [await client.frame() for _ in range(3)]
        assert set(frames) <= {"2::", "closed"}
        assert frames[0] == "2::"
        with anyio.fail_after(4 * HEARTBEAT_SECONDS):
            while client.closed is None:
                await client.frame()


async def test_exactly_the_participants_of_the_thread_are_notified_the_sender_included() -> None:
    scene = Scene()
    eve = scene.emulator.create_user()
    async with (
        listening(scene, scene.ann) as ann,
        listening(scene, scene.ann) as other_tab,
        listening(scene, scene.bob) as bob,
        listening(scene, eve) as stranger,
    ):
        number = scene.emulator.send(scene.thread, scene.ann, "hi")
        heard = [await client.event() for client in (ann, other_tab, bob)]
        scene.emulator.remove(scene.thread, scene.ann, scene.bob)
        gone = [await client.event() for client in (ann, other_tab, bob)]
        scene.emulator.send(scene.thread, scene.ann, "alone")
        scene.emulator.add(scene.thread, scene.ann, eve)
        came = await stranger.event()
        joined = await stranger.event()
        scene.emulator.create_thread(scene.bob, "elsewhere")
        await ann.event()
        elsewhere = await bob.event()

    assert [(one["eventId"], one["messageId"]) for one in heard] == [(200, str(number))] * 3
    assert [one["recipientMri"] for one in heard] == [scene.ann, scene.ann, scene.bob]
    assert [one["eventId"] for one in gone] == [261] * 3
    assert (came["eventId"], joined["eventId"]) == (257, 260)
    assert (elsewhere["eventId"], elsewhere["threadId"] == scene.thread) == (257, False)


async def test_events_contain_the_metadata_of_participants() -> None:
    scene = Scene()
    eve = scene.emulator.create_user()
    async with listening(scene, scene.ann) as ann, listening(scene, eve) as newcomer:
        scene.emulator.add(scene.thread, scene.ann, eve, display_name="Eve", metadata={"share": "100% \u00fc"})
        made, joined = await newcomer.event(), await newcomer.event()
        await ann.event()
        scene.emulator.set_topic(scene.thread, eve, "new")
        updated = await ann.event()
        scene.emulator.remove(scene.thread, scene.ann, eve)
        removed = await ann.event()

    def plain(text: str) -> Any:
        return json.loads(text.replace("%25", "%"))  # what `unescape` of JavaScript does with it

    shown = [
        plain(made["members"])[-1],
        plain(joined["participantsAdded"])[0],
        plain(updated["editedBy"]),
        plain(removed["participantsRemoved"])[0],
    ]
    assert [person["participantId"] for person in shown] == [eve] * 4
    assert [json.loads(person["memberMetaData"]) for person in shown] == [{"share": "100% \u00fc"}] * 4
    assert "memberMetaData" not in plain(made["members"])[0]


@pytest.mark.parametrize(("is_expiry", "reason"), [(True, "deletedByPolicy"), (False, "deletedByUser")])
async def test_the_end_of_a_thread_says_whether_its_retention_or_somebody_ended_it(
    is_expiry: bool, reason: str
) -> None:
    scene = Scene()
    policy = {"retentionPolicy": {"kind": "threadCreationDate", "deleteThreadAfterDays": 30}}
    await scene("PATCH", "", policy, version="2025-03-15")
    if is_expiry:
        scene.clock.advance(30 * 86_400)
    async with listening(scene, scene.bob) as bob:
        await scene("GET" if is_expiry else "DELETE")
        ended = await bob.event()

    assert (ended["eventId"], ended["threadId"], ended["reason"]) == (259, scene.thread, reason)


async def test_receipts_are_for_others_and_large_threads_get_neither_receipts_nor_typing() -> None:
    scene = Scene()
    number = scene.emulator.send(scene.thread, scene.ann, "hi")
    async with listening(scene, scene.ann) as ann, listening(scene, scene.bob) as bob:
        scene.emulator.read(scene.thread, scene.bob, number)
        scene.emulator.type(scene.thread, scene.bob)
        small = [(await ann.event())["eventId"], (await ann.event())["eventId"], (await bob.event())["eventId"]]
        crowd = [scene.emulator.create_user() for _ in range(19)]
        scene.emulator.add(scene.thread, scene.ann, *crowd)
        scene.emulator.type(scene.thread, scene.bob)
        scene.emulator.read(scene.thread, scene.bob, number)
        scene.emulator.send(scene.thread, scene.ann, "all")
        large = [(await bob.event())["eventId"], (await bob.event())["eventId"]]

    assert small == [246, 245, 245]
    assert large == [260, 200]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/nowhere", 404),
        ("GET", "/chat/threads/x/images/y/view", 404),
        ("GET", "/identities/x/y/z", 404),
        ("GET", "/access/teamsExtension/x", 404),
        ("OPTIONS", "/chat/threads", 405),
        ("PUT", "/chat/threads", 405),
        ("GET", "/chat/threads/x/images/y", 405),
        ("PATCH", "/identities/x", 405),
        ("GET", "/chat/threads?api-version=1999-01-01", 400),
        ("GET", "/chat/threads?api-version=", 400),
        ("DELETE", "/identities/x?api-version=1999-01-01", 400),
        ("POST", "/chat/threads/x/images?api-version=2025-03-15", 400),
        ("GET", "/chat/config/realTimeNotifications?api-version=2024-09-01", 401),
        ("POST", "/v4/a", 401),
        ("GET", "/socket.io/1/", 401),
        ("POST", "/v3/registrations", 401),
    ],
)
async def test_a_browser_can_read_a_refusal_that_is_of_no_operation(method: str, path: str, status: int) -> None:
    scene = Scene()

    answer = await call(scene.emulator, method, path, headers={"origin": "http://page.example"})
    elsewhere = await call(scene.emulator, method, path)

    assert answer.status == elsewhere.status == status
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-origin" not in elsewhere.headers


async def test_a_browser_can_read_that_its_request_was_too_large_and_may_ask_before_any_request() -> None:
    scene = Scene()
    origin = {"origin": "http://page.example"}

    too_large = await scene("POST", "/messages", bytes(1024 * 1024 + 1), headers=origin)
    asking = {**origin, "access-control-request-method": "PUT", "access-control-request-headers": "authorization"}
    asked = await call(scene.emulator, "OPTIONS", "/nowhere", headers=asking)

    assert (too_large.status, too_large.headers["access-control-allow-origin"]) == (413, "*")
    assert (asked.status, asked.headers["access-control-allow-headers"]) == (204, "authorization")
    assert "PUT" in asked.headers["access-control-allow-methods"]
