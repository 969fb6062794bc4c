"""Checks of changes: edits and deletions, removals, deleted threads, and what content is accepted."""

from __future__ import annotations

import itertools
import uuid
from typing import Any, Final

import anyio

from chatbot.calibration.list_checks import path_of, read, stamp_of
from chatbot.calibration.scene import ProbeUser, Scene, shown
from chatbot.model import ThreadId
from chatbot.service.raw_requests import RawResponse

REFUSALS: Final = {403: "forbidden", 404: "not-found", 500: "server-error"}

HTML: Final = (
    '<p>p</p><b>b</b><a href="https://example.com" onclick="x()">a</a><img src="https://example.com/i.png" alt="i">'
    "<script>s()</script><table><tr><td>t</td></tr></table><h1>h</h1><ul><li>l</li></ul><pre>c</pre><iframe></iframe>"
)


async def editing(scene: Scene) -> None:
    """Edits and deletions of messages, one's own and others'."""
    ann, ben = await scene.users("ann", "ben")
    thread = await scene.thread(ann, "editing", ben)
    path, found = f"{path_of(thread)}/messages", scene.findings
    first = await scene.say(ann, thread, "first")
    doomed = await scene.say(ann, thread, "doomed", {"probe": "kept?"})
    spare = await scene.say(ann, thread, "spare")
    before = await _message(scene, ann, path, first)
    await scene.edit(ann, thread, first, "edited")
    after = await _message(scene, ann, path, first)
    numbers = f"sequenceId {before.get('sequenceId')} became {after.get('sequenceId')}"
    value = "kept" if before.get("sequenceId") == after.get("sequenceId") else "next"
    found.note("edited_sequence", value, numbers)
    await _equal_versions(scene, ann, thread, [first, doomed, spare])
    await scene.pace(thread)
    others = await scene.ask(ben, "PATCH", f"{path}/{spare}", {"content": "not mine"})
    read(scene, "edit_of_others", others, {403: "forbidden", 204: "allowed"}, "an edit of another's message")
    await scene.pace(thread)
    others = await scene.ask(ben, "DELETE", f"{path}/{spare}")
    read(scene, "delete_of_others", others, {403: "forbidden", 204: "allowed"}, "a deletion of another's message")
    await scene.pace(thread)
    await scene.ask(ann, "DELETE", f"{path}/{doomed}")
    grave = await _message(scene, ann, path, doomed)
    if "deletedOn" in grave:
        value = "keep" if grave.get("metadata") else "drop"
        found.note("tombstone_metadata", value, f"fields of a tombstone: {', '.join(grave)}")
        found.answer("U7", "content of a tombstone", str(grave.get("content")))
    else:
        found.miss(["tombstone_metadata"], "a deleted message was not shown as deleted")
    await scene.pace(thread)
    edit = await scene.ask(ann, "PATCH", f"{path}/{doomed}", {"content": "risen"})
    read(scene, "edit_of_deleted", edit, {404: "not-found", 400: "bad-request"}, "an edit of a tombstone")
    await scene.pace(thread)
    again = await scene.ask(ann, "DELETE", f"{path}/{doomed}")
    read(scene, "delete_again", again, {204: "no-content", 404: "not-found"}, "a second deletion of a message")


async def _message(scene: Scene, user: ProbeUser, path: str, message: int) -> dict[str, Any]:
    return (await scene.ask(user, "GET", f"{path}/{message}")).json


async def _equal_versions(scene: Scene, ann: ProbeUser, thread: ThreadId, messages: list[int]) -> None:
    """Edit three messages at once: versions that are equal, or only just not."""
    for _ in messages:
        await scene.pace(thread)
    try:
        async with anyio.create_task_group() as group:
            for message in messages:
                path, body = f"{path_of(thread)}/messages/{message}", {"content": "at once"}
                group.start_soon(scene.ask, ann, "PATCH", path, body)
    except ExceptionGroup as error:  # whoever runs the groups of the probe expects the error itself
        raise error.exceptions[0] from None
    page = await scene.ask(ann, "GET", f"{path_of(thread)}/messages", query={"maxPageSize": 50})
    versions = sorted(int(one["version"]) for one in page.json.get("value", []) if int(one["id"]) in messages)
    steps = [later - earlier for earlier, later in itertools.pairwise(versions)]
    if 0 in steps:
        scene.findings.note("equal_versions", True, f"versions of three edits at once differ by {steps} ms")
    elif 1 in steps:
        scene.findings.note("equal_versions", False, f"versions of three edits at once differ by {steps} ms")
    else:
        scene.findings.miss(["equal_versions"], f"no two changes fell into one millisecond (they differ by {steps} ms)")


async def membership(scene: Scene) -> None:
    """Removed participants, those who leave, and strangers."""
    ann, ben, cat, dan = await scene.users("ann", "ben", "cat", "dan")
    thread = await scene.thread(ann, "membership", ben, cat)
    path = path_of(thread)
    stranger = await _remove(scene, ann, path, dan.user)
    read(scene, "remove_stranger", stranger, {204: "no-content", 404: "not-found"}, "removing who is not in the thread")
    await _add_unknown(scene, ann, path)
    await scene.say(ann, thread, "last message before the removal")
    await scene.pause(2.2)
    before = await stamp_of(scene, ann, thread)
    removal = await _remove(scene, ann, path, ben.user)
    await scene.pause(1.0)
    after = await stamp_of(scene, ann, thread)
    if removal.status == 204 and before is not None and after is not None:
        value = "unmoved" if after == before else "moved"
        scene.findings.note("removal_activity", value, f"a removal moved lastMessageReceivedOn by {after - before} s")
    else:
        scene.findings.miss(["removal_activity"], f"the removal: {shown(removal)}; stamps: {before}, {after}")
    await _as_removed(scene, ben, cat, path)
    await _leaving(scene, ann, cat, path)


def identifier(user: str) -> dict[str, Any]:
    """Return a user as the service takes it."""
    return {"rawId": user, "communicationUser": {"id": user}}


async def _remove(scene: Scene, who: ProbeUser, path: str, user: str) -> RawResponse:
    return await scene.ask(who, "POST", f"{path}/participants/:remove", identifier(user))


async def _add_unknown(scene: Scene, ann: ProbeUser, path: str) -> None:
    unknown = f"{ann.user.rpartition('_')[0]}_0000001c-{uuid.uuid4().hex[:4]}-0000-0000-{uuid.uuid4().hex[:12]}"
    body = {"participants": [{"communicationIdentifier": identifier(unknown)}]}
    added = await scene.ask(ann, "POST", f"{path}/participants/:add", body)
    refusals = added.json.get("invalidParticipants") or []
    if added.status != 201:
        scene.findings.miss(["unknown_participant"], f"adding an unknown user: {shown(added)}")
        return
    value = "invalid" if refusals else "accept"
    text = str(refusals[0].get("message", "")) if refusals else "accepted"
    scene.findings.note("unknown_participant", value, f"adding an unknown user of the resource: 201, {text}")


async def _as_removed(scene: Scene, ben: ProbeUser, cat: ProbeUser, path: str) -> None:
    messages = await scene.ask(ben, "GET", f"{path}/messages")
    read(scene, "removed_reads", messages, {200: "history", **REFUSALS}, "list_messages of the removed one")
    people = await scene.ask(ben, "GET", f"{path}/participants")
    read(scene, "removed_participants", people, {200: "listed", **REFUSALS}, "list_participants of the removed one")
    sent = await scene.ask(ben, "POST", f"{path}/messages", {"content": "still here?"})
    read(scene, "removed_writes", sent, REFUSALS, "sending of the removed one")
    removal = await _remove(scene, ben, path, cat.user)
    read(scene, "removed_removal", removal, REFUSALS, "a removal by the removed one")


async def _leaving(scene: Scene, ann: ProbeUser, cat: ProbeUser, path: str) -> None:
    left = await _remove(scene, cat, path, cat.user)
    page = await scene.ask(ann, "GET", f"{path}/messages")
    notices = [
        one["content"]
        for one in page.json.get("value", [])
        if one.get("type") == "participantRemoved"
        and any(p["communicationIdentifier"]["rawId"] == cat.user for p in one["content"].get("participants", []))
    ]
    if not notices:
        scene.findings.miss(["leave_initiator"], f"leaving: {shown(left)}, and no participantRemoved was listed")
        return
    initiator = notices[0].get("initiatorCommunicationIdentifier", {}).get("rawId")
    value = "absent" if initiator is None else "self"
    scene.findings.note("leave_initiator", value, "participantRemoved of somebody who left")
    fields = ", ".join([*notices[0], *(f"participant.{name}" for name in notices[0]["participants"][0])])
    scene.findings.answer("U12", "participantRemoved has", fields)


async def deletion(scene: Scene) -> None:
    """Deleted threads: who may delete, and what can still be done."""
    ann, ben = await scene.users("ann", "ben")
    thread = await scene.thread(ann, "deleted", ben)
    path = path_of(thread)
    await scene.say(ann, thread, "before the deletion")
    page = await scene.ask(ann, "GET", f"{path}/messages", query={"maxPageSize": 1})
    deleted = await scene.ask(ben, "DELETE", path)
    meanings = {204: "participants", 403: "creator"}
    read(scene, "delete_thread_by", deleted, meanings, "deletion by a participant who did not create it")
    if deleted.status != 204:
        await scene.ask(ann, "DELETE", path)
    properties = await scene.ask(ann, "GET", path)
    read(scene, "deleted_thread", properties, {404: "not-found", 200: "properties"}, "get_thread of a deleted thread")
    messages = await scene.ask(ann, "GET", f"{path}/messages")
    meanings = {404: "not-found", 200: "readable"}
    read(scene, "deleted_thread_messages", messages, meanings, "list_messages of a deleted thread")
    people = await scene.ask(ann, "GET", f"{path}/participants")
    known = {404: "not-found", 403: "forbidden", 200: "listed"}
    read(scene, "deleted_thread_participants", people, known, "list_participants of a deleted thread")
    sent = await scene.ask(ann, "POST", f"{path}/messages", {"content": "too late"})
    read(scene, "deleted_thread_writes", sent, {404: "not-found", 403: "forbidden"}, "sending to a deleted thread")
    again = await scene.ask(ann, "DELETE", path)
    scene.findings.answer("U6", "a second deletion of a thread", shown(again))
    if isinstance(link := page.json.get("nextLink"), str):
        followed = await scene.follow(ann, link)
        scene.findings.answer("U10", "a nextLink of messages after the thread was deleted", shown(followed))


async def content(scene: Scene) -> None:
    """What content, metadata and topics are accepted."""
    ann = await scene.user("ann")
    thread = await scene.thread(ann, "content")
    path, found = f"{path_of(thread)}/messages", scene.findings

    async def send(body: dict[str, Any]) -> RawResponse:
        await scene.pace(thread)
        return await scene.ask(ann, "POST", path, body)

    large = await send({"content": "x" * 29_000})
    read(scene, "too_large_status", large, {400: 400, 413: 413}, "a message of 29,000 bytes")
    blank = await send({"content": "   "})
    read(scene, "blank_content", blank, {201: "accept", 400: "reject"}, "a message of white space")
    system = await send({"content": "topic", "type": "topicUpdated"})
    read(scene, "system_type", system, {201: "text", 400: "reject"}, "sending type topicUpdated")
    empty = await scene.ask(ann, "PATCH", path_of(thread), {"topic": ""})
    read(scene, "empty_topic", empty, {204: "accept", 400: "reject"}, "changing the topic to nothing")
    html = await send({"content": HTML, "type": "html"})
    if html.status == 201:
        stored = await scene.ask(ann, "GET", f"{path}/{html.json['id']}")
        found.answer("U7", "what is left of html", str(stored.json.get("content", {}).get("message")))
    await _metadata_limit(scene, send)


async def _metadata_limit(scene: Scene, send: Any) -> None:
    """Find the largest metadata of a message: a power of two first, then exactly that or the interval."""

    async def fits(size: int) -> bool:
        response: RawResponse = await send({"content": "m", "metadata": {"k": "v" * (size - 1)}})
        return response.status == 201

    if await fits(20_000):
        scene.findings.note("metadata_limit_bytes", 0, "20,000 bytes of metadata were taken")
        return
    powers = [2**power for power in range(7, 15)]
    low, high = -1, len(powers)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if await fits(powers[middle]) else (low, middle)
    if low < 0:
        scene.findings.miss(["metadata_limit_bytes"], "not even 128 bytes of metadata were taken")
        return
    least, most = powers[low], powers[high] if high < len(powers) else 20_000
    text = f"{least} bytes of metadata were taken, {most} were not"
    if await fits(least + 1):
        scene.findings.between("metadata_limit_bytes", least + 1, most - 1, text)
    else:
        scene.findings.note(
            "metadata_limit_bytes", least, f"{least} bytes of metadata were taken, {least + 1} were not"
        )
