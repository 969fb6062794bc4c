"""Checks of answers in general, of message lists, and of thread lists."""

from __future__ import annotations

from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlsplit

from chatbot.calibration.scene import ProbeUser, Scene, iso, shown
from chatbot.model import MessageId, ThreadId
from chatbot.service.raw_requests import RawResponse

NO_THREAD: Final = "19%3AacsV1_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA1@thread.v2"
"""A well-formed id that no thread has."""

_HSTS: Final = {
    "max-age=31536000;includeSubDomains": "year",
    "max-age=31536000; includeSubDomains": "year-spaced",
    "max-age=2592000": "month",
}
_MOST_PHANTOMS: Final = 8
_SHORT_ID: Final = 57
"""Characters of thread ids until 2024."""


def path_of(thread: str) -> str:
    """Return the path of a thread below `/chat/threads`."""
    return f"/{quote(thread, safe='')}"


def read(scene: Scene, quirk: str, response: RawResponse, meanings: dict[int, Any], what: str) -> None:
    """Keep what a status means for a quirk, or that the emulator has no such value."""
    text = f"{what}: {shown(response)}"
    if response.status in meanings:
        scene.findings.note(quirk, meanings[response.status], text)
    else:
        scene.findings.miss([quirk], f"the emulator has no such value: {text}")


async def answers(scene: Scene) -> None:
    """Headers, ids, envelopes, 401, and unsupported versions."""
    ann = await scene.user("ann")
    created = await scene.thread(ann, "answers")
    found = scene.findings
    _thread_id(scene, created)
    await scene.say(ann, created, "how late is the clock?")
    await scene.until_fraction(0.5, scene.lag)  # where a few milliseconds do not change what is floored
    sent = await scene.ask(ann, "POST", f"{path_of(created)}/messages", {"content": "hello"})
    _location(scene, sent)
    _clock(scene, sent)
    thread = await scene.ask(ann, "GET", path_of(created))
    _headers(scene, thread)
    has_kind = "kind" in thread.json.get("createdByCommunicationIdentifier", {})
    found.note("identifier_kind", has_kind, f"a thread's creator, api-version {scene.version}")
    if scene.version >= "2025":
        value = "shown" if "retentionPolicy" in thread.json else "omitted"
        found.note("retention_none", value, f"a thread without a policy, api-version {scene.version}")
    else:
        found.miss(["retention_none"], "this resource does not have api-version 2025-03-15")
    unknown = await scene.ask(ann, "GET", f"/{NO_THREAD}")
    if unknown.envelope in ("CommunicationError", "error"):
        found.note("error_envelope", unknown.envelope, f"a thread that does not exist: {shown(unknown)}")
    else:
        found.miss(["error_envelope"], f"unlike any known envelope: {shown(unknown)}")
    await _refused_tokens(scene, ann)
    old = await scene.ask(ann, "GET", "", version="2019-01-01")
    read(scene, "unsupported_version", old, {400: "reject", 404: "reject", 200: "accept"}, "api-version 2019-01-01")
    message = await scene.ask(ann, "GET", f"{path_of(created)}/messages")
    items = [one for one in message.json.get("value", []) if one.get("type") == "text"]
    if items:
        has = "attachments" in items[0].get("content", {})
        found.answer("U8", "`attachments` of a text message", f"{'[]' if has else 'absent'} ({scene.version})")
    vector = (
        await scene.identity("POST", "/identities/8:acs:none/:issueAccessToken?api-version=2023-10-01", {})
    ).headers
    ending = vector.get("ms-cv", "").partition(".")[2]
    if ending in ("0", "2.0"):
        found.note("identity_vector", ending, "the end of MS-CV of the identity service")
    else:
        found.miss(["identity_vector"], f"MS-CV ends in {ending!r}")


def _thread_id(scene: Scene, thread: str) -> None:
    text = f"an id of {len(thread)} characters"
    if thread.startswith("19:acsV1_"):
        scene.findings.note("thread_ids", "acsV1", text)
    elif thread.startswith("19:") and len(thread) == _SHORT_ID:
        scene.findings.note("thread_ids", "short", text)
    else:
        scene.findings.miss(["thread_ids"], f"unlike any known: {text}")


def _location(scene: Scene, sent: RawResponse) -> None:
    host = urlsplit(sent.headers.get("location", "")).netloc
    own = urlsplit(scene.resource.endpoint).netloc
    if not host:
        scene.findings.miss(["location_host"], "there was no Location")
        return
    scene.findings.note("location_host", "request" if host == own else "global", f"Location is at {host}")


def _clock(scene: Scene, sent: RawResponse) -> None:
    """Compare the Date header with the message id of the same response, both of the service."""
    try:
        date = int(parsedate_to_datetime(sent.headers.get("date", "")).timestamp())
        behind = int(sent.json["id"]) // 1000 - date
    except (ValueError, TypeError, KeyError):
        scene.findings.miss(["date_behind_seconds"], "no Date or no id came")
        return
    scene.findings.note("date_behind_seconds", max(0, behind), f"id minus Date: {behind} s, both floored")


def _headers(scene: Scene, response: RawResponse) -> None:
    found, headers = scene.findings, response.headers
    hsts = headers.get("strict-transport-security")
    if hsts in _HSTS:
        found.note("hsts", _HSTS[hsts], f"Strict-Transport-Security: {hsts}")
    else:
        found.miss(["hsts"], "plain http has none" if hsts is None else f"unlike any known: {hsts}")
    found.note("edge_headers", "accept-ranges" in headers, "accept-ranges of a 200")
    found.note("mise_correlation", "mise-correlation-id" in headers, "mise-correlation-id of a 200")


async def _refused_tokens(scene: Scene, ann: ProbeUser) -> None:
    refused = await scene.ask(ann, "GET", "", token="eyJhbGciOiJub25lIn0.e30.AAAA")  # noqa: S106 -- no token at all
    if refused.status != 401:
        scene.findings.miss(["unauthorized_body", "www_authenticate"], f"a made-up token: {shown(refused)}")
        return
    value = "envelope" if refused.body else "empty"
    scene.findings.note("unauthorized_body", value, f"a made-up token: {shown(refused)}")
    header = refused.headers.get("www-authenticate")
    scene.findings.note("www_authenticate", header is not None, f"WWW-Authenticate: {header}")


# Lists of messages


async def reading(scene: Scene) -> None:
    """`startTime`, page sizes and nextLinks of message lists, participants and receipts."""
    ann, ben = await scene.users("ann", "ben")
    thread = await scene.thread(ann, "reading", ben)
    path = path_of(thread)
    changed = await scene.say(ann, thread, "to be edited")
    await _watch_link(scene, ann, path)
    await _bad_values(scene, ann, path)
    read_one = await scene.say(ann, thread, "to be read")
    for reader in (ann, ben):
        await scene.chat_of(reader).send_receipt(thread, MessageId(str(read_one)))
    await _defaults_of_others(scene, ann, path)
    await _start_time(scene, ann, thread, changed)
    for _ in range(12 - len(await _ids(scene, ann, path, maxPageSize=200))):
        await scene.say(ann, thread, "one more")
    await _paging(scene, ann, path)


async def _ids(scene: Scene, user: ProbeUser, path: str, **query: Any) -> list[int]:
    response = await scene.ask(user, "GET", f"{path}/messages", query=query)
    return [int(one["id"]) for one in response.json.get("value", [])]


async def _start_time(scene: Scene, ann: ProbeUser, thread: ThreadId, changed: int) -> None:
    path, found = path_of(thread), scene.findings
    quiet = await scene.say(ann, thread, "quiet")
    late = await _ids(scene, ann, path, startTime=iso(quiet - quiet % 1000 + 999))
    is_floored = quiet in late or quiet % 1000 == 999
    value = "seconds" if is_floored else "milliseconds"
    found.note("start_time_precision", value, f"a message {999 - quiet % 1000} ms before startTime, in its second")
    exact = quiet
    for _attempt in range(5):
        if not is_floored or exact % 1000 == 0:
            break
        await scene.until_fraction(0.0003, scene.lag)
        exact = await scene.say(ann, thread, "on the second")
    if is_floored and exact % 1000:
        reason = "startTime is floored to the second, and no message of the probe fell on a whole one"
        found.miss(["start_time"], reason)
    else:
        is_listed = exact in await _ids(scene, ann, path, startTime=iso(exact))
        found.note("start_time", "inclusive" if is_listed else "exclusive", "a message exactly at startTime")
    await scene.pause(2.1)
    await scene.edit(ann, thread, changed, "edited")
    between = (changed // 1000 + 1) * 1000 + 500
    is_listed = changed in await _ids(scene, ann, path, startTime=iso(between))
    value = "version" if is_listed else "created"
    found.note("start_time_field", value, "a message created before startTime and edited after it")


async def _bad_values(scene: Scene, ann: ProbeUser, path: str) -> None:
    async def listed(noun: str, **query: Any) -> RawResponse:
        return await scene.ask(ann, "GET", f"{path}/{noun}", query=query)

    over = await listed("messages", maxPageSize=201)
    read(scene, "page_size_over_max", over, {200: "clamp", 400: "reject"}, "maxPageSize=201")
    zero = await listed("messages", maxPageSize=0)
    read(scene, "page_size_below_one", zero, {200: "default", 400: "reject"}, "maxPageSize=0")
    skip = await listed("participants", skip=-1)
    read(scene, "negative_skip", skip, {200: "zero", 400: "reject"}, "skip=-1")
    start = await listed("messages", startTime="yesterday")
    read(scene, "bad_start_time", start, {200: "ignore", 400: "reject"}, "startTime=yesterday")


async def _watch_link(scene: Scene, ann: ProbeUser, path: str) -> None:
    page = await scene.ask(ann, "GET", f"{path}/messages", query={"maxPageSize": 1})
    link = page.json.get("nextLink")
    if not isinstance(link, str):
        scene.findings.miss(["cursor_seconds"], "there was no nextLink")
        return

    async def works() -> bool:
        return (await scene.follow(ann, link)).status == 200

    scene.watch("cursor_seconds", "a nextLink of messages is followed", works, ages=(2.0, 8.0, 30.0, 60.0, 110.0))


async def _defaults_of_others(scene: Scene, ann: ProbeUser, path: str) -> None:
    for noun, quirk in (("participants", "default_participants"), ("readReceipts", "default_receipts")):
        page = await scene.ask(ann, "GET", f"{path}/{noun}")
        _default_size(scene, quirk, page, noun)


def _default_size(scene: Scene, quirk: str, page: RawResponse, noun: str) -> None:
    count = len(page.json.get("value", []))
    link = page.json.get("nextLink")
    if isinstance(link, str):
        named = parse_qs(urlsplit(link).query).get("maxPageSize", [str(count)])[0]
        size = int(named) if named.isdecimal() else count
        scene.findings.note(quirk, size, f"{count} {noun} on the first page; its nextLink says {named}")
    else:
        scene.findings.between(quirk, count, None, f"all {count} {noun} of the thread came on one page")


async def _paging(scene: Scene, ann: ProbeUser, path: str) -> None:
    page = await scene.ask(ann, "GET", f"{path}/messages")
    _default_size(scene, "default_page_size", page, "messages")
    total = len(await _ids(scene, ann, path, maxPageSize=200))
    exact = await scene.ask(ann, "GET", f"{path}/messages", query={"maxPageSize": total})
    has_link = "nextLink" in exact.json
    scene.findings.note("link_after_last", has_link, f"a page of {total} that ends exactly at the last message")


# Lists of threads


async def thread_lists(scene: Scene) -> None:
    """Order and stamps of thread lists: what moves a thread, how late, and what `startTime` means."""
    dan, ann = await scene.users("dan", "ann")
    for topic in ("older", "old"):
        await scene.thread(dan, topic)
        await scene.pause(0.1)
    thread = await scene.thread(dan, "listed", ann)
    await _watch_stamp(scene, dan, thread)
    await _phantoms(scene, dan)
    await scene.pause(2.2)
    await scene.until_fraction(0.5, scene.lag)
    last = await scene.say(dan, thread, "last")
    await scene.pause(1.5)
    stamp = await stamp_of(scene, dan, thread)
    if stamp is None:
        names = ["stamp_behind_seconds", "activity", "thread_start_time"]
        scene.findings.miss(names, "the thread had no lastMessageReceivedOn after several seconds")
        return
    behind = last // 1000 - stamp
    scene.findings.note("stamp_behind_seconds", max(0, behind), f"last message minus lastMessageReceivedOn: {behind} s")
    await _start_of_threads(scene, dan, thread, last)
    await scene.edit(dan, thread, last, "edited")
    await scene.pause(1.5)
    edited = await stamp_of(scene, dan, thread)
    await scene.chat_of(ann).send_receipt(thread, MessageId(str(last)))
    await scene.chat_of(ann).send_typing(thread)
    await scene.pause(1.5)
    read_stamp = await stamp_of(scene, dan, thread)
    value = "everything" if read_stamp != edited else "changes" if edited != stamp else "messages"
    evidence = (
        f"stamps after a message, an edit, a receipt: {[(one or 0) - stamp for one in (stamp, edited, read_stamp)]}"
    )
    scene.findings.note("activity", value, evidence)


async def _item(scene: Scene, user: ProbeUser, thread: str) -> dict[str, Any]:
    query: dict[str, Any] = {}
    target: str | None = None
    for _ in range(4):
        page = await scene.ask(user, "GET", "", query=query) if target is None else await scene.follow(user, target)
        for item in page.json.get("value", []):
            if item.get("id") == thread:
                return dict(item)
        target = page.json.get("nextLink")
        if target is None:
            break
    return {}


async def stamp_of(scene: Scene, user: ProbeUser, thread: str) -> int | None:
    """Return a thread's lastMessageReceivedOn in epoch seconds, as a user's list shows it."""
    text = (await _item(scene, user, thread)).get("lastMessageReceivedOn")
    return int(datetime.fromisoformat(text).timestamp()) if isinstance(text, str) else None


async def _watch_stamp(scene: Scene, dan: ProbeUser, thread: str) -> None:
    async def is_missing() -> bool:
        return "lastMessageReceivedOn" not in await _item(scene, dan, thread)

    scene.watch("stampless_seconds", "a new thread is listed without a stamp", is_missing)
    await scene.look()


async def _phantoms(scene: Scene, dan: ProbeUser) -> None:
    """Count the entries that the service hides before a thread: a page of two of three threads must be full."""
    page = await scene.ask(dan, "GET", "", query={"maxPageSize": 2})
    if len(page.json.get("value", [])) == 2:
        scene.findings.note("phantom_threads", 0, "a page of two of three threads was full")
        return
    page = await scene.ask(dan, "GET", "", query={"maxPageSize": 1})
    for count in range(_MOST_PHANTOMS):
        if page.json.get("value"):
            scene.findings.note("phantom_threads", count, f"{count} empty pages of one before the first thread")
            return
        link = page.json.get("nextLink")
        if not isinstance(link, str):
            break
        page = await scene.follow(dan, link)
    scene.findings.between("phantom_threads", _MOST_PHANTOMS, None, "empty pages of one before the first thread")


async def _start_of_threads(scene: Scene, dan: ProbeUser, thread: str, last: int) -> None:
    async def is_listed(start: int) -> bool:
        page = await scene.ask(dan, "GET", "", query={"startTime": iso(start)})
        return any(one.get("id") == thread for one in page.json.get("value", []))

    before, exact, after = await is_listed(last - 2000), await is_listed(last), await is_listed(last + 3000)
    seen = f"startTime 2 s before the last message: {before}, at it: {exact}, 3 s after it: {after}"
    scene.findings.answer("U1", "startTime of list_chat_threads", seen)
    if before and not after:
        scene.findings.note("thread_start_time", "inclusive" if exact else "exclusive", seen)
    else:
        scene.findings.miss(["thread_start_time"], f"startTime is no lower bound of the last activity: {seen}")
