"""Whatever arrives, the emulator answers with a 4xx in the service's envelope: never a 500, never another's data."""

from __future__ import annotations

import json
import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatbot.emulator import Emulator
from tests.unit.emulator.asgi import Answer, Scene, call, signed

SECRET = "the secret of Ann and Bob"
IDENTITY = ("identities", "teamsuser")

thoroughly = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


class Stage:
    """Ann and Bob talk; Eve has a token and no business here."""

    def __init__(self) -> None:
        self.scene = Scene()
        self.eve = self.scene.emulator.create_user()
        self.message = self.scene.emulator.send(
            self.scene.thread, self.scene.ann, SECRET, display_name=SECRET, metadata={"secret": SECRET}
        )

    @property
    def emulator(self) -> Emulator:
        return self.scene.emulator


def judge(answer: Answer, path: str) -> None:
    """No 5xx; refusals in the envelope of whichever service was asked, or an empty 401 of chat."""
    assert answer.status < 500, answer.body
    if answer.status < 400:
        return
    is_identity = path.strip("/").split("/")[0].split("?")[0].lower() in IDENTITY
    if is_identity:
        assert set(answer.json["error"]) >= {"code", "message"}
    elif answer.status == 401:
        assert answer.body == b""
    else:
        error = answer.json["CommunicationError"]
        assert list(error) in (["Code", "Details"], ["Code", "Message", "Details"])
        assert answer.headers["content-type"] == "application/json"


texts = st.text(max_size=40)
junk = st.one_of(
    texts,
    st.sampled_from(
        ["", ".", "..", "%2e%2e", "%00", "%", "%zz", "%2F", "\\", "*", "null", "-1", "0", "9" * 30, "é", "ſ"]
    ),
    st.integers(-(10**30), 10**30).map(str),
)
numbers = st.one_of(st.integers(-(10**20), 10**20), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
values = st.recursive(
    st.one_of(st.none(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=12,
)
KEYS = (
    "content", "type", "senderDisplayName", "metadata", "topic", "participants", "communicationIdentifier", "rawId",
    "communicationUser", "id", "displayName", "shareHistoryTime", "chatMessageId", "retentionPolicy", "kind",
    "deleteThreadAfterDays", "scopes", "expiresInMinutes", "createTokenWithScopes", "token", "appId", "userId",
    "microsoftTeamsUser", "phoneNumber", "value",
)  # fmt: skip
plausible = st.sampled_from(
    [
        "text", "html", "hello", ["chat"], 60, {"a": "b"}, "2025-01-01T00:00:00Z", "9999-12-31T23:59:59.9999999+14:00",
        "8:acs:8a5e3ae1-0c9b-4c4a-9b0e-6e5f6d1c2b3a_0000001c-0000-0000-0000-000000000000", "threadCreationDate", "none",
        "8:orgid:8a5e3ae1-0c9b-4c4a-9b0e-6e5f6d1c2b3a", "8a5e3ae1-0c9b-4c4a-9b0e-6e5f6d1c2b3a", 30, "1750000000000",
    ]
)  # fmt: skip
objects = st.recursive(
    st.dictionaries(st.sampled_from(KEYS), st.one_of(values, plausible), max_size=6),
    lambda inner: st.dictionaries(
        st.sampled_from(KEYS), st.one_of(inner, st.lists(inner, max_size=3), values), max_size=5
    ),
    max_leaves=10,
)
RAW = (
    b"", b"{", b"[", b"null", b"1", b'"x"', b"NaN", b'{"content":NaN}', b'{"content":Infinity}', b"\xff\xfe", b"\x00",
    b'{"content":"\\ud800"}', b'{"topic":"\\udfff","content":"\\ud83d"}', b'{"content":' + b"9" * 5000 + b"}",
    b"[" * 100_000, b'{"a":' * 20_000, b'{"content":"' + b"x" * 29_000 + b'"}', b'{"content":"a","content":1}',
    b'\xef\xbb\xbf{"content":"bom"}', "{\"content\":\"ä\"}".encode("utf-16"), b" " * 2_000_000,
)  # fmt: skip
bodies = st.one_of(
    objects.map(lambda value: json.dumps(value).encode()),
    values.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=60),
    st.sampled_from(RAW),
)
METHODS = ("GET", "POST", "PATCH", "DELETE", "PUT", "HEAD", "OPTIONS", "TRACE", "get", "X")
CALLS = (
    ("POST", "/chat/threads"), ("GET", "/chat/threads"), ("GET", "/chat/threads/{}"), ("PATCH", "/chat/threads/{}"),
    ("DELETE", "/chat/threads/{}"), ("POST", "/chat/threads/{}/messages"), ("GET", "/chat/threads/{}/messages"),
    ("GET", "/chat/threads/{}/messages/{}"), ("PATCH", "/chat/threads/{}/messages/{}"),
    ("DELETE", "/chat/threads/{}/messages/{}"), ("GET", "/chat/threads/{}/participants"),
    ("POST", "/chat/threads/{}/participants/:add"), ("POST", "/chat/threads/{}/participants/:remove"),
    ("GET", "/chat/threads/{}/readReceipts"), ("POST", "/chat/threads/{}/readReceipts"),
    ("POST", "/chat/threads/{}/typing"), ("POST", "/identities"), ("DELETE", "/identities/{}"),
    ("POST", "/identities/{}/:issueAccessToken"), ("POST", "/identities/{}/:revokeAccessTokens"),
    ("POST", "/teamsUser/:exchangeAccessToken"),
)  # fmt: skip
NOWHERE = ("/{}", "/chat/{}", "/chat/threads/{}/{}/{}/{}", "//", "/chat//threads", "/CHAT/Threads/{}/MESSAGES", "*", "")
HEADERS = ("authorization", "host", "x-ms-date", "repeatability-request-id", "x-ms-content-sha256")
QUERY = ("maxPageSize", "startTime", "skip", "syncState", "api-version", "MAXPAGESIZE")
requests = st.one_of(
    *[st.sampled_from(CALLS)] * 5,
    st.tuples(st.sampled_from(METHODS), st.sampled_from([*NOWHERE, *(path for _, path in CALLS)])),
)


def fill(path: str, data: st.DataObject, stage: Stage) -> str:
    """The path with its holes filled, mostly by what exists."""
    real = [stage.scene.thread if "/chat" in path else stage.eve, str(stage.message)]
    for place in range(path.count("{}")):
        piece = data.draw(st.one_of(*[st.just(real[min(place, 1)])] * 4, junk))
        path = path.replace("{}", _safe(piece), 1)
    return path


def _safe(piece: str) -> str:
    return "".join(char if 32 < ord(char) < 127 and char not in "?#" else f"%{ord(char) & 255:02x}" for char in piece)


@thoroughly
@given(st.data())
async def test_no_request_is_answered_with_a_500_or_out_of_envelope(data: st.DataObject) -> None:
    stage = Stage()
    method, path = data.draw(requests)
    path = fill(path, data, stage)
    pairs = data.draw(st.lists(st.tuples(st.sampled_from(QUERY), junk), max_size=3))
    query = "&".join(f"{name}={_safe(value)}" for name, value in pairs)
    version = data.draw(st.sampled_from(["2025-03-15", "2024-03-07", "2021-03-07", "2023-10-01", None]))
    body = data.draw(bodies)
    target = f"{path}?{query}" if query else path

    if path.strip("/").split("/")[0].lower() in IDENTITY:
        answer = await signed(stage.emulator, method, target, body, version=version or "nonsense")
    else:
        token = stage.scene.token(data.draw(st.sampled_from([stage.scene.ann, stage.eve])))
        answer = await call(stage.emulator, method, target, body, token=token, version=version)

    judge(answer, path)


@thoroughly
@given(st.data())
async def test_a_user_outside_of_a_thread_never_sees_or_changes_its_messages(data: st.DataObject) -> None:
    stage = Stage()
    method, path = data.draw(st.sampled_from(CALLS[2:16]))
    path = fill(path, data, stage)
    before = stage.emulator.transcript(stage.scene.thread)
    token = stage.scene.token(stage.eve)

    answer = await call(stage.emulator, method, path, data.draw(bodies), token=token)

    judge(answer, path)
    assert SECRET.encode() not in answer.body
    assert stage.emulator.transcript(stage.scene.thread) == before


@thoroughly
@given(st.dictionaries(st.sampled_from(HEADERS), texts))
async def test_no_header_is_answered_with_a_500_or_let_in(headers: dict[str, str]) -> None:
    stage = Stage()
    plain = {name: "".join(c for c in value if 31 < ord(c) < 256) for name, value in headers.items()}

    for path in (f"/chat/threads/{stage.scene.thread}", "/identities"):
        answer = await call(stage.emulator, "POST", path, {}, headers=plain, version="2023-10-01")
        judge(answer, path)
        assert answer.status in {400, 401, 405}


@thoroughly
@given(st.sampled_from(["sync", "thread"]), st.one_of(junk, st.binary(max_size=80).map(bytes.hex)))
async def test_a_made_up_cursor_is_refused_or_harmless(kind: str, cursor: str) -> None:
    stage = Stage()
    path = "/chat/threads" if kind == "thread" else f"/chat/threads/{stage.scene.thread}/messages"

    answer = await call(stage.emulator, "GET", f"{path}?syncState={_safe(cursor)}", token=stage.scene.token(stage.eve))

    judge(answer, path)
    assert SECRET.encode() not in answer.body


async def test_random_bytes_over_many_operations_leave_the_world_whole() -> None:
    stage, dice = Stage(), random.Random(1)
    for _ in range(300):
        method, path = dice.choice(CALLS)
        path = path.replace("{}", stage.scene.thread)
        judge(await call(stage.emulator, method, path, dice.randbytes(20), token=stage.scene.token(stage.eve)), path)

    assert (await stage.scene("GET", "/messages")).json["value"][0]["content"]["message"] == SECRET
