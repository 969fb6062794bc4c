"""Checks of limits in time and number: tokens and clocks, repeated creations, and quotas."""

from __future__ import annotations

import uuid
from typing import Any, Final

from chatbot.calibration.change_checks import identifier
from chatbot.calibration.list_checks import path_of, read
from chatbot.calibration.scene import ProbeUser, Scene, shown
from chatbot.model import ThreadId
from chatbot.service.raw_requests import RawResponse

QUOTA_QUIRKS: Final = ("retry_after", "throttled_body", "quota_window", "refused_requests", "quota_rows")

_MOST_RECEIPTS: Final = 14
"""Requests after which a bucket of documented size five counts as unlimited."""

_SKEWS: Final = (30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400)
_VERSION: Final = "api-version=2023-10-01"


async def identities(scene: Scene) -> None:
    """Deleted users, revoked tokens, and how exact the clock must be."""
    eve, fay = await scene.users("eve", "fay")
    await scene.identity("POST", f"/identities/{fay.user}/:revokeAccessTokens?{_VERSION}")
    _watch_token(scene, fay, "revocation_delay_seconds", "a revoked token is accepted by chat")
    await scene.look()
    deleted = await scene.identity("DELETE", f"/identities/{eve.user}?{_VERSION}")
    if deleted.status == 204:
        await scene.forget_user(eve)
        _watch_token(scene, eve, "deletion_delay_seconds", "the token of a deleted user is accepted by chat")
        await scene.look()
        again = await scene.identity("DELETE", f"/identities/{eve.user}?{_VERSION}")
        read(scene, "delete_user_again", again, {401: "not-owned", 204: "no-content"}, "a second deletion of a user")
    await _skew(scene)


def _watch_token(scene: Scene, user: ProbeUser, quirk: str, what: str) -> None:
    is_told = False

    async def is_accepted() -> bool:
        nonlocal is_told
        response = await scene.ask(user, "GET", "", query={"maxPageSize": 1}, is_patient=False)
        if response.status == 401 and not is_told:
            is_told = True
            header = response.headers.get("www-authenticate")
            scene.findings.answer("U3", f"after that {what}", f"{shown(response)}; WWW-Authenticate: {header}")
        return response.status != 401

    scene.watch(quirk, what, is_accepted)


async def _skew(scene: Scene) -> None:
    """Sign harmless requests with a wrong time: a token for a user that does not exist."""
    if not scene.raw.is_signed:
        scene.findings.miss(["hmac_skew_seconds"], "requests are not signed: the probe uses Microsoft Entra ID")
        return

    async def is_taken(seconds: int) -> bool:
        target = f"/identities/8:acs:none/:issueAccessToken?{_VERSION}"
        response = await scene.identity("POST", target, {"scopes": ["chat"]}, signed_at=scene.clock() - seconds)
        return response.code.lower() != "denied"

    if await is_taken(86_400):
        scene.findings.note("hmac_skew_seconds", 0, "a signature that was a day old was taken")
        return
    low, high = -1, len(_SKEWS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if await is_taken(_SKEWS[middle]) else (low, middle)
    taken = _SKEWS[low] if low >= 0 else 1
    refused = _SKEWS[high] if high < len(_SKEWS) else 86_400
    text = f"a signature that was {taken} s old was taken, one of {refused} s was not"
    scene.findings.between("hmac_skew_seconds", taken, refused, text)


async def repeatability(scene: Scene) -> None:
    """The same repeatability id again, with another body, by another user, and later."""
    ann, ben = await scene.users("ann", "ben")
    key = str(uuid.uuid4())
    first = await _create(scene, ann, key, "repeated")
    if first is None:
        scene.findings.miss(["repeatability_seconds", "repeatability_conflict"], "the thread was not created")
        return
    body = {"topic": "probe: another topic", "participants": []}
    other = await scene.ask(ann, "POST", "", body, headers={"repeatability-request-id": key})
    await _keep(scene, key, other)
    is_same = other.json.get("chatThread", {}).get("id") == first
    if other.status == 409:
        scene.findings.note("repeatability_conflict", "conflict", f"the same key with another body: {shown(other)}")
    elif is_same:
        scene.findings.note("repeatability_conflict", "same", "the same key with another body: the first thread")
    else:
        scene.findings.miss(["repeatability_conflict"], f"the same key with another body: {shown(other)}, a new thread")
    theirs = str(uuid.uuid4())
    await scene.journal.plan_thread(theirs, ben.intent)
    scope = await scene.ask(ben, "POST", "", body, headers={"repeatability-request-id": key})
    is_shared = scope.json.get("chatThread", {}).get("id") == first
    if not is_shared:
        await _keep(scene, theirs, scope)
    text = f"{shown(scope)}, {'the first' if is_shared else 'another'} thread"
    scene.findings.answer("U11", "the same key by another user", text)

    async def is_known() -> bool:
        return await _create(scene, ann, key, "repeated") == first

    what = "a repeatability id is remembered"
    scene.watch("repeatability_seconds", what, is_known, ages=(1.0, 4.0, 15.0, 40.0, 90.0))


async def _create(scene: Scene, user: ProbeUser, key: str, topic: str) -> str | None:
    await scene.journal.plan_thread(key, user.intent)
    body = {"topic": f"probe: {topic}", "participants": [{"communicationIdentifier": identifier(user.user)}]}
    response = await scene.ask(user, "POST", "", body, headers={"repeatability-request-id": key})
    return await _keep(scene, key, response)


async def _keep(scene: Scene, key: str, response: RawResponse) -> str | None:
    thread = response.json.get("chatThread", {}).get("id")
    if isinstance(thread, str):
        await scene.journal.know_thread(key, thread)
        return thread
    return None


# Quotas: buckets of list_read_receipts (documented: five in ten seconds for each user and thread)


async def quotas(scene: Scene) -> None:
    """What a refusal for a quota looks like, and how requests are counted."""
    ann, ben, cat = await scene.users("ann", "ben", "cat")
    thread = await scene.thread(ann, "quotas", ben, cat)
    refusal = await _fill(scene, ann, thread)
    if refusal is None:
        reason = f"{_MOST_RECEIPTS} reads of receipts in a row were not refused, where five are documented"
        scene.findings.miss(QUOTA_QUIRKS, reason)
        return
    first = scene.clock()
    _refusal(scene, refusal)
    await _fill(scene, cat, thread)
    third = scene.clock()
    await _until(scene, third + 5)
    for _ in range(6):
        await _receipts(scene, cat, thread)
    await _fill(scene, ben, thread)
    second = scene.clock()
    rows = await _send_and_edit(scene, ann, thread)
    await _until(scene, first + 9)
    is_early = (await _receipts(scene, ann, thread)).status == 200
    await _until(scene, third + 10.4)
    later = await _receipts(scene, cat, thread)
    await _until(scene, second + 9)
    is_early |= (await _receipts(scene, ben, thread)).status == 200
    seen = "nine seconds after two full buckets, five seconds apart, "
    seen += "one was open again" if is_early else "both were still refused"
    scene.findings.note("quota_window", "fixed" if is_early else "sliding", seen)
    if is_early:
        scene.findings.miss(["refused_requests"], "under a fixed window, refused requests make no difference")
    else:
        value = "free" if later.status == 200 else "counted"
        scene.findings.note(
            "refused_requests", value, f"10.4 s after a full bucket, refused in between: {later.status}"
        )
    await _rows(scene, ann, thread, rows)


async def _until(scene: Scene, moment: float) -> None:
    await scene.pause(moment - scene.clock())


async def _receipts(scene: Scene, user: ProbeUser, thread: ThreadId) -> RawResponse:
    return await scene.ask(user, "GET", f"{path_of(thread)}/readReceipts", is_patient=False)


async def _fill(scene: Scene, user: ProbeUser, thread: ThreadId) -> RawResponse | None:
    """Ask until the service refuses; return the refusal."""
    for _ in range(_MOST_RECEIPTS):
        response = await _receipts(scene, user, thread)
        if response.status == 429:
            return response
    return None


def _refusal(scene: Scene, refusal: RawResponse) -> None:
    headers = refusal.headers
    names = {"retry-after": "seconds", "x-ms-retry-after-ms": "milliseconds", "retry-after-ms": "milliseconds"}
    given = [(name, value) for name, value in names.items() if name in headers]
    text = ", ".join(f"{name}: {headers[name]}" for name, _ in given) or "no Retry-After"
    scene.findings.note("retry_after", given[0][1] if given else "none", f"a 429 with {text}")
    value = "envelope" if refusal.body else "empty"
    scene.findings.note("throttled_body", value, f"{shown(refusal)}, {len(refusal.body)} bytes")
    scene.findings.answer("U4", "a 429", f"{shown(refusal)}; {text}")


async def _send_and_edit(scene: Scene, ann: ProbeUser, thread: ThreadId) -> list[RawResponse]:
    """Send six messages and edit one of them six times: twelve changes, ten are documented, of each kind six."""
    path = f"{path_of(thread)}/messages"
    sent = [await _change(scene, ann, "POST", path) for _ in range(6)]
    message = sent[0].json.get("id", "0")
    return [*sent, *[await _change(scene, ann, "PATCH", f"{path}/{message}") for _ in range(6)]]


async def _change(scene: Scene, ann: ProbeUser, method: str, path: str) -> RawResponse:
    body: dict[str, Any] = {"content": "quota"}
    return await scene.ask(ann, method, path, body, is_patient=False)


async def _rows(scene: Scene, ann: ProbeUser, thread: ThreadId, rows: list[RawResponse]) -> None:
    if any(one.status == 429 for one in rows):
        scene.findings.note("quota_rows", "shared", "six sends and six edits in a row: refused")
        return
    path = f"{path_of(thread)}/messages"
    await scene.pause(10.5)
    for number in range(1, 13):
        if (await _change(scene, ann, "POST", path)).status == 429:
            text = f"six sends and six edits in a row were accepted; of sends alone, the {number}th was refused"
            scene.findings.note("quota_rows", "each", text)
            return
    scene.findings.miss(["quota_rows"], "neither twelve mixed changes nor twelve sends in a row were refused")
