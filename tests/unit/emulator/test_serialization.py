"""Bodies and queries of the wrong shape are refused before anything happens."""

import base64
from typing import Any

import pytest

from tests.unit.emulator.asgi import Scene, call, make, signed

GUID = "8a5e3ae1-0c9b-4c4a-9b0e-6e5f6d1c2b3a"
OTHER = "00000000-0c9b-4c4a-9b0e-6e5f6d1c2b3a"
PERSON = {"communicationIdentifier": {"communicationUser": {"id": "8:acs:x"}}}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/messages", {}),
        ("POST", "/messages", {"content": 1}),
        ("POST", "/messages", {"content": "x", "metadata": []}),
        ("POST", "/messages", {"content": "x", "metadata": {"a": 1}}),
        ("POST", "/messages", b'{"content": "\\ud800"}'),
        ("POST", "/messages", b"[" * 100_000),
        ("POST", "/participants/:add", {}),
        ("POST", "/participants/:add", {"participants": ["ann"]}),
        ("POST", "/participants/:add", {"participants": [{"communicationIdentifier": "ann"}]}),
        ("POST", "/participants/:add", {"participants": [{"communicationIdentifier": {"phoneNumber": 1}}]}),
        ("POST", "/participants/:add", {"participants": [{"communicationIdentifier": {}}]}),
        ("POST", "/participants/:add", {"participants": [{**PERSON, "shareHistoryTime": "soon"}]}),
        ("POST", "/readReceipts", {}),
        ("POST", "/readReceipts", {"chatMessageId": "x"}),
        ("POST", "/typing", {"senderDisplayName": 1}),
        ("POST", "/chat/threads", {}),
        ("POST", "/chat/threads", {"topic": "x", "participants": {}}),
        ("POST", "/chat/threads", {"topic": "x", "retentionPolicy": 30}),
        ("POST", "/chat/threads", {"topic": "x", "retentionPolicy": {"kind": "threadCreationDate"}}),
        ("POST", "/chat/threads", {"topic": "x", "retentionPolicy": {"kind": "x", "deleteThreadAfterDays": 30}}),
        (
            "POST",
            "/chat/threads",
            {"topic": "x", "retentionPolicy": {"kind": "threadCreationDate", "deleteThreadAfterDays": 29}},
        ),
        ("POST", "/chat/threads", {"topic": "x", "metadata": {"a": "x" * 1024}}),
        ("GET", "/messages?maxPageSize=ten", None),
        ("GET", "/messages?startTime=2025-13-01T00:00:00Z", None),
        ("GET", "/messages?startTime=13%2F40%2F2025%201:00:00%20AM", None),
        ("GET", "/messages?startTime=1%2F1%2F2025%2013:00:00%20AM", None),
        ("GET", "/messages?syncState=zz", None),
        ("GET", "/messages?syncState=3e", None),
        ("GET", "/chat/threads?syncState=W10=", None),
        ("GET", "/chat/threads?syncState=!", None),
        ("GET", "/participants?skip=x", None),
    ],
)
async def test_a_wrong_shape_is_400(method: str, path: str, body: Any) -> None:
    scene = Scene()
    before = len(scene.emulator.transcript(scene.thread))

    answer = await scene(method, path, body, version="2025-03-15")

    assert answer.status == 400
    assert answer.json["CommunicationError"]["Code"] == "BadRequest"
    assert len(scene.emulator.transcript(scene.thread)) == before
    assert len(scene.emulator.threads()) == 1


async def test_identifiers_of_every_kind_are_read_and_only_users_of_the_resource_are_admitted() -> None:
    scene = Scene()
    identifiers = [
        {"phoneNumber": {"value": "+14255550123"}},
        {"microsoftTeamsUser": {"userId": GUID, "isAnonymous": False, "cloud": "public"}},
        {"microsoftTeamsApp": {"appId": GUID, "cloud": "public"}},
        {"kind": "communicationUser", "rawId": scene.bob, "communicationUser": {"id": scene.bob}},
    ]
    body = {"participants": [{"communicationIdentifier": one} for one in identifiers]}

    answer = await scene("POST", "/participants/:add", body)

    errors = answer.json["invalidParticipants"]
    assert [one["target"] for one in errors] == ["4:+14255550123", f"8:orgid:{GUID}", f"28:orgid:{GUID}"]
    assert {one["code"] for one in errors} == {"403"}


async def test_a_retention_policy_of_none_is_kept_and_shown() -> None:
    scene = Scene()
    body = {"topic": "x", "retentionPolicy": {"kind": "none"}}

    created = await scene("POST", "/chat/threads", body, version="2025-03-15")

    assert created.json["chatThread"]["retentionPolicy"] == {"kind": "none"}


async def test_start_time_may_have_any_offset_or_the_links_own_form() -> None:
    scene = Scene()
    number = scene.emulator.send(scene.thread, scene.ann, "x")

    for text in ("2025-06-15T15:06:50Z", "2025-06-15T17:06:50.1234567%2B02:00", "2025-06-15T15:06:50"):
        assert await scene.ids(f"?startTime={text}") == [number]
    for text in ("6%2F15%2F2025%203:06:50%20PM%20%2B00:00", "6%2F15%2F2025%2012:06:50%20PM%20-03:00"):
        assert await scene.ids(f"?startTime={text}") == [number]
    assert await scene.ids("?startTime=0001-01-01T00:00:00Z") != []
    assert await scene.ids("?startTime=9999-12-31T23:59:59Z") == []


@pytest.mark.parametrize(
    ("body", "message", "target"),
    [
        ({}, "Token: The Token field is required.", "Token"),
        ({"token": "good"}, "AppId: The AppId field is required.", "AppId"),
        ({"token": "good", "appId": GUID}, "UserId: The UserId field is required.", "UserId"),
        ({"token": "good", "appId": GUID, "userId": ""}, "UserId: The UserId field is required.", "UserId"),
        ({"token": "good", "appId": "x", "userId": GUID}, "Provided AppId has invalid format.", "appId"),
        ({"token": "good", "appId": GUID, "userId": "x"}, "Provided UserId has invalid format.", "userId"),
        ({"token": "good", "appId": OTHER, "userId": OTHER}, "AAD application is not the expected one.", "appId"),
        ({"token": "good", "appId": GUID, "userId": OTHER}, "Provided AAD token issued for unexpected user.", "userId"),
    ],
)
async def test_the_exchange_of_a_teams_users_token_is_validated(body: Any, message: str, target: str) -> None:
    emulator, _ = make(entra=True)
    if "token" in body:
        body = {**body, "token": emulator.entra_token(app=GUID, user=GUID)}

    answer = await signed(emulator, "POST", "/teamsUser/:exchangeAccessToken", body)

    assert answer.status == 400
    assert answer.json == {"error": {"code": "ValidationError", "message": message, "target": target}}


async def test_a_teams_users_token_is_exchanged_and_chat_forbids_it() -> None:
    scene = Scene(entra=True)
    body = {"token": scene.emulator.entra_token(), "appId": GUID, "userId": GUID}

    exchanged = await signed(scene.emulator, "POST", "/teamsUser/:exchangeAccessToken", body)
    chat = await call(scene.emulator, "GET", scene.path, token=exchanged.json["token"])

    assert (chat.status, chat.json["CommunicationError"]["Code"]) == (403, "Forbidden")


async def test_only_a_token_that_the_emulator_issued_in_entras_place_is_exchanged() -> None:
    scene = Scene(entra=True)
    claims = base64.urlsafe_b64encode(b'{"exp": 9999999999}').decode().rstrip("=")
    forged = ["", "a.b.c", f"e30.{claims}.", f"e30.{claims}.c2ln", "é", scene.token(scene.ann)]
    expired = scene.emulator.entra_token(lifetime=0)
    switched_off = Scene()

    for token in (*forged, expired):
        for body in ({"token": token, "appId": GUID, "userId": GUID}, {"token": token, "appId": "x"}):
            refused = await signed(scene.emulator, "POST", "/teamsUser/:exchangeAccessToken", body)
            assert (refused.status, refused.json["error"]["code"]) == (401, "InvalidAccessToken"), token
    body = {"token": switched_off.emulator.entra_token(), "appId": GUID, "userId": GUID}
    assert (await signed(switched_off.emulator, "POST", "/teamsUser/:exchangeAccessToken", body)).status == 401


@pytest.mark.parametrize("scopes", ["chat", ["chess"], [1], {"chat": True}])
async def test_scopes_nobody_knows_are_refused(scopes: Any) -> None:
    emulator, _ = make()
    user = emulator.create_user()

    answer = await signed(emulator, "POST", f"/identities/{user}/:issueAccessToken", {"scopes": scopes})

    assert answer.status == 400
    assert answer.json["error"]["target"] == "scopes"


async def test_what_the_service_does_not_have_is_404_and_a_wrong_method_405() -> None:
    scene = Scene()

    nowhere = await scene("GET", "/chat/rooms")
    method = await scene("PUT", "/messages")
    missing = await call(scene.emulator, "GET", "/chat/threads", version=None)
    too_new = await scene("GET", "/chat/threads?api-version=2031-01-01")
    foreign = await signed(scene.emulator, "POST", "/identities", version="2031-01-01")

    assert [one.status for one in (nowhere, method, missing, too_new, foreign)] == [404, 405, 400, 400, 400]
    assert method.headers["allow"] == "POST, GET"
    assert "does not support the API version '2031-01-01'." in too_new.json["CommunicationError"]["Message"]
    assert foreign.json["error"]["code"] == "UnsupportedApiVersion"


async def test_a_body_above_a_megabyte_is_413() -> None:
    scene = Scene()

    assert (await scene("POST", "/messages", b" " * (1024 * 1024 + 1))).status == 413


async def test_an_asgi_server_may_start_and_stop_it_and_web_sockets_are_closed() -> None:
    emulator, _ = make()
    events = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}, {"type": "websocket.connect"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(events)

    async def send(event: Any) -> None:
        sent.append(event["type"])

    await emulator({"type": "lifespan"}, receive, send)
    await emulator({"type": "websocket", "path": "/"}, receive, send)

    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete", "websocket.close"]
