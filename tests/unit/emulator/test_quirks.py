"""Each switch changes what it says, and the defaults are what is recorded or documented."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from chatbot.emulator import Quirks
from tests.unit.emulator.asgi import Scene, call, make, signed


def test_every_quirk_is_described_and_can_be_written_as_its_default() -> None:
    described = Quirks.describe()

    assert [name for name, _, _ in described] == [item.name.replace("_", "-") for item in dataclasses.fields(Quirks)]
    assert all(doc for _, _, doc in described)
    assert Quirks.parse(f"{name}={values.split(' | ')[0]}" for name, values, _ in described) == Quirks()


@pytest.mark.parametrize(
    "text",
    [
        "nonsense=1",
        "start-time",
        "start-time=",
        "www-authenticate=maybe",
        "cursor-seconds=-1",
        "cursor-seconds=\u0663",
        "",
        "default-page-size=0",
        "default-page-size=201",
        "default-participants=0",
        "default-receipts=0",
        "metadata-limit-bytes=30000",
        "phantom-threads=1001",
        "stamp-behind-seconds=400000000",
        f"date-behind-seconds={'9' * 5000}",
    ],
)
def test_a_quirk_nobody_knows_is_explained(text: str) -> None:
    with pytest.raises(ValueError, match="quirk"):
        Quirks.parse([text])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("start_time", "exclusively"),
        ("start_time", None),
        ("www_authenticate", 1),
        ("too_large_status", "413"),
        ("too_large_status", True),
        ("cursor_seconds", False),
        ("cursor_seconds", 1.5),
        ("default_page_size", 0),
        ("date_behind_seconds", -1),
        ("thread_ids", ["short"]),
    ],
)
def test_a_value_that_is_not_possible_is_refused_in_python_too(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"quirk {name.replace('_', '-')} cannot be .* it can be: "):
        Quirks(**{name: value})


NUMBERS = {
    item.name: item.metadata["range"]
    for item in dataclasses.fields(Quirks)
    if type(item.default) is int and item.name != "too_large_status"
}


@pytest.mark.parametrize(("name", "value"), [(name, end) for name, ends in NUMBERS.items() for end in ends])
async def test_requests_are_answered_with_the_least_and_the_greatest_number_of_a_quirk(name: str, value: int) -> None:
    quirks: dict[str, Any] = {name: value}
    scene = Scene(**quirks)
    number = scene.emulator.send(scene.thread, scene.ann, "x")
    scene.emulator.read(scene.thread, scene.bob, number)

    for path in ("/chat/threads", "", "/messages", f"/messages/{number}", "/participants", "/readReceipts"):
        assert (await scene("GET", path)).status == 200


def test_quirks_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "quirks.yaml"
    file.write_text("start-time: exclusive\nwww_authenticate: false\ntoo-large-status: 413\nidentity-vector: '0'\n")

    assert Quirks.load(file) == Quirks(start_time="exclusive", www_authenticate=False, too_large_status=413)
    file.write_text("# nothing\n")
    assert Quirks.load(file) == Quirks()


@pytest.mark.parametrize("text", ["start-tine: exclusive", "start-time: [1]", "- start-time", "{", "1: 2", "a: \x00"])
def test_a_file_of_quirks_that_cannot_be_used_is_named_in_the_error(text: str, tmp_path: Path) -> None:
    file = tmp_path / "quirks.yaml"
    file.write_text(text)

    with pytest.raises(ValueError, match=re.escape(str(file))):
        Quirks.load(file)
    with pytest.raises(ValueError, match="cannot be read"):
        Quirks.load(tmp_path / "missing.yaml")


async def status(quirks: dict[str, Any], method: str, path: str, body: Any = None, **more: Any) -> int:
    scene = Scene(**quirks)
    number = scene.emulator.send(scene.thread, scene.ann, "hello", metadata={"a": "b"})
    return (await scene(method, path.replace("{id}", str(number)), body, **more)).status


@pytest.mark.parametrize(
    ("quirk", "value", "method", "path", "body", "default", "switched"),
    [
        ("too_large_status", 413, "POST", "/messages", {"content": "x" * 30_000}, 400, 413),
        ("page_size_over_max", "reject", "GET", "/messages?maxPageSize=201", None, 200, 400),
        ("page_size_below_one", "default", "GET", "/messages?maxPageSize=0", None, 400, 200),
        ("page_size_below_one", "default", "GET", "/messages?maxPageSize=-5", None, 400, 200),
        ("negative_skip", "zero", "GET", "/participants?skip=-1", None, 400, 200),
        ("bad_start_time", "ignore", "GET", "/messages?startTime=yesterday", None, 400, 200),
        ("blank_content", "reject", "POST", "/messages", {"content": " "}, 201, 400),
        ("system_type", "text", "POST", "/messages", {"content": "x", "type": "topicUpdated"}, 400, 201),
        ("metadata_limit_bytes", 5, "POST", "/messages", {"content": "x", "metadata": {"abc": "def"}}, 201, 400),
        ("empty_topic", "accept", "PATCH", "", {"topic": ""}, 400, 204),
        ("unsupported_version", "accept", "GET", "?api-version=2030-01-01", None, 400, 200),
    ],
)
async def test_a_status_nobody_knows_can_be_switched(
    quirk: str, value: Any, method: str, path: str, body: Any, default: int, switched: int
) -> None:
    assert await status({}, method, path, body) == default
    assert await status({quirk: value}, method, path, body) == switched


@pytest.mark.parametrize(("value", "expected"), [("history", 200), ("forbidden", 403)])
async def test_reads_of_a_removed_participant(value: str, expected: int) -> None:
    scene = Scene(removed_reads=value)
    scene.emulator.remove(scene.thread, scene.ann, scene.bob)

    assert (await scene("GET", "/messages", user=scene.bob)).status == expected


async def test_a_deleted_thread_can_keep_its_properties_and_messages() -> None:
    scene = Scene(deleted_thread="properties", deleted_thread_messages="readable", delete_again="not-found")
    scene.emulator.delete_thread(scene.thread, scene.ann)

    assert (await scene("GET")).json["deletedOn"] == "2025-06-15T15:06:50Z"
    assert len(await scene.ids()) == 2
    assert (await scene("POST", "/messages", {"content": "x"})).status == 404
    assert (await scene("DELETE")).status == 404


async def test_only_the_creator_can_be_let_delete_a_thread() -> None:
    for value, expected in (("participants", 204), ("creator", 403)):
        scene = Scene(delete_thread_by=value)
        assert (await scene("DELETE", user=scene.bob)).status == expected


@pytest.mark.parametrize(("value", "expected"), [("not-found", 404), ("bad-request", 400)])
async def test_edits_of_a_tombstone(value: str, expected: int) -> None:
    scene = Scene(edit_of_deleted=value, tombstone_metadata="keep", delete_again="not-found")
    number = scene.emulator.send(scene.thread, scene.ann, "x", metadata={"a": "b"})
    scene.emulator.delete(scene.thread, scene.ann, number)

    assert (await scene("PATCH", f"/messages/{number}", {"content": "y"})).status == expected
    assert (await scene("GET", f"/messages/{number}")).json["metadata"] == {"a": "b"}
    assert (await scene("DELETE", f"/messages/{number}")).status == 404


async def test_identifiers_of_recent_versions_can_have_a_kind_and_their_texts_have_attachments() -> None:
    scene = Scene(identifier_kind=True)
    scene.emulator.send(scene.thread, scene.ann, "x")

    recent = (await scene("GET", "/messages?maxPageSize=1")).json["value"][0]
    older = (await scene("GET", "/messages?maxPageSize=1", version="2023-11-07")).json["value"][0]

    assert list(recent["senderCommunicationIdentifier"]) == ["kind", "rawId", "communicationUser"]
    assert recent["content"] == {"message": "x", "attachments": []}
    assert older["content"] == {"message": "x"}
    assert list(older["senderCommunicationIdentifier"]) == ["rawId", "communicationUser"]


@pytest.mark.parametrize(("value", "pages"), [(True, [2, 2, 0]), (False, [2, 2])])
async def test_a_full_page_at_the_end_has_a_link_or_not(value: bool, pages: list[int]) -> None:
    scene = Scene(link_after_last=value)
    for text in "ab":
        scene.emulator.send(scene.thread, scene.ann, text)
    sizes, path = [], "/messages?maxPageSize=2"
    while path:
        body = (await scene("GET", path)).json
        sizes.append(len(body["value"]))
        path = body.get("nextLink", "").removeprefix("https://emulator.test")

    assert sizes == pages


async def test_a_cursor_can_grow_old() -> None:
    scene = Scene(cursor_seconds=60, default_page_size=1)
    link = (await scene("GET", "/messages")).json["nextLink"].removeprefix("https://emulator.test")

    assert (await scene("GET", link)).status == 200
    scene.clock.advance(61)
    assert (await scene("GET", link)).status == 400


async def test_activity_can_follow_more_than_messages() -> None:
    async def stamps(value: str) -> list[str]:
        scene = Scene(activity=value)
        number = scene.emulator.send(scene.thread, scene.ann, "x")
        found = []
        for happening in (
            lambda: scene.emulator.edit(scene.thread, scene.ann, number, "y"),
            lambda: scene.emulator.read(scene.thread, scene.bob, number),
            lambda: scene.emulator.type(scene.thread, scene.bob),
        ):
            scene.clock.advance(1)
            happening()
            found.append((await scene("GET", "/chat/threads")).json["value"][0]["lastMessageReceivedOn"][-3:-1])
        return found

    assert await stamps("messages") == ["50", "50", "50"]
    assert await stamps("changes") == ["51", "51", "51"]
    assert await stamps("everything") == ["51", "52", "53"]


async def test_fresh_threads_can_lack_a_stamp() -> None:
    scene = Scene(stampless_seconds=20)

    assert "lastMessageReceivedOn" not in (await scene("GET", "/chat/threads")).json["value"][0]
    scene.clock.advance(20)
    assert "lastMessageReceivedOn" in (await scene("GET", "/chat/threads")).json["value"][0]


@pytest.mark.parametrize("phantoms", [1, 3, 7])
async def test_pages_of_threads_can_be_short_or_empty_although_more_follow(phantoms: int) -> None:
    emulator, clock = make(phantom_threads=phantoms)
    ann = emulator.create_user()
    for number in range(9):
        emulator.create_thread(ann, str(number))
        clock.advance(1)
    path, pages = "/chat/threads?maxPageSize=4", []
    while path:
        body = (await call(emulator, "GET", path, token=emulator.issue_token(ann).text)).json
        pages.append([int(one["topic"]) for one in body["value"]])
        path = body.get("nextLink", "").removeprefix("https://emulator.test")

    assert [topic for page in pages for topic in page] == list(range(8, -1, -1))
    assert any(len(page) < 4 for page in pages[:-1])
    assert ([] in pages[:-1]) is (phantoms > 4)


async def test_start_time_of_threads_is_inclusive_or_not() -> None:
    for value, expected in (("inclusive", 1), ("exclusive", 0)):
        emulator, _ = make(thread_start_time=value)
        ann = emulator.create_user()
        emulator.create_thread(ann)
        stamp = "2025-06-15T15:06:40.000Z"
        answer = await call(emulator, "GET", f"/chat/threads?startTime={stamp}", token=emulator.issue_token(ann).text)
        assert len(answer.json["value"]) == expected


async def test_repeatability_can_conflict() -> None:
    for value, expected in (("same", 201), ("conflict", 409)):
        scene = Scene(repeatability_conflict=value)
        headers = {"repeatability-request-id": "x"}
        await scene("POST", "/chat/threads", {"topic": "a"}, headers=headers)
        assert (await scene("POST", "/chat/threads", {"topic": "b"}, headers=headers)).status == expected


async def test_adding_unknown_participants_can_be_accepted_and_removing_nonparticipants_refused() -> None:
    scene = Scene(unknown_participant="accept", remove_stranger="not-found")
    stranger = {"rawId": f"8:acs:{scene.emulator.world.state.new_guid()}_0000001c-0000-0000-0000-000000000000"}

    removed = await scene("POST", "/participants/:remove", stranger)
    added = await scene("POST", "/participants/:add", {"participants": [{"communicationIdentifier": stranger}]})

    assert removed.status == 404
    assert added.json == {}
    assert len(scene.emulator.participants(scene.thread)) == 3


async def test_who_leaves_need_not_be_named_as_initiator() -> None:
    scene = Scene(leave_initiator="absent")
    scene.emulator.remove(scene.thread, scene.bob, scene.bob)

    left = (await scene("GET", "/messages")).json["value"][0]

    assert list(left["content"]) == ["participants"]


async def test_401_and_429_can_have_bodies_or_not() -> None:
    scene = Scene(unauthorized_body="envelope", www_authenticate=False, throttled_body="empty")
    scene.emulator.faults.add("get_thread:429")

    unauthorized = await call(scene.emulator, "GET", scene.path)
    throttled = await scene("GET")

    assert unauthorized.json["CommunicationError"]["Code"] == "Unauthorized"
    assert "www-authenticate" not in unauthorized.headers
    assert (throttled.status, throttled.body) == (429, b"")


async def test_a_stale_signature_can_be_refused() -> None:
    emulator, clock = make(hmac_skew_seconds=300)

    assert (await signed(emulator, "POST", "/identities")).status == 201
    clock.advance(301)
    assert (await signed(emulator, "POST", "/identities")).status == 401


async def test_deleting_a_user_again_can_pass() -> None:
    emulator, _ = make(delete_user_again="no-content")
    user = emulator.create_user()

    assert [(await signed(emulator, "DELETE", f"/identities/{user}")).status for _ in range(2)] == [204, 204]


async def test_an_outage_can_begin_and_end() -> None:
    scene = Scene()
    scene.emulator.faults.add("*:503,begin=10,end=20")
    statuses = []
    for _ in range(6):
        statuses.append((await scene("GET")).status)
        scene.clock.advance(5)

    assert statuses == [200, 200, 503, 503, 200, 200]


async def test_stamps_and_dates_can_be_behind_the_ids() -> None:
    scene = Scene(stamp_behind_seconds=1, date_behind_seconds=2)
    scene.emulator.send(scene.thread, scene.ann, "x")

    listed = await scene("GET", "/chat/threads")

    assert listed.json["value"][0]["lastMessageReceivedOn"] == "2025-06-15T15:06:49Z"
    assert listed.headers["date"] == "Sun, 15 Jun 2025 15:06:48 GMT"


@pytest.mark.parametrize(("quirk", "is_moved"), [("unmoved", False), ("moved", True)])
async def test_a_removal_moves_a_thread_in_lists_or_not(quirk: str, is_moved: bool) -> None:
    scene = Scene(removal_activity=quirk)
    before = (await scene("GET", "/chat/threads")).json["value"][0]["lastMessageReceivedOn"]

    scene.emulator.remove(scene.thread, scene.ann, scene.bob)

    after = (await scene("GET", "/chat/threads")).json["value"][0]["lastMessageReceivedOn"]
    assert (before != after) is is_moved


@pytest.mark.parametrize(("quirk", "status"), [("server-error", 500), ("forbidden", 403), ("not-found", 404)])
async def test_a_removal_by_the_one_removed_is_refused_as_the_quirk_says(quirk: str, status: int) -> None:
    scene = Scene(removed_removal=quirk)
    scene.emulator.remove(scene.thread, scene.bob, scene.bob)
    body = {"communicationUser": {"id": scene.bob}}

    assert (await scene("POST", "/participants/:remove", body, user=scene.bob)).status == status


async def test_a_thread_of_2025_shows_that_it_has_no_retention_and_an_empty_metadata() -> None:
    scene = Scene()
    body = {
        "topic": "t",
        "metadata": {},
        "retentionPolicy": {"kind": "threadCreationDate", "deleteThreadAfterDays": 40},
    }

    made = (await scene("POST", "/chat/threads", body, version="2025-03-15")).json["chatThread"]
    path = f"/chat/threads/{made['id']}"
    await scene("PATCH", path, {"retentionPolicy": None}, version="2025-03-15")
    shown = (await scene("GET", path, version="2025-03-15")).json
    preview = (await scene("GET", path, version="2024-06-05-preview")).json
    older = (await scene("GET", path, version="2024-03-07")).json

    assert list(made)[-2:] == ["metadata", "retentionPolicy"]
    assert (made["metadata"], made["retentionPolicy"]["deleteThreadAfterDays"]) == ({}, 40)
    assert (shown["metadata"], shown["retentionPolicy"]) == ({}, {"kind": "none"})
    assert preview["messagingPolicy"] == {"textOnlyChat": False}
    assert "retentionPolicy" not in older
    assert "retentionPolicy" not in (await Scene(retention_none="omitted")("GET", version="2025-03-15")).json


async def test_headers_of_another_date_or_edge_can_be_answered() -> None:
    plain = Scene()
    other = Scene(edge_headers=True, mise_correlation=True, identity_vector="2.0", hsts="month")

    default, switched = await plain("GET"), await other("GET")
    empty, created = await other("POST", "/typing", {}), await other("POST", "/messages", {"content": "x"})
    refused = await other("GET", "/messages/1700000000000")
    user = await signed(other.emulator, "POST", "/identities")

    assert not {"accept-ranges", "connection", "mise-correlation-id"} & set(default.headers)
    assert default.headers["strict-transport-security"] == "max-age=31536000;includeSubDomains"
    assert switched.headers["strict-transport-security"] == "max-age=2592000"
    for answer, has_ranges in ((switched, True), (empty, True), (created, False), (refused, False), (user, False)):
        assert answer.headers["connection"] == "keep-alive"
        assert ("accept-ranges" in answer.headers) is has_ranges
    assert "mise-correlation-id" in switched.headers
    assert "mise-correlation-id" not in user.headers
    assert (switched.headers["ms-cv"][-2:], user.headers["ms-cv"][-4:]) == (".0", ".2.0")
    assert (await signed(plain.emulator, "POST", "/identities")).headers["ms-cv"].count(".") == 1


async def test_people_and_receipts_come_in_pages_of_the_default_size() -> None:
    scene = Scene(default_participants=1, default_receipts=1)
    number = scene.emulator.send(scene.thread, scene.ann, "x")
    for reader in (scene.ann, scene.bob):
        scene.emulator.read(scene.thread, reader, number)

    for noun in ("participants", "readReceipts"):
        page = (await scene("GET", f"/{noun}")).json
        assert len(page["value"]) == 1
        assert f"/{noun}?skip=1&maxPageSize=1&" in page["nextLink"]


async def test_a_repeatability_id_is_forgotten_after_its_time() -> None:
    scene = Scene(repeatability_seconds=60)

    async def create() -> str:
        answer = await scene("POST", "/chat/threads", {"topic": "a"}, headers={"repeatability-request-id": "x"})
        return str(answer.json["chatThread"]["id"])

    first = await create()
    scene.clock.advance(60)
    assert await create() == first
    scene.clock.advance(1)
    assert await create() != first


async def test_the_token_of_a_deleted_user_is_accepted_for_its_time() -> None:
    scene = Scene(deletion_delay_seconds=30)
    token = scene.token(scene.bob)
    await signed(scene.emulator, "DELETE", f"/identities/{scene.bob}")

    statuses = []
    for _ in range(2):
        statuses.append((await call(scene.emulator, "GET", scene.path, token=token)).status)
        scene.clock.advance(30)

    assert statuses == [200, 401]
