from pathlib import Path

import pytest

from chatbot.emulator import Emulator, SeedError
from chatbot.emulator.seed import apply_seed, load
from tests.unit.emulator.asgi import Answer, Scene, call


async def control(scene: Scene, method: str, path: str, body: object = None) -> Answer:
    return await call(scene.emulator, method, f"/emulator/{path}", body, token=scene.emulator.access_key, version=None)


async def test_only_who_has_the_access_key_controls() -> None:
    scene = Scene()

    for token in ("", "wrong", scene.token(scene.ann)):
        answer = await call(scene.emulator, "GET", "/emulator/status", token=token, version=None)
        assert answer.status == 401
        assert scene.ann.encode() not in answer.body


async def test_every_call_can_be_observed_and_forgotten() -> None:
    scene = Scene()
    await scene("GET")
    await scene("POST", "/messages", {"content": "x"})

    calls = (await control(scene, "GET", "calls?operation=send_message")).json["calls"]
    assert [(one["operation"], one["status"], one["user"]) for one in calls] == [("send_message", 201, scene.ann)]
    assert len((await control(scene, "GET", "calls")).json["calls"]) == 2
    await control(scene, "DELETE", "calls")
    assert (await control(scene, "GET", "calls")).json == {"calls": []}


async def test_typing_and_transcripts_can_be_observed() -> None:
    scene = Scene()
    number = scene.emulator.send(scene.thread, scene.ann, "hello", metadata={"a": "b"})
    scene.emulator.read(scene.thread, scene.bob, number)
    await scene("POST", "/typing", {})

    typing = (await control(scene, "GET", f"typing?thread={scene.thread}")).json["typing"]
    room = (await control(scene, "GET", f"threads/{scene.thread}")).json

    assert [one["user"] for one in typing] == [scene.ann]
    assert room["messages"][-1]["text"] == "hello"
    assert room["messages"][-1]["metadata"] == {"a": "b"}
    assert room["messages"][0]["participants"][0]["user"] == scene.ann
    assert [one["user"] for one in room["participants"]] == [scene.ann, scene.bob]
    assert room["receipts"][0]["message"] == number
    assert (await control(scene, "GET", "threads")).json == {"threads": [scene.thread]}


async def test_faults_quirks_and_quotas_can_be_changed_while_it_runs() -> None:
    scene = Scene()

    added = await control(scene, "POST", "faults", {"faults": ["get_thread:503,times=2"]})
    assert added.json["faults"][0]["status"] == 503
    assert (await scene("GET")).status == 503
    assert (await control(scene, "PUT", "faults", {"faults": ["nonsense"]})).status == 400
    assert len((await control(scene, "GET", "faults")).json["faults"]) == 1
    assert [(await scene("GET")).status for _ in range(3)] == [503, 503, 200]  # put in force again by the refusal
    assert (await control(scene, "GET", "faults")).json == {"faults": []}, "it has struck as often as it may"
    assert (await control(scene, "DELETE", "faults")).json == {"faults": []}

    changed = await control(scene, "PATCH", "quirks", {"error-envelope": "error", "identifier_kind": True})
    assert changed.json["error-envelope"] == "error"
    unknown = await scene("GET", f"/chat/threads/19:{'x' * 43}1@thread.v2")
    assert unknown.json["error"]["code"] == "NotFound"
    assert (await scene("GET")).json["createdByCommunicationIdentifier"]["kind"] == "communicationUser"
    assert (await control(scene, "PATCH", "quirks", {"nonsense": 1})).status == 400

    assert (await control(scene, "PUT", "quotas", {"enabled": True})).json == {"enabled": True}
    assert (await control(scene, "GET", "status")).json["quotas"] is True


@pytest.mark.parametrize("body", [b"[]", b"{", b'"x"', b"\xff", b'{"users": ["\\ud800"]}', b'{"a": NaN}'])
async def test_nonsense_is_a_400(body: bytes) -> None:
    scene = Scene()

    for method, path in (("PATCH", "quirks"), ("PUT", "quotas"), ("POST", "faults"), ("POST", "seed")):
        assert (await control(scene, method, path, body)).status == 400
    assert (await control(scene, "GET", "nowhere")).status == 404
    assert (await control(scene, "GET", "calls?since=x")).status == 400


SEED = """
users: [ann, bob]
threads:
  - topic: Lobby
    creator: ann
    participants: [bob]
    messages:
      - {from: ann, text: Hello}
      - {from: bob, text: "<b>Hi</b>", type: html, metadata: {mood: good}}
"""


def test_a_seed_creates_users_threads_and_messages(tmp_path: Path) -> None:
    path = tmp_path / "seed.yaml"
    path.write_text(SEED)
    emulator = Emulator()

    made = apply_seed(emulator, load(path))

    thread = made["threads"]["Lobby"]
    assert emulator.texts(thread) == [(made["users"]["ann"], "Hello"), (made["users"]["bob"], "<b>Hi</b>")]
    assert emulator.transcript(thread)[-1].metadata == {"mood": "good"}
    assert [one.display_name for one in emulator.participants(thread)] == ["ann", "bob"]


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ({"people": []}, "unknown key 'people'"),
        ({"users": "ann"}, "users: expected a list"),
        ({"users": [1]}, "users: expected names"),
        ({"threads": [{"topic": "x", "creator": "ann"}]}, r"threads\[0\]: 'ann' is not among the users"),
        ({"users": ["ann"], "threads": [{"creator": "ann"}]}, r"threads\[0\]: topic must be a text"),
        (
            {"users": ["a"], "threads": [{"topic": "x", "creator": "a", "messages": [{"from": "a"}]}]},
            r"threads\[0\]\.messages\[0\]: text must be a text",
        ),
    ],
)
def test_a_wrong_seed_is_explained_with_its_place(document: dict[str, object], complaint: str) -> None:
    with pytest.raises(SeedError, match=complaint):
        apply_seed(Emulator(), document)


def test_a_seed_file_that_is_no_yaml_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "seed.yaml"
    for text in ("[", "- a"):
        path.write_text(text)
        with pytest.raises(SeedError, match=r"seed\.yaml"):
            load(path)


async def test_the_clock_can_be_put_forward_so_that_tokens_expire() -> None:
    scene = Scene()
    token = scene.token(scene.ann)

    moved = await control(scene, "PUT", "clock", {"offset": 86400})

    assert moved.json == {"now": 1_750_086_410_000}
    assert (await call(scene.emulator, "GET", scene.path, token=token)).status == 401
    assert (await control(scene, "PUT", "clock", {"offset": 0})).status == 200
    assert (await call(scene.emulator, "GET", scene.path, token=token)).status == 200
    for nonsense in ({}, {"offset": "1"}, {"offset": True}, {"offset": 1e300}):
        assert (await control(scene, "PUT", "clock", nonsense)).status == 400


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/messages/x"), ("GET", "/chat/threads/x"), ("GET", "/messages?maxPageSize=0"), ("POST", "/messages")],
)
async def test_errors_of_operations_come_in_chunks_and_all_other_answers_with_a_length(method: str, path: str) -> None:
    scene = Scene()

    refused, fine = await scene(method, path, {}), await scene("GET")

    assert refused.status == 400
    assert refused.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in refused.headers
    assert fine.headers["content-length"] == str(len(fine.body))
    assert "transfer-encoding" not in fine.headers
