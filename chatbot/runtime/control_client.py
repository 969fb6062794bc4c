"""The client of the control socket: find the daemon that runs the bots of a bots.yaml, and ask it.

`chatbot status` must answer at once, also on a busy machine, so nothing slow is imported here at the top.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from chatbot.errors import ChatbotError, ConfigError, ServiceError, StateError, StoreError, UnknownName
from chatbot.runtime.run_directory import ControlDirectory

if TYPE_CHECKING:
    from anyio.abc import SocketStream

ANSWER_TIMEOUT_SECONDS: Final = 60.0
MAX_ANSWER: Final = 16 * 1024 * 1024
FACTS: Final = "control"

_NO_ANSWER: Final = "the process does not answer; it may be stopping or very busy: try again in a moment"


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a daemon: the path of a Unix socket, or a port on loopback with a token."""

    path: str = ""
    port: int = 0
    token: str = field(default="", repr=False)


def find_daemon(control: ControlDirectory, config: Path) -> Address | None:
    """Return the address of the daemon that runs the bots of this file; None if there is none.

    Raises:
        StateError: a daemon runs, but does not listen.
        StoreError: the directory cannot be read.
    """
    if not control.is_held:
        return None
    facts = control.read_facts(FACTS)
    match facts:
        case {"path": str(path), "port": int(port), "token": str(token), "config": str(known)}:
            # Links are resolved only now: every change of a Kubernetes config map makes them lead to another file.
            return Address(path, port, token) if os.path.realpath(known) == os.path.realpath(config) else None
        case _:
            message = (
                f"bots run in {control.path.parent}, but do not take requests: they are starting or stopping; try again"
            )
            raise StateError(message)


async def ask(
    address: Address, question: Mapping[str, Any], timeout: float = ANSWER_TIMEOUT_SECONDS
) -> Mapping[str, Any]:
    """Send a request to the daemon, and return its answer.

    Args:
        address: from `find_daemon`.
        question: see `ControlApi.answer`.
        timeout: seconds to wait for the answer.

    Raises:
        ChatbotError: the error that the daemon answered.
        StateError: the daemon does not answer.
    """
    import anyio
    from anyio.streams.buffered import BufferedByteReceiveStream

    try:
        with anyio.fail_after(timeout):
            async with await _connect(address) as stream:
                await stream.send(_request(address, question))
                line = await BufferedByteReceiveStream(stream).receive_until(b"\n", MAX_ANSWER)
        reply = json.loads(line)
    except (
        OSError,
        ValueError,
        TimeoutError,
        anyio.BrokenResourceError,
        anyio.EndOfStream,
        anyio.IncompleteRead,
    ) as error:
        raise StateError(_NO_ANSWER) from error
    return _answer_in(reply)


async def _connect(address: Address) -> SocketStream:
    import anyio

    if address.path:
        return await anyio.connect_unix(address.path)
    return await anyio.connect_tcp("127.0.0.1", address.port)


def ask_at_once(
    address: Address, question: Mapping[str, Any], timeout: float, on_wait: Callable[[int], None], interval: float
) -> Mapping[str, Any]:
    """Send a request without an event loop, which takes longer to import than the daemon to answer.

    Args:
        address: from `find_daemon`.
        question: see `ControlApi.answer`.
        timeout: seconds to wait for the answer; those that `on_wait` takes count.
        on_wait: called every `interval` seconds without an answer, with how often it was called before.
        interval: seconds.

    Raises:
        ChatbotError: the error that the daemon answered.
        StateError: the daemon does not answer.
    """
    ends_at = time.monotonic() + timeout
    try:
        family = socket.AF_UNIX if address.path else socket.AF_INET
        with socket.socket(family) as connection:
            connection.settimeout(timeout)  # the system accepts; the queue may be full if the daemon is blocked
            connection.connect(address.path or ("127.0.0.1", address.port))
            connection.sendall(_request(address, question))
            reply = json.loads(_read_line(connection, ends_at, on_wait, interval))
    except (OSError, ValueError) as error:
        raise StateError(_NO_ANSWER) from error
    return _answer_in(reply)


def _read_line(connection: socket.socket, ends_at: float, on_wait: Callable[[int], None], interval: float) -> bytes:
    parts: list[bytes] = []
    calls = size = 0
    while not (parts and parts[-1].endswith(b"\n")):
        # Polled at least once more after `on_wait`, which may have taken the rest of the time.
        connection.settimeout(max(0.01, min(interval, ends_at - time.monotonic())))
        try:
            part = connection.recv(1 << 16)
        except TimeoutError:
            if time.monotonic() >= ends_at:
                raise
            on_wait(calls)
            calls += 1
            continue
        size += len(part)
        if not part or size > MAX_ANSWER:
            raise ValueError
        parts.append(part)
    return b"".join(parts)


def _request(address: Address, question: Mapping[str, Any]) -> bytes:
    return json.dumps({**question, "token": address.token}).encode() + b"\n"


def _answer_in(reply: object) -> Mapping[str, Any]:
    match reply:
        case {"answer": dict(answer)}:
            return answer
        case {"error": str(text), "kind": str(kind)}:
            raise KINDS.get(kind, StateError)(text)
        case _:
            message = "the running bots sent an unknown answer; if they have another version of chatbot, restart them"
            raise StateError(message)


KINDS: Final[Mapping[str, type[ChatbotError]]] = {
    kind.__name__: kind for kind in (ConfigError, ServiceError, StoreError, UnknownName, StateError)
}
"""Errors that the command raises again; they decide its exit code."""
