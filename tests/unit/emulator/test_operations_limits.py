"""Documented limits, and the walls between resources."""

from chatbot.emulator.records import Resource
from tests.unit.emulator.asgi import Scene, call, make, signed


async def test_a_creation_takes_up_to_200_participants_and_refuses_more_with_an_empty_body() -> None:
    emulator, _ = make()
    ann = emulator.create_user()
    token = emulator.issue_token(ann).text
    people = [{"communicationIdentifier": {"rawId": emulator.create_user()}} for _ in range(201)]

    refused = await call(emulator, "POST", "/chat/threads", {"topic": "t", "participants": people}, token=token)
    created = await call(emulator, "POST", "/chat/threads", {"topic": "t", "participants": people[:200]}, token=token)

    assert refused.status == 400
    assert list(refused.json["CommunicationError"]) == ["Code", "Details"]
    assert created.status == 201
    assert len(emulator.participants(created.json["chatThread"]["id"])) == 201
    assert len(emulator.threads()) == 1


async def test_above_20_people_typing_is_accepted_and_nobody_sees_it() -> None:
    scene = Scene()
    scene.emulator.add(scene.thread, scene.ann, *(scene.emulator.create_user() for _ in range(18)))

    assert (await scene("POST", "/typing", {})).status == 200
    assert len(scene.emulator.typing(scene.thread)) == 1
    scene.emulator.add(scene.thread, scene.ann, scene.emulator.create_user())
    assert (await scene("POST", "/typing", {})).status == 200
    assert len(scene.emulator.typing(scene.thread)) == 1


async def test_tokens_and_users_of_another_resource_are_unknown() -> None:
    here, there = Scene(), Scene()
    there.emulator.world.state.put(Resource(id="other", access_key="b3RoZXI="))
    token = there.token(there.ann)

    assert (await call(here.emulator, "GET", here.path, token=token)).status == 401
    path = f"/identities/{there.ann}/:issueAccessToken"
    body = {"scopes": ["chat"]}
    assert (await signed(here.emulator, "POST", path, body, key=there.emulator.access_key)).status == 401


async def test_a_page_holds_at_most_200_messages_and_100_threads() -> None:
    scene = Scene()
    for number in range(210):
        scene.emulator.send(scene.thread, scene.ann, str(number))
    for number in range(110):
        scene.emulator.create_thread(scene.ann, str(number))

    messages = (await scene("GET", "/messages?maxPageSize=5000")).json
    threads = (await scene("GET", "/chat/threads?maxPageSize=5000")).json

    assert (len(messages["value"]), len(threads["value"])) == (200, 100)
    assert "&maxPageSize=200&" in messages["nextLink"]
    assert "nextLink" in threads


async def test_a_participants_metadata_holds_one_kilobyte_in_the_version_that_has_it() -> None:
    scene = Scene()

    def added(size: int) -> dict[str, object]:
        identifier = {"rawId": scene.emulator.create_user()}
        return {"participants": [{"communicationIdentifier": identifier, "metadata": {"k": "é" * size}}]}

    path = "/participants/:add"
    fits = await scene("POST", path, added(511), version="2025-03-15")
    too_large = await scene("POST", path, added(512), version="2025-03-15")
    ignored = await scene("POST", path, added(512), version="2024-03-07")
    shown = (await scene("GET", "/participants", version="2025-03-15")).json["value"]

    assert (fits.status, too_large.status, ignored.status) == (201, 400, 201)
    assert [one.get("metadata") for one in shown] == [None, None, {"k": "é" * 511}, None]
