import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from aiohttp import ClientSession, web

from chatbot.emulator import Emulator, event_grid, serve
from chatbot.emulator.eventgrid import EventPublisher
from tests.unit.emulator.asgi import Scene


class Watch:
    """Collects the events of a scene."""

    def __init__(self, scene: Scene) -> None:
        self.events: list[dict[str, Any]] = []
        state = scene.emulator.world.state
        happenings = EventPublisher(state)
        state.listeners.append(lambda record: self.events.extend(happenings.of(record, scene.emulator.now())))

    def kinds(self) -> list[str]:
        kinds = [event["eventType"].removeprefix("Microsoft.Communication.") for event in self.events]
        self.events.clear()
        return kinds


def test_everything_that_happens_in_a_thread_has_its_events_per_thread_and_per_user() -> None:
    scene = Scene()
    watch = Watch(scene)
    emulator, ann, bob = scene.emulator, scene.ann, scene.bob

    thread = emulator.create_thread(ann, "new", [bob])
    assert watch.kinds() == ["ChatThreadCreated", "ChatThreadCreatedWithUser"]
    number = emulator.send(thread, ann, "hi")
    assert watch.kinds() == ["ChatMessageReceivedInThread", "ChatMessageReceived"]
    emulator.edit(thread, ann, number, "ho")
    assert watch.kinds() == ["ChatMessageEditedInThread", "ChatMessageEdited"]
    emulator.delete(thread, ann, number)
    assert watch.kinds() == ["ChatMessageDeletedInThread", "ChatMessageDeleted"]
    emulator.set_topic(thread, ann, "newer")
    assert watch.kinds() == ["ChatThreadPropertiesUpdated", "ChatThreadPropertiesUpdatedPerUser"]
    carol = emulator.create_user()
    emulator.add(thread, ann, carol)
    assert watch.kinds() == ["ChatThreadParticipantAdded", *["ChatParticipantAddedToThreadWithUser"] * 2]
    emulator.remove(thread, ann, carol)
    assert watch.kinds() == ["ChatThreadParticipantRemoved", *["ChatParticipantRemovedFromThreadWithUser"] * 2]
    emulator.delete_thread(thread, ann)
    assert watch.kinds() == ["ChatThreadDeleted", "ChatThreadWithUserDeleted"]


def test_a_message_event_has_the_published_fields() -> None:
    scene = Scene()
    watch = Watch(scene)

    number = scene.emulator.send(scene.thread, scene.ann, "hi", display_name="Ann", metadata={"a": "b"})

    in_thread, to_bob = watch.events
    data = in_thread["data"]
    assert in_thread["subject"] == f"thread/{scene.thread}/sender/{scene.ann}"
    assert list(data) == [
        "messageBody", "messageId", "metadata", "type", "version", "senderDisplayName",
        "senderCommunicationIdentifier", "composeTime", "threadId", "transactionId",
    ]  # fmt: skip
    assert (data["messageId"], data["version"], data["type"]) == (str(number), str(number), "Text")
    assert to_bob["data"]["recipientId"] == scene.bob
    assert to_bob["data"]["version"] == number
    assert to_bob["data"]["composeTime"].endswith("Z")
    assert in_thread["dataVersion"] == "1.0"


@asynccontextmanager
async def webhook(handler: Any) -> AsyncIterator[str]:
    application = web.Application()
    application.router.add_post("/hook", handler)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield f"http://127.0.0.1:{port}/hook"
    finally:
        await runner.cleanup()


async def test_events_arrive_after_the_handshake_and_again_until_they_are_taken() -> None:
    scene = Scene()
    seen: list[tuple[str, dict[str, Any]]] = []
    done = anyio.Event()

    async def handler(request: web.Request) -> web.Response:
        (event,) = await request.json()
        seen.append((request.headers["aeg-event-type"], event))
        if len(seen) == 1:
            return web.json_response({"validationResponse": event["data"]["validationCode"]})
        if len(seen) == 4:
            done.set()
        return web.Response(status=503 if len(seen) == 2 else 200)

    async with webhook(handler) as url, event_grid(scene.emulator, url, waits_seconds=[0.001]):
        scene.emulator.send(scene.thread, scene.ann, "hi")
        with anyio.fail_after(60):
            await done.wait()

    assert [kind for kind, _ in seen] == ["SubscriptionValidation", *["Notification"] * 3]
    assert seen[0][1]["eventType"] == "Microsoft.EventGrid.SubscriptionValidationEvent"
    assert seen[1] == seen[2]
    assert seen[3][1]["eventType"].endswith("ChatMessageReceived")


async def test_the_handshake_can_be_finished_by_opening_the_validation_url() -> None:
    emulator = Emulator()
    user = emulator.create_user()
    urls: list[str] = []
    asked, done = anyio.Event(), anyio.Event()

    async def handler(request: web.Request) -> web.Response:
        (event,) = await request.json()
        if request.headers["aeg-event-type"] == "SubscriptionValidation":
            urls.append(event["data"]["validationUrl"])
            asked.set()
        else:
            done.set()
        return web.Response(text="thank you")

    async with (
        serve(emulator, tls=False),
        webhook(handler) as url,
        event_grid(emulator, url),
        ClientSession() as session,
    ):
        with anyio.fail_after(60):
            await asked.wait()
            emulator.create_thread(user)
            async with session.get(urls[0].replace("code=", "code=wrong")) as answer:
                assert answer.status == 404
            async with session.get(urls[0]) as answer:
                assert json.loads(await answer.text()).startswith("Webhook successfully validated")
            await done.wait()


async def test_a_webhook_that_is_late_is_asked_again_and_one_that_refuses_is_not() -> None:
    scene = Scene()
    seen: list[str] = []
    done = anyio.Event()

    async def handler(request: web.Request) -> web.Response:
        (event,) = await request.json()
        seen.append(event["eventType"].rpartition(".")[2])
        if len(seen) == 1:
            return web.Response(status=500)
        if len(seen) == 2:
            return web.json_response({"validationResponse": event["data"]["validationCode"]})
        if len(seen) == 4:
            done.set()
        return web.Response(status=400)

    async with webhook(handler) as url, event_grid(scene.emulator, url, waits_seconds=[0.001]):
        scene.emulator.send(scene.thread, scene.ann, "hi")
        with anyio.fail_after(60):
            await done.wait()

    validation = "SubscriptionValidationEvent"
    assert seen == [validation, validation, "ChatMessageReceivedInThread", "ChatMessageReceived"]


async def test_without_a_webhook_the_emulator_works_and_ends() -> None:
    scene = Scene()

    async with event_grid(scene.emulator, "http://127.0.0.1:9/nobody", waits_seconds=[0.001]):
        assert (await scene("POST", "/messages", {"content": "x"})).status == 201
