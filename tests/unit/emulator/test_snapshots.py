"""Snapshots: saved and loaded as a file, through the control API, by the command, and by a test's chat."""

from __future__ import annotations

import json
import re
import socket
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from chatbot import Context, Plugin
from chatbot.cli import main
from chatbot.emulator import Emulator, SnapshotError, World, persist
from chatbot.emulator.snapshots import contents, find, load, path_of, read_state, save
from chatbot.testing import chat
from tests.unit.emulator.asgi import call


def story(emulator: Emulator) -> tuple[str, str, str]:
    """A thread with a little of everything."""
    ann, bob = emulator.create_user(), emulator.create_user()
    thread = emulator.create_thread(ann, "Lobby", [bob], names={ann: "Ann", bob: "Bob"})
    first = emulator.send(thread, ann, "Hello", metadata={"a": "b"})
    emulator.edit(thread, ann, first, "Hello!")
    emulator.delete(thread, bob, emulator.send(thread, bob, "oops"))
    emulator.read(thread, bob, first)
    emulator.remove(thread, ann, bob)
    return thread, ann, bob


def everything(emulator: Emulator, thread: str) -> Any:
    state = emulator.world.state
    return emulator.transcript(thread), emulator.participants(thread), emulator.receipts(thread), dict(state.users)


async def test_a_loaded_snapshot_is_the_state_that_was_saved_without_the_access_key(tmp_path: Path) -> None:
    emulator, other = Emulator(World(seed=1)), Emulator(World(seed=2))
    thread, ann, _ = story(emulator)
    file = tmp_path / "deep" / "lobby.snapshot"
    other_key = other.access_key

    await save(emulator.world, file)
    await load(other.world, file)

    assert everything(other, thread) == everything(emulator, thread)
    assert other.access_key == other_key
    assert other.world.resource.id == emulator.world.resource.id
    assert emulator.access_key not in await anyio.Path(file).read_text()
    assert stat.S_IMODE((await anyio.Path(file).stat()).st_mode) == 0o600
    assert contents(other.world).users["Ann"] == ann
    number = other.send(thread, ann, "and on it goes")
    assert number > max(message.id for message in emulator.transcript(thread))


async def test_a_snapshot_that_cannot_be_used_changes_nothing(tmp_path: Path) -> None:
    emulator = Emulator(World(seed=1))
    thread, _, _ = story(emulator)
    before = everything(emulator, thread)
    file = anyio.Path(tmp_path / "bad.snapshot")
    head = '{"chatbot-emulator": 1}\n'
    for text in ("nonsense\n", f'{head}["Message",{{"thread":"19:x","id":1}}]\n', f'{head}["Nobody",{{}}]\n'):
        await file.write_text(text)
        with pytest.raises(SnapshotError, match=re.escape(str(file))):
            await load(emulator.world, Path(file))
    with pytest.raises(SnapshotError, match="there are: bad"):
        await load(emulator.world, tmp_path / "missing.snapshot")

    assert everything(emulator, thread) == before


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a b", "x" * 101, "a\n"])
def test_a_name_cannot_leave_the_directory_of_snapshots(name: str, tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="is no name of a snapshot"):
        path_of(name, tmp_path)


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    assert find("lobby", tmp_path) == tmp_path / "lobby.snapshot"
    assert find("lobby.snapshot", tmp_path) == Path("lobby.snapshot")
    assert find("tests/lobby", tmp_path) == Path("tests/lobby")
    assert find(Path("lobby"), tmp_path) == Path("lobby")


async def test_the_control_api_saves_lists_loads_and_deletes(tmp_path: Path) -> None:
    emulator = Emulator(World(seed=1), snapshots=tmp_path)
    thread, ann, bob = story(emulator)
    token = emulator.issue_token(ann).text

    async def control(method: str, path: str, status: int = 200) -> Any:
        headers = {"authorization": f"Bearer {emulator.access_key}"}
        answer = await call(emulator, method, f"/emulator/{path}", headers=headers)
        assert answer.status == status, answer.json
        return answer.json

    saved = await control("PUT", "snapshots/lobby")
    emulator.send(thread, ann, "later")
    loaded = await control("POST", "snapshots/lobby")

    assert saved == loaded == {"users": {"Ann": ann, "Bob": bob}, "threads": {"Lobby": thread}}
    assert "later" not in [text for _, text in emulator.texts(thread)]
    assert emulator.world.identities.check(token, emulator.now()).user == ann
    assert [one["name"] for one in (await control("GET", "snapshots"))["snapshots"]] == ["lobby"]
    assert "there are: lobby" in (await control("POST", "snapshots/lobbi", 400))["error"]["message"]
    assert "is no name" in (await control("PUT", "snapshots/..%2Fx", 400))["error"]["message"]
    await control("PATCH", "snapshots/lobby", 405)
    await control("PUT", "snapshots/lobby/more", 404)
    await control("GET", "snapshots/lobby/more", 404)
    await control("DELETE", "snapshots/lobby")
    assert (await control("GET", "snapshots")) == {"snapshots": []}
    refused = await call(emulator, "PUT", "/emulator/snapshots/lobby", headers={"authorization": "Bearer guess"})
    assert refused.status == 401


def test_the_data_file_has_a_loaded_snapshot_after_a_restart(tmp_path: Path) -> None:
    emulator = Emulator(World(seed=1))
    thread, ann, _ = story(emulator)
    anyio.run(save, emulator.world, tmp_path / "lobby.snapshot")
    saved = read_state(tmp_path / "lobby.snapshot")

    with persist(World(), tmp_path / "data") as world:
        another = Emulator(world)
        forgotten = another.create_user()
        world.replace_state(saved)
        another.send(thread, ann, "after the load")
        key = another.access_key
    with persist(World(), tmp_path / "data") as world:
        again = Emulator(world)
        assert [text for _, text in again.texts(thread)] == ["Hello!", "after the load"]
        assert again.access_key == key
        assert forgotten not in world.state.users


# ── chats ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def echo() -> Plugin:
    plugin = Plugin("echo")

    @plugin.message()
    async def repeat(ctx: Context) -> str:
        return ctx.text.upper()

    return plugin


@pytest.mark.virtual_time
async def test_a_chat_goes_on_where_a_snapshot_ended(tmp_path: Path) -> None:
    file = tmp_path / "shop.snapshot"
    async with chat(echo()) as room:
        await room.user("Ann").says("hi")
        other = room.another("kitchen")
        await other.user("Ben").says("salt")
        await room.user("Ann").says("bye")
        await room.save_snapshot(file)
        people, threads = [room.bot.user, room.user("Ann").user], [room.thread, other.thread]

    async with chat(echo(), snapshot=file) as room:
        assert room.said == [("Ann", "hi"), ("bot", "HI"), ("Ann", "bye"), ("bot", "BYE")]
        await room.user("Ann").says("back")
        await room.user("Zoe").says("new here")
        kitchen = room.another("kitchen")
        await kitchen.user("Ben").says("pepper")
        assert room.replies == ["HI", "BYE", "BACK", "NEW HERE"]
        assert kitchen.replies == ["SALT", "PEPPER"]
        assert [room.thread, kitchen.thread] == threads
        assert [room.bot.user, room.user("Ann").user] == people
        await room.restart()
        await room.user("Ann").says("still there?")
        assert room.replies[-1] == "STILL THERE?"


@pytest.mark.virtual_time
async def test_a_chat_from_a_snapshot_of_a_later_time_begins_after_it(tmp_path: Path) -> None:
    file = tmp_path / "later.snapshot"
    emulator = Emulator(World(seed=3), clock=lambda: 1_900_000_000.0)
    ann = emulator.create_user()
    emulator.send(emulator.create_thread(ann, "Lobby", names={ann: "Ann"}), ann, "in 2030")
    await save(emulator.world, file)

    async with chat(echo(), snapshot=file) as room:
        ann_again = room.user("Ann")
        assert room.emulator.now() // 1000 == 1_900_000_060
        await ann_again.adds(room.bot)
        await ann_again.says("hello")
        assert room.replies == ["HELLO"]


# ── the command ───────────────────────────────────────────────────────────────────────────────────────────────────────


def begin(*options: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "chatbot", "emulator", "--json", *options], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())


def test_the_command_saves_loads_and_lists_and_an_emulator_begins_with_a_snapshot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = ["--snapshots", str(tmp_path)]
    process, facts = begin(*directory)
    with process:
        monkeypatch.setenv("CHATBOT_EMULATOR", facts["connection_string"])
        key = facts["connection_string"].partition("accesskey=")[2]
        body = json.dumps({"users": ["ann"], "threads": [{"topic": "Lobby", "creator": "ann"}]}).encode()
        request = urllib.request.Request(f"{facts['endpoint']}/emulator/seed", body, {"Authorization": f"Bearer {key}"})
        with urllib.request.urlopen(request) as answer:
            thread = json.load(answer)["threads"]["Lobby"]

        assert main(["emulator", "snapshot", "list"]) == 0
        assert main(["emulator", "snapshot", "save", "lobby"]) == 0
        assert main(["emulator", "snapshot", "load", "lobby"]) == 0
        assert main(["emulator", "snapshot", "list"]) == 0
        assert main(["emulator", "snapshot", "load", "lobbi"]) == 69
        for name in ("a b", "a/b", "a?b", "a#b", "caf\u00e9", "../a", ""):
            assert main(["emulator", "snapshot", "save", name]) == 69, name
        assert [path.name for path in tmp_path.iterdir()] == ["lobby.snapshot"]
        process.terminate()

    shown = capsys.readouterr()
    assert shown.out.startswith("There are no snapshots.\nSaved lobby: 1 person by name; Lobby.\nLoaded lobby: 1")
    assert re.search(r"^lobby  \d{4}-\d\d-\d\d ", shown.out, re.MULTILINE)
    assert "there are: lobby" in shown.err
    assert "'a/b' is no name of a snapshot" in shown.err
    assert "'caf\u00e9' is no name of a snapshot" in shown.err

    process, facts = begin(*directory, "--snapshot", "lobby")
    with process:
        key = facts["connection_string"].partition("accesskey=")[2]
        request = urllib.request.Request(
            f"{facts['endpoint']}/emulator/threads", headers={"Authorization": f"Bearer {key}"}
        )
        with urllib.request.urlopen(request) as answer:
            assert json.load(answer)["threads"] == [thread]
        process.terminate()


def test_an_emulator_that_is_not_there_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    gone = f"endpoint=http://127.0.0.1:{port}/;accesskey=a2V5"

    assert main(["emulator", "snapshot", "save", "x", "--connection-string", gone]) == 69
    assert "does not answer" in capsys.readouterr().err
    (tmp_path / "bots.yaml").write_text("version: 1\nservice: emulator\nbots: {b: {plugins: [b]}}\n")
    assert main(["emulator", "snapshot", "save", "x", "--config", str(tmp_path / "bots.yaml")]) == 69
    assert "give --connection-string" in capsys.readouterr().err


def test_a_missing_snapshot_is_a_wrong_configuration(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "chatbot", "emulator", "--snapshot", "nothing", "--snapshots", str(tmp_path)]

    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 78
    assert "The snapshot cannot be used: there is no snapshot" in done.stderr
