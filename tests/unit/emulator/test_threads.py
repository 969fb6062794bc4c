import random

from tests.unit.emulator.asgi import Scene, call, make, signed


async def test_a_created_thread_is_answered_as_recorded() -> None:
    emulator, _ = make()
    ann, bob = emulator.create_user(), emulator.create_user()
    body = {"topic": "test topic", "participants": [{"communicationIdentifier": {"rawId": bob}, "displayName": "Bob"}]}

    answer = await call(emulator, "POST", "/chat/threads", body, token=emulator.issue_token(ann).text)

    head = answer.json["chatThread"]
    assert answer.status == 201
    assert list(answer.json) == ["chatThread"]
    assert list(head) == ["id", "topic", "createdOn", "createdByCommunicationIdentifier"]
    assert len(head["id"]) == 63
    assert head["id"].startswith("19:acsV1_")
    assert head["createdByCommunicationIdentifier"] == {"rawId": ann, "communicationUser": {"id": ann}}
    assert answer.headers["location"] == f"https://emulator.test/chat/threads/{head['id'].replace(':', '%3A')}"
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert "retry-after" not in answer.headers


async def test_the_same_repeatability_id_gives_the_same_thread_for_a_day() -> None:
    emulator, clock = make()
    user = emulator.create_user()

    async def create(key: str) -> str:
        token = emulator.issue_token(user).text
        headers = {"repeatability-request-id": key}
        answer = await call(emulator, "POST", "/chat/threads", {"topic": "t"}, token=token, headers=headers)
        return str(answer.json["chatThread"]["id"])

    first = await create("a")
    assert await create("a") == first
    assert await create("b") != first
    clock.advance(86_000)
    assert await create("a") == first
    clock.advance(800)
    assert await create("a") != first


async def test_participants_who_cannot_join_are_reported_and_the_thread_is_made() -> None:
    emulator, _ = make()
    ann = emulator.create_user()
    teams = "8:orgid:" + emulator.world.state.new_guid()
    identifier = {"microsoftTeamsUser": {"userId": teams.removeprefix("8:orgid:")}}
    body = {"topic": "t", "participants": [{"communicationIdentifier": identifier}]}

    answer = await call(emulator, "POST", "/chat/threads", body, token=emulator.issue_token(ann).text)

    assert answer.status == 201
    (error,) = answer.json["invalidParticipants"]
    assert (error["code"], error["target"]) == ("403", teams)


async def test_a_malformed_participant_refuses_the_whole_call() -> None:
    scene = Scene()
    wrong = {"communicationIdentifier": {"communicationUser": {"id": "8:acs:invalidUserId"}}}

    created = await scene("POST", "/chat/threads", {"topic": "t", "participants": [wrong]})
    added = await scene("POST", "/participants/:add", {"participants": [wrong]})
    removed = await scene("POST", "/participants/:remove", wrong["communicationIdentifier"])

    for answer in (created, added, removed):
        assert answer.status == 400
        assert answer.json["CommunicationError"]["Message"] == "Identifier format is invalid (8:acs:invalidUserId)."
    assert len(scene.emulator.threads()) == 1


async def test_unknown_malformed_and_foreign_threads_are_distinguished() -> None:
    scene = Scene()
    stranger = scene.emulator.create_user()

    unknown = await scene("GET", f"/chat/threads/19:{'x' * 43}1@thread.v2")
    malformed = await scene("DELETE", "/chat/threads/invalid_chat_thread_id")
    foreign = await scene("GET", user=stranger)

    assert unknown.status == 404
    assert unknown.json["CommunicationError"]["Message"] == "The specified thread id was not found."
    assert malformed.status == 400
    assert "Message" not in malformed.json["CommunicationError"]
    assert foreign.status == 403


async def test_threads_are_listed_by_latest_activity_and_page_through_the_cursor() -> None:
    emulator, clock = make()
    ann = emulator.create_user()
    token = emulator.issue_token(ann).text
    threads = []
    for number in range(7):
        threads.append(emulator.create_thread(ann, str(number)))
        clock.advance(0.5)
    emulator.send(threads[2], ann, "up")

    answer = await call(emulator, "GET", "/chat/threads?maxPageSize=3", token=token)
    found = answer.json["value"]
    while link := answer.json.get("nextLink"):
        assert "&maxPageSize=3&api-version=2024-03-07" in link
        answer = await call(emulator, "GET", link.removeprefix("https://emulator.test"), token=token)
        found += answer.json["value"]

    assert [one["topic"] for one in found] == ["2", "6", "5", "4", "3", "1", "0"]
    assert all(list(one) == ["id", "topic", "lastMessageReceivedOn"] for one in found)


async def test_deleted_threads_and_left_ones_stay_listed() -> None:
    scene = Scene()
    scene.emulator.remove(scene.thread, scene.ann, scene.bob)
    scene.clock.advance(60)
    scene.emulator.delete_thread(scene.thread, scene.ann)

    (bobs,) = (await scene("GET", "/chat/threads", user=scene.bob)).json["value"]
    (anns,) = (await scene("GET", "/chat/threads")).json["value"]

    assert list(anns) == ["id", "topic", "deletedOn", "lastMessageReceivedOn"]
    assert anns["deletedOn"] == anns["lastMessageReceivedOn"]
    assert bobs["id"] == anns["id"]
    assert (await scene("GET")).status == 404
    assert (await scene("GET", "/messages")).status == 404
    assert (await scene("DELETE")).status == 204


async def test_a_new_topic_is_announced() -> None:
    scene = Scene()

    answer = await scene("PATCH", "", {"topic": "new topic"})

    assert (answer.status, answer.body) == (204, b"")
    newest = (await scene("GET", "/messages?maxPageSize=1")).json["value"][0]
    assert (newest["type"], newest["content"]["topic"]) == ("topicUpdated", "new topic")
    assert (await scene("GET")).json["topic"] == "new topic"


async def test_metadata_and_retention_exist_since_2025_03_15() -> None:
    scene = Scene()
    body = {
        "topic": "t",
        "metadata": {"a": "1", "b": "2"},
        "retentionPolicy": {"kind": "threadCreationDate", "deleteThreadAfterDays": 30},
    }

    created = await scene("POST", "/chat/threads", body, version="2025-03-15")
    path = f"/chat/threads/{created.json['chatThread']['id']}"
    await scene("PATCH", path, {"metadata": {"a": "", "c": "3"}}, version="2025-03-15")
    new = await scene("GET", path, version="2025-03-15")
    old = await scene("GET", path, version="2024-03-07")

    assert list(new.json)[-2:] == ["metadata", "retentionPolicy"]
    assert new.json["metadata"] == {"b": "2", "c": "3"}
    assert new.json["retentionPolicy"] == {"kind": "threadCreationDate", "deleteThreadAfterDays": 30}
    assert "metadata" not in old.json
    scene.clock.advance(30 * 86400)
    assert (await scene("GET", path)).status == 404


async def test_participants_page_by_skip_without_a_link_at_the_exact_end() -> None:
    scene = Scene()
    others = [scene.emulator.create_user() for _ in range(2)]
    scene.emulator.add(scene.thread, scene.ann, *others, display_name="X")

    first = (await scene("GET", "/participants?maxPageSize=2")).json
    second = (await scene("GET", first["nextLink"].removeprefix("https://emulator.test"))).json

    ids = [one["communicationIdentifier"]["rawId"] for one in first["value"] + second["value"]]
    assert ids == [scene.ann, scene.bob, *others]
    assert first["nextLink"].endswith(f"{scene.thread}/participants?skip=2&maxPageSize=2&api-version=2024-03-07")
    assert "nextLink" not in second
    assert list(second["value"][0]) == ["communicationIdentifier", "displayName", "shareHistoryTime"]


async def test_adding_somebody_twice_changes_nothing() -> None:
    scene = Scene()
    body = {"participants": [{"communicationIdentifier": {"rawId": scene.bob}, "displayName": "New name"}]}

    answer = await scene("POST", "/participants/:add", body)

    assert (answer.status, answer.json) == (201, {})
    assert len(scene.emulator.transcript(scene.thread)) == 2


async def test_removing_somebody_is_announced_and_leaving_too() -> None:
    scene = Scene()

    answer = await scene("POST", "/participants/:remove", {"rawId": scene.bob}, user=scene.bob)

    last = scene.emulator.transcript(scene.thread)[-1]
    assert answer.status == 204
    assert (last.type, last.sender, last.participants[0].user) == ("participantRemoved", scene.bob, scene.bob)


async def test_receipts_show_the_latest_read_of_each_user_and_none_in_large_threads() -> None:
    scene = Scene()
    first = scene.emulator.send(scene.thread, scene.bob, "1")
    second = scene.emulator.send(scene.thread, scene.bob, "2")

    sent = await scene("POST", "/readReceipts", {"chatMessageId": str(first)})
    await scene("POST", "/readReceipts", {"chatMessageId": str(second)})
    unknown = await scene("POST", "/readReceipts", {"chatMessageId": "1"})
    (receipt,) = (await scene("GET", "/readReceipts")).json["value"]

    assert (sent.status, sent.headers["content-length"], sent.body) == (200, "0", b"")
    assert unknown.status == 404
    assert list(receipt) == ["senderCommunicationIdentifier", "chatMessageId", "readOn"]
    assert receipt["chatMessageId"] == str(second)
    scene.emulator.add(scene.thread, scene.ann, *(scene.emulator.create_user() for _ in range(19)))
    assert (await scene("POST", "/readReceipts", {"chatMessageId": str(first)})).status == 200
    assert (await scene("GET", "/readReceipts")).json["value"] == []


async def test_typing_is_accepted_and_can_be_observed() -> None:
    scene = Scene()

    answer = await scene("POST", "/typing", {"senderDisplayName": "Ann"})

    assert (answer.status, answer.body) == (200, b"")
    assert [(one.user, one.display_name) for one in scene.emulator.typing(scene.thread)] == [(scene.ann, "Ann")]


async def test_a_thread_holds_250_people_and_a_batch_200() -> None:
    scene = Scene()
    people = [scene.emulator.create_user() for _ in range(249)]
    listed = [{"communicationIdentifier": {"rawId": user}} for user in people]

    too_many = await scene("POST", "/participants/:add", {"participants": listed[:201]})
    fine = await scene("POST", "/participants/:add", {"participants": listed[:200]})
    full = await scene("POST", "/participants/:add", {"participants": listed[200:]})

    assert (too_many.status, fine.status, full.status) == (400, 201, 400)


async def test_browsers_are_let_in_as_recorded() -> None:
    scene = Scene()
    asked = {"origin": "https://app.example", "access-control-request-method": "POST"}
    wanted = {"access-control-request-headers": "authorization,content-type"}

    preflight = await call(scene.emulator, "OPTIONS", scene.path, headers=asked | wanted)
    answer = await scene("GET", headers={"origin": "https://app.example"})

    assert preflight.status == 204
    assert preflight.headers["access-control-allow-headers"] == "authorization,content-type"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-expose-headers"] == "Location"
    assert (await scene("GET")).headers["access-control-expose-headers"] == "*"


async def test_lists_of_threads_stay_ordered_after_every_change() -> None:
    emulator, clock = make()
    dice, ann, bob = random.Random(3), emulator.create_user(), emulator.create_user()
    threads = [emulator.create_thread(ann, str(number)) for number in range(20)]
    for _ in range(300):
        clock.advance(dice.choice([-2.0, 0, 0, 1.0]))
        thread = dice.choice(threads)
        room = emulator.world.state.room(thread)
        match dice.randrange(6):
            case 0 if room.head.deleted is None and len(threads) > 5:
                emulator.delete_thread(thread, ann)
            case 1 if room.head.deleted is None:
                emulator.add(thread, ann, bob)
            case 2 if room.head.deleted is None:
                emulator.remove(thread, ann, bob)
            case _ if room.head.deleted is None:
                emulator.send(thread, ann, "x")
    for user in (ann, bob):
        slots = emulator.world.state.lists[user]
        assert [slot.activity for slot in slots] == sorted({slot.activity for slot in slots}, reverse=True)
        assert {slot.room.head.id for slot in slots} == set(emulator.world.state.rooms_of[user])
        assert all(slot.activity == slot.room.activity() for slot in slots)


async def test_a_thread_whose_retention_ran_out_is_listed_as_deleted() -> None:
    scene = Scene()
    policy = {"kind": "threadCreationDate", "deleteThreadAfterDays": 30}
    await scene("PATCH", "", {"retentionPolicy": policy}, version="2025-03-15")
    await signed(scene.emulator, "DELETE", f"/identities/{scene.bob}")
    scene.clock.advance(31 * 86400)

    (listed,) = (await scene("GET", "/chat/threads")).json["value"]

    assert listed["deletedOn"] == "2025-07-15T15:06:40Z"
    assert scene.emulator.world.state.leaving == {}
