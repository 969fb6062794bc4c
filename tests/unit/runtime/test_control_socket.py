"""The channel between a daemon and commands, over real sockets."""

from __future__ import annotations

import fcntl
import json
import socket
import stat
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from anyio.abc import SocketStream

from chatbot.errors import CannotStore, StateError, StoreError, UnknownName
from chatbot.runtime import control_socket
from chatbot.runtime.control_client import MAX_ANSWER, Address, ask, ask_at_once, find_daemon
from chatbot.runtime.control_socket import MAX_CONNECTIONS, MAX_QUESTION, listening
from chatbot.runtime.run_directory import ControlDirectory

LONG = "d" * 120
"""A directory in which no socket can be: its path would be too long."""


async def echo(question: Mapping[str, Any]) -> Mapping[str, Any]:
    match question.get("ask"):
        case "fail":
            message = "out of luck"
            raise RuntimeError(message)
        case "unknown":
            message = "who?"
            raise UnknownName(message)
        case "full":
            message = "the disk is full"
            raise StoreError(message)
        case "unstorable":
            message = "no form"
            raise CannotStore(message)
        case "much":
            return {"much": "x" * MAX_ANSWER}
    return {"heard": dict(question)}


@pytest.fixture(params=["socket", "loopback"])
def control(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ControlDirectory]:
    """A directory held by a daemon, where there can be a socket and where there can't."""
    with held(tmp_path / "d" if request.param == "socket" else tmp_path / LONG) as control:
        yield control


@pytest.fixture
def long_control(tmp_path: Path) -> Iterator[ControlDirectory]:
    with held(tmp_path / LONG) as control:
        yield control


@contextmanager
def held(directory: Path) -> Iterator[ControlDirectory]:
    directory.mkdir(exist_ok=True)
    control = ControlDirectory(directory)
    with control.hold():
        yield control


@asynccontextmanager
async def daemon(control: ControlDirectory) -> AsyncIterator[Address]:
    """Somebody who listens there."""
    async with listening(control, echo, config=config_of(control)):
        yield await anyio.to_thread.run_sync(found, control)


def config_of(control: ControlDirectory) -> Path:
    return control.path.parent / "bots.yaml"


def found(control: ControlDirectory) -> Address:
    address = find_daemon(control, config_of(control))
    assert address is not None
    return address


async def connect(address: Address) -> SocketStream:
    if address.path:
        return await anyio.connect_unix(address.path)
    return await anyio.connect_tcp("127.0.0.1", address.port)


async def exchange(address: Address, sent: bytes) -> list[dict[str, Any]]:
    """Send bytes and their end; all replies."""
    sent = sent.replace(b"TOKEN", address.token.encode())
    received = b""
    async with await connect(address) as stream:
        with anyio.fail_after(120):
            await stream.send(sent)
            await stream.send_eof()
            try:
                while True:
                    received += await stream.receive()
            except anyio.EndOfStream:
                pass
    return [json.loads(line) for line in received.splitlines()]


async def test_a_question_is_answered(control: ControlDirectory) -> None:
    async with daemon(control) as address:
        assert await ask(address, {"ask": "x", "text": "ä\n\ud800"}) == {"heard": {"ask": "x", "text": "ä\n\ud800"}}


def no_wait(_number: int) -> None:
    """Do nothing while there is no answer."""


async def test_a_question_is_answered_without_an_event_loop_as_well(control: ControlDirectory) -> None:
    def asked(question: Mapping[str, Any]) -> Mapping[str, Any]:
        return ask_at_once(address, question, 120.0, no_wait, 60.0)

    async with daemon(control) as address:
        assert await anyio.to_thread.run_sync(asked, {"text": "ä\n"}) == {"heard": {"text": "ä\n"}}
        long = "x" * (MAX_QUESTION // 2)
        assert await anyio.to_thread.run_sync(asked, {"text": long}) == {"heard": {"text": long}}
        with pytest.raises(UnknownName, match=r"who\?"):
            await anyio.to_thread.run_sync(asked, {"ask": "unknown"})


def test_who_gets_no_answer_without_an_event_loop_is_told_while_it_waits_and_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "s"
    waited: list[int] = []
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen(1)
        with pytest.raises(StateError, match="the process does not answer"):
            ask_at_once(Address(path=str(path)), {}, 0.05, waited.append, 0.01)

    assert waited[:2] == [0, 1]
    with pytest.raises(StateError, match="the process does not answer"):
        ask_at_once(Address(path=str(path)), {}, 1.0, waited.append, 1.0)


def test_commands_that_ask_at_the_same_time_are_not_taken_for_a_daemon(tmp_path: Path) -> None:
    with held(tmp_path) as control:
        assert control.is_held
    with (control.path / "run.lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_SH)

        assert not control.is_held


async def test_where_it_listens_is_the_owners_alone_and_gone_at_the_end(control: ControlDirectory) -> None:
    def files() -> dict[str, int]:
        return {path.name: stat.S_IMODE(path.stat().st_mode) for path in control.path.glob("control*")}

    async with daemon(control):
        there = await anyio.to_thread.run_sync(files)

    assert "control.json" in there
    assert set(there.values()) == {0o600}
    assert not await anyio.to_thread.run_sync(files)


async def test_a_path_too_long_for_a_socket_is_no_obstacle(long_control: ControlDirectory) -> None:
    async with daemon(long_control) as address:
        assert not address.path
        assert address.port
        assert len(address.token) == 64


async def test_on_loopback_nobody_is_answered_who_does_not_know_the_token(long_control: ControlDirectory) -> None:
    async with daemon(long_control) as address:
        for token in (b'"', b'"' + b"0" * 64, b'"\\ud800'):
            (reply,) = await exchange(address, b'{"ask": "x", "token": ' + token + b'"}\n')
            assert reply["error"].startswith("the token is wrong")
        (reply,) = await exchange(address, b'{"ask": "x"}\n')
        assert reply["error"].startswith("the token is wrong")


async def test_several_questions_are_answered_in_their_order(control: ControlDirectory) -> None:
    async with daemon(control) as address:
        asked = b"".join(b'{"ask": "%d", "token": "TOKEN"}\n' % number for number in range(3))

        replies = await exchange(address, asked)

    assert [reply["answer"]["heard"]["ask"] for reply in replies] == ["0", "1", "2"]


@pytest.mark.parametrize(
    "sent",
    [
        b"\n",
        b"hello\n",
        b"\xff\xfe\x00\n",
        b"[]\n",
        b"null\n",
        b"[" * 60_000 + b"\n",
        b'{"a":' * 10_000 + b"\n",
        b"1" * 60_000 + b"\n",
        b'{"ask": 1' + b"0" * 5_000 + b"}\n",
        b"GET / HTTP/1.1\r\n",
    ],
)
async def test_what_is_no_question_is_answered_with_an_error(control: ControlDirectory, sent: bytes) -> None:
    async with daemon(control) as address:
        replies = await exchange(address, sent)

        assert [set(reply) for reply in replies] == [{"error", "kind"}]


async def test_a_line_without_end_is_refused_and_the_next_guest_served(control: ControlDirectory) -> None:
    async with daemon(control) as address:
        (reply,) = await exchange(address, b"x" * (MAX_QUESTION + 10))

        assert "at most 65536 bytes" in reply["error"]
        assert await ask(address, {}) == {"heard": {}}


async def test_half_a_question_is_not_answered(control: ControlDirectory) -> None:
    async with daemon(control) as address:
        assert await exchange(address, b'{"ask": "x"') == []


@pytest.mark.parametrize(
    ("word", "error", "text"),
    [
        ("unknown", UnknownName, "who?"),
        ("full", StoreError, "the disk is full"),
        ("unstorable", StoreError, "no form"),
        ("fail", StateError, "the request failed: RuntimeError; see the log of the bots"),
        ("much", StateError, "the answer is too long; request less"),
    ],
)
async def test_what_goes_wrong_there_is_raised_here(
    control: ControlDirectory, word: str, error: type[Exception], text: str
) -> None:
    async with daemon(control) as address:
        with pytest.raises(error) as caught:
            await ask(address, {"ask": word})

        assert str(caught.value) == text
        assert await ask(address, {}) == {"heard": {}}


async def test_silent_connections_are_closed_in_favor_of_new_requests(control: ControlDirectory) -> None:
    async with daemon(control) as address, AsyncExitStack() as guests:
        silent = [await guests.enter_async_context(await connect(address)) for _ in range(MAX_CONNECTIONS)]
        half = await guests.enter_async_context(await connect(address))
        await half.send(b"{")

        for _ in range(MAX_CONNECTIONS + 1):
            assert await ask(address, {"ask": "x"}) == {"heard": {"ask": "x"}}

        with anyio.fail_after(20), pytest.raises(anyio.EndOfStream):
            await silent[0].receive()


async def test_connections_that_do_not_read_the_response_are_closed_in_favor_of_new_ones(
    control: ControlDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_socket, "MAX_ANSWER", 2 * MAX_ANSWER)
    async with daemon(control) as address, AsyncExitStack() as guests:
        for _ in range(MAX_CONNECTIONS):
            guest = await guests.enter_async_context(await connect(address))
            await guest.send(json.dumps({"ask": "much", "token": address.token}).encode() + b"\n")

        assert await ask(address, {"ask": "x"}) == {"heard": {"ask": "x"}}


async def test_who_waits_for_an_answer_is_not_sent_away(control: ControlDirectory) -> None:
    may_answer, asked = anyio.Event(), 0

    async def answer(question: Mapping[str, Any]) -> Mapping[str, Any]:
        nonlocal asked
        asked += 1
        await may_answer.wait()
        return question

    async with listening(control, answer, config=config_of(control)), anyio.create_task_group() as group:
        address = await anyio.to_thread.run_sync(found, control)
        for number in range(MAX_CONNECTIONS):
            group.start_soon(ask, address, {"number": number})
        while asked < MAX_CONNECTIONS:
            await anyio.lowlevel.checkpoint()

        with pytest.raises(StateError, match="too many commands are connected"):
            await ask(address, {})
        may_answer.set()


def test_where_no_daemon_runs_there_is_none_to_ask(tmp_path: Path) -> None:
    control = ControlDirectory(tmp_path)

    assert find_daemon(control, tmp_path / "bots.yaml") is None
    assert not control.path.exists()


def test_what_a_killed_daemon_left_behind_does_not_count(tmp_path: Path) -> None:
    with held(tmp_path) as control:
        pass
    leave_behind(control)

    assert find_daemon(control, config_of(control)) is None


async def test_what_a_killed_daemon_left_behind_is_no_obstacle(control: ControlDirectory) -> None:
    await anyio.to_thread.run_sync(leave_behind, control)

    async with daemon(control) as address:
        assert await ask(address, {}) == {"heard": {}}


def leave_behind(control: ControlDirectory) -> None:
    (control.path / "control.sock").touch()
    control.write_facts("control", {"path": "/x", "port": 0, "token": "", "config": str(config_of(control))})


def test_a_daemon_that_is_not_ready_is_distinguished_from_none(tmp_path: Path) -> None:
    with held(tmp_path) as control, pytest.raises(StateError, match="they are starting or stopping; try again"):
        find_daemon(control, config_of(control))


async def test_the_daemon_of_another_file_is_not_meant(control: ControlDirectory) -> None:
    async with daemon(control):
        other = config_of(control).with_name("staging.yaml")
        assert await anyio.to_thread.run_sync(find_daemon, control, other) is None


async def test_a_daemon_that_stopped_meanwhile_is_reported_in_a_sentence(control: ControlDirectory) -> None:
    async with daemon(control) as address:
        pass

    with pytest.raises(StateError, match="the process does not answer"):
        await ask(address, {})
