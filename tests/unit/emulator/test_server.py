import asyncio
import base64
import contextlib
import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from chatbot.cli import main
from chatbot.emulator import DataFileError, Emulator, Faults, PortTakenError, World, persist, serve
from tests.unit.emulator.asgi import Scene, call


async def close(writer: asyncio.StreamWriter) -> None:
    """Close a connection, and wait for it: else the loop may end before the socket is closed."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def get(url: str, context: ssl.SSLContext | None = None) -> tuple[int, bytes]:
    """A GET over a fresh connection."""
    scheme, _, rest = url.partition("://")
    authority, _, path = rest.partition("/")
    host, _, port = authority.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
    writer.write(f"GET /{path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert scheme == ("https" if context else "http")
    return int(answer.split()[1]), answer


async def test_https_and_http_are_served_at_once_with_a_kept_authority(tmp_path: Path) -> None:
    for _ in range(2):
        async with serve(Emulator(), certificates=tmp_path) as running:
            assert running.ca_file == tmp_path / "ca.pem"
            context = ssl.create_default_context(cafile=running.ca_file)
            path = "/chat/threads?api-version=2024-03-07"

            assert (await get(running.endpoint + path, context))[0] == 401
            assert (await get(running.http_endpoint + path))[0] == 401
            assert running.connection_string.startswith("endpoint=https://127.0.0.1:")

    assert stat.S_IMODE((tmp_path / "ca.key").stat().st_mode) == 0o600
    assert ssl.create_default_context(cafile=tmp_path / "ca.pem")


async def test_a_taken_port_is_an_error_and_no_exit(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()

        with pytest.raises(PortTakenError, match=r"port \d+ of 127.0.0.1 is already in use"):
            async with serve(Emulator(), port=taken.getsockname()[1], certificates=tmp_path):
                pass


async def test_serving_ends_at_once_although_connections_are_open(tmp_path: Path) -> None:
    async with serve(Emulator(), tls=False, certificates=tmp_path) as running:
        host, _, port = running.endpoint.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /chat/threads HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")

    with pytest.raises(OSError, match=r"."):
        await asyncio.open_connection(host, int(port))
    await close(writer)


def test_state_survives_a_restart(tmp_path: Path) -> None:
    scene = Scene()
    path = tmp_path / "deep" / "state"
    with persist(World(), path) as world:
        emulator = Emulator(world, clock=scene.clock)
        ann, bob = emulator.create_user(), emulator.create_user()
        thread = emulator.create_thread(ann, "lobby", [bob], names={ann: "Ann"})
        number = emulator.send(thread, ann, "häßlich \U0001f600\u2028", metadata={"a": "1"})
        emulator.edit(thread, ann, number, "schön")
        emulator.delete(thread, ann, emulator.send(thread, ann, "oops"))
        emulator.read(thread, bob, number)
        emulator.remove(thread, ann, bob)
        token = emulator.issue_token(ann).text
        before = emulator.transcript(thread), emulator.receipts(thread), world.resource, world.state.activity

    with persist(World(), path) as world:
        again = Emulator(world, clock=scene.clock)
        assert (again.transcript(thread), again.receipts(thread), world.resource, world.state.activity) == before
        assert world.identities.check(token, again.now()).user == ann
        scene.clock.advance(-86400)
        assert again.send(thread, ann, "after a clock step") > before[0][-1].id


def test_a_line_cut_in_half_is_dropped_and_a_damaged_one_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "state"
    with persist(World(), path) as world:
        world.identities.create(1)
    path.write_bytes(path.read_bytes() + b'["User",{"id":"8:acs')

    with persist(World(), path) as world:
        assert len(world.state.users) == 1
    path.write_bytes(path.read_bytes() + b'["Nonsense",{}]\n')
    with pytest.raises(DataFileError, match=r"state:4: not a record"), persist(World(), path):
        pass


def test_two_emulators_do_not_share_a_data_file(tmp_path: Path) -> None:
    path = tmp_path / "state"

    with (
        persist(World(), path),
        pytest.raises(DataFileError, match="in use by another emulator"),
        persist(World(), path),
    ):
        pass


def start(*arguments: str) -> subprocess.Popen[str]:
    code = (
        "import sys, cyclopts\n"
        "from chatbot.cli.emulator import emulator\n"
        "app = cyclopts.App(result_action='return_value')\n"
        "app.default(emulator)\n"
        "sys.exit(app(sys.argv[1:]))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_the_command_prints_its_address_and_exits_with_zero(how: signal.Signals, tmp_path: Path) -> None:
    with start("--json", "--data", str(tmp_path / "state")) as process:
        assert process.stdout is not None
        facts = json.loads(process.stdout.readline())
        with socket.create_connection(("127.0.0.1", int(facts["endpoint"].rpartition(":")[2]))):
            process.send_signal(how)
            _, errors = process.communicate(timeout=60)

    assert (process.returncode, errors) == (0, "")
    assert facts["connection_string"].startswith(f"endpoint={facts['endpoint']}/;accesskey=")
    assert facts["ca_file"] is None


def test_a_taken_port_ends_the_command_with_one_sentence_and_69() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with start("--port", str(port)) as process:
            out, errors = process.communicate(timeout=60)

    assert process.returncode == 69
    assert out == ""
    assert errors == (
        f"The emulator cannot start: port {port} of 127.0.0.1 is already in use. "
        "Choose another with --port, or --port 0 for any free one.\n"
    )


async def test_a_public_host_goes_into_certificate_links_and_connection_string(tmp_path: Path) -> None:
    emulator = Emulator()
    user = emulator.create_user()
    token = emulator.issue_token(user).text
    for _ in range(2):
        emulator.create_thread(user)
    path, headers = "/chat/threads?maxPageSize=1", {"host": "10.0.0.1:443"}

    async with serve(emulator, host="0.0.0.0", public_host="chat.example", certificates=tmp_path) as running:
        answer = await call(emulator, "GET", path, token=token, headers=headers)
        port = running.endpoint.rpartition(":")[2]
        context = ssl.create_default_context(cafile=running.ca_file)
        _, writer = await asyncio.open_connection("127.0.0.1", int(port), ssl=context, server_hostname="chat.example")
        writer.close()
        await writer.wait_closed()

    assert running.endpoint == f"https://chat.example:{port}"
    assert running.connection_string.startswith(f"endpoint=https://chat.example:{port}/;accesskey=")
    assert answer.json["nextLink"].startswith(f"https://chat.example:{port}/chat/threads?")


async def test_a_public_host_may_name_the_port_that_a_container_maps() -> None:
    async with serve(Emulator(), tls=False, public_host="chat.example:8443") as running:
        assert running.endpoint == "http://chat.example:8443"


def test_a_command_line_that_makes_no_sense_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seed = tmp_path / "seed.yaml"
    seed.write_text("people: []")
    for arguments, code, sentence in (
        (
            ["--fault", "sned_message:503"],
            2,
            "there is no operation 'sned_message' for a fault (did you mean send_message?).\n",
        ),
        (["--quirk", "start-time=never"], 2, "quirk start-time cannot be 'never'; it can be: inclusive | exclusive.\n"),
        (["--fault", "*:explode"], 2, "there is no kind 'explode'"),
        (["--access-key", "?"], 2, "the access key is not base64.\n"),
    ):
        returned = main(["emulator", *arguments])
        out, errors = capsys.readouterr()
        assert (returned, out) == (code, "")
        assert sentence in errors
        assert errors.count("\n") == 1
    for arguments, code, sentence in (
        (["--seed", str(seed)], 78, "The seed cannot be used: unknown key 'people'; a seed has users and threads.\n"),
        (["--data", str(tmp_path)], 69, "The emulator cannot start: "),
    ):
        with start(*arguments) as process:
            out, errors = process.communicate(timeout=60)
        assert (process.returncode, out) == (code, "")
        assert sentence in errors
        assert errors.count("\n") == 1


async def test_a_client_that_is_gone_before_a_fault_cuts_its_connection_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    faults = Faults(["list_threads:latency=0.05", "list_threads:reset"])
    emulator = Emulator(faults=faults)
    token = emulator.issue_token(emulator.create_user()).text
    async with serve(emulator, tls=False) as running:
        host, _, port = running.endpoint.removeprefix("http://").partition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        path = "/chat/threads?api-version=2024-03-07"
        head = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {token}\r\n\r\n"
        writer.write(head.encode())
        await writer.drain()
        await close(writer)
        while not emulator.calls:  # noqa: ASYNC110 -- a deque has no event
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)

    assert emulator.calls[-1].status == 0
    assert caplog.text == ""


async def test_serving_ends_although_an_answer_is_still_hanging() -> None:
    asked = asyncio.Event()

    def clock() -> float:
        asked.set()
        return 1_750_000_000.0

    emulator = Emulator(clock=clock)
    user = emulator.create_user()
    token = emulator.issue_token(user).text
    emulator.faults.add("list_threads:hang")
    async with serve(emulator, tls=False) as running:
        host, _, port = running.endpoint.removeprefix("http://").partition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        path = "/chat/threads?api-version=2024-03-07"
        asked.clear()
        writer.write(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {token}\r\n\r\n".encode())
        await asked.wait()

    assert not emulator.calls
    await close(writer)


@pytest.mark.parametrize(
    "noise",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /identities HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /identities HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /chat/threads?\x00 HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_a_400_or_the_end_of_the_connection(noise: bytes) -> None:
    async with serve(Emulator(), tls=False) as running:
        host, _, port = running.endpoint.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(noise)
        writer.write_eof()
        answer = await reader.read()
        await close(writer)

        assert answer == b"" or answer.split()[1].startswith(b"4")
        assert (await get(f"{running.endpoint}/chat/threads"))[0] == 400


KEY = "c2VjcmV0LW9mLXRoZS1lbXVsYXRvcg=="


async def test_the_emulator_takes_no_token_that_it_has_not_issued_and_none_unless_asked_to() -> None:
    emulator = Emulator(World(access_key=KEY), entra=True)
    claims = base64.urlsafe_b64encode(b'{"exp": 9999999999}').decode()
    access_token = emulator.issue_token(emulator.create_user()).text
    forged = [f"e30.{claims}.", f"e30.{claims}.c2ln", access_token, KEY, "", "é", "."]
    switched_off = Emulator(World(access_key=KEY))

    for token in forged:
        assert await made(emulator, token) == 401, token
    assert await made(emulator, emulator.entra_token()) == 201
    assert await made(emulator, emulator.entra_token(lifetime=0)) == 401
    assert await made(switched_off, emulator.entra_token()) == 401
    assert await made(Emulator(entra=True), emulator.entra_token()) == 401  # another emulator's


async def made(emulator: Emulator, token: str) -> int:
    """The status of making a user with this token."""
    return (await call(emulator, "POST", "/identities", {}, token=token, version="2023-10-01")).status


@pytest.mark.parametrize(
    ("host", "asked", "status"),
    [
        ("127.0.0.1", "127.0.0.1:{port}", 404),
        ("127.0.0.1", "localhost:{port}", 404),
        ("127.0.0.1", "[::1]", 404),
        ("127.0.0.1", "chat.example", 404),
        ("127.0.0.1", "evil.example:{port}", 421),
        ("127.0.0.1", "127.0.0.1.evil.example", 421),
        ("127.0.0.1", "10.0.0.1", 421),
        ("127.0.0.1", "", 421),
        ("127.0.0.1", "[", 421),
        ("0.0.0.0", "evil.example", 404),
    ],
)
async def test_on_loopback_only_requests_for_loopback_or_the_public_host_are_answered(
    host: str, asked: str, status: int
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with serve(Emulator(), host=host, port=port, tls=False, public_host="chat.example:8443"):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        name = asked.format(port=port)
        writer.write(f"GET /nothing HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        await close(writer)

    assert int(answer.split()[1]) == status


@pytest.mark.parametrize("way", ["file", "environment"])
def test_the_access_key_comes_from_a_file_or_the_environment_and_is_in_no_error(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text("c2VjcmV0\n")
    (tmp_path / "wrong").write_text("not-base64-hunter2")
    options = ["--access-key-file", str(tmp_path / "key")] if way == "file" else []
    if way == "environment":
        monkeypatch.setenv("CHATBOT_EMULATOR_KEY", "c2VjcmV0")
    with start("--json", "--entra", *options) as process:
        assert process.stdout is not None
        facts = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
    wrong = ["--access-key-file", str(tmp_path / "wrong")] if way == "file" else ["--access-key", "not-base64-hunter2"]
    with start(*wrong) as process:
        _, errors = process.communicate(timeout=120)

    assert facts["connection_string"].endswith(";accesskey=c2VjcmV0")
    assert facts["entra_token"].count(".") == 2
    assert errors == "the access key is not base64.\n"
    assert process.returncode == 2
