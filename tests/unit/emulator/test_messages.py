import pytest

from tests.unit.emulator.asgi import Scene


async def test_a_sent_message_is_listed_as_the_service_was_recorded_to_list_it() -> None:
    scene = Scene()

    sent = await scene(
        "POST", "/messages", {"content": "content", "metadata": {"tags": "sometag"}}, version="2023-11-07"
    )
    listed = await scene("GET", "/messages", version="2023-11-07")

    number = sent.json["id"]
    assert sent.status == 201
    assert sent.headers["location"] == (
        f"https://emulator.test/chat/threads/{scene.thread.replace(':', '%3A')}/messages/{number}"
    )
    assert listed.body.startswith(
        b'{"value":[{"id":"%b","type":"text","sequenceId":"3","version":"%b","content":{"message":"content"},'
        b'"senderDisplayName":"","createdOn":"2025-06-15T15:06:50Z","senderCommunicationIdentifier":{"rawId":'
        % (number.encode(), number.encode())
    )
    assert list(listed.json["value"][0])[-2:] == ["senderCommunicationIdentifier", "metadata"]


async def test_creating_a_thread_announces_its_participants_and_its_topic() -> None:
    scene = Scene()

    listed = (await scene("GET", "/messages")).json["value"]

    assert [(one["type"], one["sequenceId"]) for one in listed] == [("topicUpdated", "2"), ("participantAdded", "1")]
    assert listed[0]["content"]["topic"] == "lobby"
    added = listed[1]["content"]["participants"]
    assert [one["communicationIdentifier"]["rawId"] for one in added] == [scene.ann, scene.bob]
    assert [one["shareHistoryTime"] for one in added] == ["1970-01-01T00:00:00Z"] * 2
    assert "senderCommunicationIdentifier" not in listed[0]
    assert "senderDisplayName" not in listed[0]


@pytest.mark.parametrize(("quirk", "sequence"), [("kept", "3"), ("next", "5")])
async def test_an_edit_moves_the_message_to_the_front_with_a_new_version(quirk: str, sequence: str) -> None:
    scene = Scene(edited_sequence=quirk)
    first = scene.emulator.send(scene.thread, scene.ann, "first", display_name="Ann", metadata={"a": "1", "b": "2"})
    second = scene.emulator.send(scene.thread, scene.ann, "second")
    scene.clock.advance(2)

    edited = await scene("PATCH", f"/messages/{first}", {"content": "better", "metadata": {"a": "", "c": "3"}})
    listed = (await scene("GET", "/messages")).json["value"]

    assert (edited.status, edited.body) == (204, b"")
    assert [int(one["id"]) for one in listed[:2]] == [first, second]
    assert listed[0]["sequenceId"] == sequence
    assert int(listed[0]["version"]) > second
    assert listed[0]["content"]["message"] == "better"
    assert listed[0]["senderDisplayName"] == "Ann"
    assert listed[0]["metadata"] == {"b": "2", "c": "3"}
    assert list(listed[0])[-2:] == ["editedOn", "metadata"]


async def test_a_deleted_message_stays_as_a_tombstone() -> None:
    scene = Scene()
    number = scene.emulator.send(scene.thread, scene.ann, "oops", metadata={"a": "1"})
    scene.emulator.edit(scene.thread, scene.ann, number, "oops!")

    deleted = await scene("DELETE", f"/messages/{number}")
    grave = (await scene("GET", f"/messages/{number}")).json

    assert deleted.status == 204
    assert grave["content"] == {"message": "", "attachments": []}
    assert "deletedOn" in grave
    assert "editedOn" not in grave
    assert "metadata" not in grave
    assert (await scene("DELETE", f"/messages/{number}")).status == 204


@pytest.mark.parametrize("size", [1, 2, 3, 5, 200])
async def test_pages_of_any_size_give_every_message_once_in_descending_version(size: int) -> None:
    scene = Scene()
    for number in range(9):
        scene.emulator.send(scene.thread, scene.ann, str(number))

    ids = await scene.ids(f"?maxPageSize={size}")

    assert len(ids) == 11
    assert ids == sorted(ids, reverse=True)


async def test_the_default_page_holds_ten_messages_and_its_link_is_written_as_recorded() -> None:
    scene = Scene()
    for number in range(12):
        scene.emulator.send(scene.thread, scene.ann, str(number))

    page = (await scene("GET", "/messages")).json

    assert len(page["value"]) == 10
    start, _, rest = page["nextLink"].partition("?syncState=")
    assert start == f"https://emulator.test/chat/threads/{scene.thread}/messages"
    cursor, _, tail = rest.partition("&")
    assert cursor.startswith("3e3f000000")
    assert tail == "startTime=1%2F1%2F1970%2012%3A00%3A00%20AM%20%2B00%3A00&maxPageSize=10&api-version=2024-03-07"


async def test_a_message_sent_while_paging_arrives_on_a_later_page() -> None:
    scene = Scene()
    for number in range(4):
        scene.emulator.send(scene.thread, scene.ann, str(number))
    link = (await scene("GET", "/messages?maxPageSize=2")).json["nextLink"]

    late = scene.emulator.send(scene.thread, scene.ann, "late")
    page = (await scene("GET", link.removeprefix("https://emulator.test"))).json

    assert int(page["value"][0]["id"]) == late


@pytest.mark.parametrize(
    ("quirks", "offset", "shown"),
    [
        ({}, 0, True),
        ({}, 0.9, True),
        ({}, 1, False),
        ({"start_time": "exclusive", "start_time_precision": "milliseconds"}, 0, False),
        ({"start_time": "exclusive", "start_time_precision": "milliseconds"}, -0.001, True),
        ({"start_time_precision": "milliseconds"}, 0.001, False),
    ],
)
async def test_start_time_is_read_as_the_quirks_say(quirks: dict[str, str], offset: float, shown: bool) -> None:
    scene = Scene(**quirks)
    number = scene.emulator.send(scene.thread, scene.ann, "hi")
    millis = number + round(offset * 1000)

    ids = await scene.ids(
        f"?startTime=2025-06-15T15:06:{50 + (millis - 1_750_000_010_000) // 1000}.{millis % 1000:03d}Z"
    )

    assert (number in ids) is shown


async def test_an_edit_of_an_old_message_passes_start_time_by_version_but_not_by_creation() -> None:
    for quirk, shown in (("version", True), ("created", False)):
        scene = Scene(start_time_field=quirk)
        number = scene.emulator.send(scene.thread, scene.ann, "hi")
        scene.clock.advance(60)
        scene.emulator.edit(scene.thread, scene.ann, number, "ho")

        assert (number in await scene.ids("?startTime=2025-06-15T15:07:00Z")) is shown


async def test_ids_rise_even_when_the_clock_stands_still_or_steps_back() -> None:
    scene = Scene()
    numbers = [scene.emulator.send(scene.thread, scene.ann, "1"), scene.emulator.send(scene.thread, scene.ann, "2")]
    scene.clock.advance(-3600)
    numbers.append(scene.emulator.send(scene.thread, scene.ann, "3"))

    assert numbers == sorted(set(numbers))
    assert (await scene.ids())[:3] == numbers[::-1]


@pytest.mark.parametrize("size", [1, 2, 3])
async def test_equal_versions_are_never_cut_apart_by_a_page(size: int) -> None:
    scene = Scene(equal_versions=True)
    numbers = [scene.emulator.send(scene.thread, scene.ann, str(n)) for n in range(4)]
    for number in numbers[:3]:
        scene.emulator.edit(scene.thread, scene.ann, number, "edited")

    ids = await scene.ids(f"?maxPageSize={size}")

    assert len(ids) == len(set(ids)) == 6


async def test_html_is_sanitised_and_text_is_left_alone() -> None:
    scene = Scene()
    evil = '<b>hi</b><script>x()</script><img src="https://x/y.png" alt="y">'

    html = (await scene("POST", "/messages", {"content": evil, "type": "html"})).json["id"]
    text = (await scene("POST", "/messages", {"content": evil})).json["id"]

    assert (await scene("GET", f"/messages/{html}")).json["content"]["message"] == '<b>hi</b><img alt="y">'
    assert (await scene("GET", f"/messages/{text}")).json["content"]["message"] == evil


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_a_message_id_that_is_no_number_is_refused_in_the_recorded_words(method: str) -> None:
    scene = Scene()

    answer = await scene(method, "/messages/invalid_chat_message_id", {})

    assert answer.status == 400
    assert answer.json["CommunicationError"] == {
        "Code": "BadRequest",
        "Message": "Value for MessageId (invalid_chat_message_id) is not valid.",
        "Details": [],
    }
    assert answer.headers["content-type"] == "application/json"
    assert answer.body.startswith(b'{\r\n  "CommunicationError": {\r\n    "Code": "BadRequest"')


async def test_nobody_edits_or_deletes_what_others_said_unless_the_quirk_allows_it() -> None:
    for quirks, status in (({}, 403), ({"edit_of_others": "allowed", "delete_of_others": "allowed"}, 204)):
        scene = Scene(**quirks)
        number = scene.emulator.send(scene.thread, scene.ann, "mine")

        assert (await scene("PATCH", f"/messages/{number}", {"content": "yours"}, user=scene.bob)).status == status
        assert (await scene("DELETE", f"/messages/{number}", user=scene.bob)).status == status


async def test_a_message_above_28_kilobytes_is_refused() -> None:
    scene = Scene()

    assert (await scene("POST", "/messages", {"content": "x" * 28 * 1024})).status == 201
    assert (await scene("POST", "/messages", {"content": "x" * 28 * 1024 + "y"})).status == 400


@pytest.mark.parametrize("kind", ["topicUpdated", "participantAdded", "participantRemoved", "card", ""])
async def test_only_texts_and_html_can_be_sent(kind: str) -> None:
    scene = Scene()

    answer = await scene("POST", "/messages", {"content": "x", "type": kind})

    assert answer.status == (201 if kind == "" else 400)


async def test_a_removed_participant_reads_up_to_the_removal_and_writes_nothing() -> None:
    scene = Scene()
    before = scene.emulator.send(scene.thread, scene.ann, "before")
    scene.emulator.remove(scene.thread, scene.ann, scene.bob)
    after = scene.emulator.send(scene.thread, scene.ann, "after")

    ids = await scene.ids(user=scene.bob)

    assert before in ids
    assert after not in ids
    assert (await scene("GET", f"/messages/{after}", user=scene.bob)).status == 404
    assert (await scene("POST", "/messages", {"content": "x"}, user=scene.bob)).status == 403
    assert (await scene("GET", "/participants", user=scene.bob)).status == 403


async def test_share_history_time_hides_what_was_said_before_it() -> None:
    scene = Scene()
    old = scene.emulator.send(scene.thread, scene.ann, "old")
    scene.clock.advance(60)
    carol = scene.emulator.create_user()
    scene.emulator.add(scene.thread, scene.ann, carol, share_history=scene.emulator.now())
    new = scene.emulator.send(scene.thread, scene.ann, "new")

    ids = await scene.ids(user=carol)

    assert old not in ids
    assert new in ids
    assert (await scene("GET", f"/messages/{old}", user=carol)).status == 404


@pytest.mark.parametrize(
    "html",
    [
        '<p>Hey <msft-mention id="8:acs:a">Ann</msft-mention></p>',
        '<p><msft-at-mention displayname="Ann" userid="8:acs:a">Ann</msft-at-mention></p>',
        '<blockquote itemid="1700000000000" itemscope="" itemtype="http://schema.skype.com/Reply">'
        '<strong itemid="8:orgid:a" itemprop="mri">Ann</strong><p itemprop="preview">hi</p></blockquote><p>yes</p>',
        '<span itemid="0" itemscope="" itemtype="http://schema.skype.com/Mention">Ann</span>',
    ],
)
async def test_mentions_and_reply_blocks_keep_what_says_who_and_what_is_meant(html: str) -> None:
    scene = Scene()

    sent = (await scene("POST", "/messages", {"content": html, "type": "html"})).json["id"]

    kept = (await scene("GET", f"/messages/{sent}")).json["content"]["message"]
    assert sorted(kept) == sorted(html)
