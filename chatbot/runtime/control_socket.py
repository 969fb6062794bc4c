"""The control socket of a daemon: commands of the same user ask it, one line of JSON each way.

It is a Unix socket in `.chatbot/`, which only its owner can enter. Where there are none (Windows), or where the path is
too long for one, it is a port on loopback, and a client must know the token that is stored in `.chatbot/`.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import anyio
from anyio.abc import SocketAttribute, SocketListener, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream
from msgspec import Struct

from chatbot.errors import ChatbotError, StateError, StoreError
from chatbot.runtime.control_client import FACTS, KINDS, MAX_ANSWER, Address
from chatbot.runtime.run_directory import ControlDirectory
from chatbot.worker_threads import run_in_thread


def _kind_of(error: ChatbotError) -> str:
    return next((kind.__name__ for kind in type(error).__mro__ if kind.__name__ in KINDS), StateError.__name__)


MAX_QUESTION: Final = 65_536
MAX_CONNECTIONS: Final = 16
"""The most connections; one more ends the connection that has been silent for the longest time."""

IDLE_SECONDS: Final = 30.0
ACCEPT_PAUSE: Final = 1.0
CLOSE_SECONDS: Final = 1.0

Audit = Callable[[Mapping[str, Any]], Mapping[str, str] | None]
"""Returns what the log may say of a request; None for requests that are not logged."""

Answer = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]
"""Answers a request; a `ChatbotError` is sent to the command."""


class Peer(Struct, frozen=True):
    """Who is at the other end of a connection, as the operating system says; None where it does not."""

    pid: int | None = None
    uid: int | None = None

    @classmethod
    def of(cls, client: SocketStream) -> Peer:
        """Return the peer of a connection. Only Linux tells it, and only of Unix sockets."""
        connection = client.extra(SocketAttribute.raw_socket)  # noqa: S610 - this is no Django
        if not hasattr(socket, "SO_PEERCRED") or connection.family != socket.AF_UNIX:
            return cls()
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, _gid = _CREDENTIALS.unpack(credentials)
        return cls(pid, uid)

    def as_fields(self) -> dict[str, Any]:
        """Return the fields of a log line."""
        return {"by": _name_of_user(self.uid), "uid": self.uid, "pid": self.pid}


_CREDENTIALS: Final = struct.Struct("3i")


def _name_of_user(uid: int | None) -> str | None:
    if uid is None:
        return None
    try:
        import pwd

        return pwd.getpwuid(uid).pw_name
    except (ImportError, KeyError):  # no such system, or a user of no name, as in a container
        return None


@asynccontextmanager
async def listening(
    control: ControlDirectory, answer: Answer, *, config: Path, audit: Audit = lambda _question: None
) -> AsyncIterator[None]:
    """Answer requests while the block runs. A daemon that cannot listen logs it, and runs without.

    Args:
        control: the directory, held by the caller.
        answer: answers the requests.
        config: the bots.yaml; commands for another file do not find this daemon.
        audit: says which requests are logged, with who made them.
    """
    try:
        listener, address = await run_in_thread(_open, control, config)
    except (OSError, StoreError) as error:
        import structlog

        structlog.get_logger().warning("control.not_opened", error=error)
        yield
        return
    try:
        async with await SocketListener.from_socket(listener) as sockets, anyio.create_task_group() as group:
            group.start_soon(_Server(answer, address.token, audit).accept, sockets)
            yield
            group.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await run_in_thread(_close, control, address)


def _open(control: ControlDirectory, config: Path) -> tuple[socket.socket, Address]:
    path = control.path / "control.sock"
    path.unlink(missing_ok=True)  # left by a killed daemon; this one holds the directory
    listener, address = _open_unix(path) or _open_loopback()
    try:
        listener.listen(MAX_CONNECTIONS)
        listener.setblocking(False)
        control.adopt(path)
        facts = {"path": address.path, "port": address.port, "token": address.token}
        control.write_facts(FACTS, {**facts, "config": str(config.absolute())})
    except BaseException:
        listener.close()
        raise
    return listener, address


def _open_unix(path: Path) -> tuple[socket.socket, Address] | None:
    """Return a socket at this path; None if the platform or the path does not allow one."""
    if not hasattr(socket, "AF_UNIX"):
        return None
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
    except OSError:  # the path is too long, or the file system has no sockets
        listener.close()
        return None
    return listener, Address(path=str(path))


def _open_loopback() -> tuple[socket.socket, Address]:
    import secrets

    listener = socket.create_server(("127.0.0.1", 0))
    return listener, Address(port=listener.getsockname()[1], token=secrets.token_hex(32))


def _close(control: ControlDirectory, address: Address) -> None:
    control.delete_facts(FACTS)
    if address.path:
        Path(address.path).unlink(missing_ok=True)


class _Server:
    """Accepts connections and answers requests, whatever clients send."""

    def __init__(self, answer: Answer, token: str, audit: Audit) -> None:
        self._answer = answer
        self._audit = audit
        self._token = token
        self._connected = 0
        self._idle: dict[anyio.CancelScope, None] = {}  # ordered by the length of silence
        import structlog  # here and below: commands import this module, and `chatbot status` must answer soon

        self._log = structlog.get_logger()

    async def accept(self, listener: SocketListener) -> None:
        async with anyio.create_task_group() as group:
            while True:
                try:
                    client = await listener.accept()
                except (OSError, anyio.BrokenResourceError) as error:  # no file descriptors are left, for example
                    self._log.warning("control.refused", error=error)
                    await anyio.sleep(ACCEPT_PAUSE)
                    continue
                group.start_soon(self._serve, client)

    async def _serve(self, client: SocketStream) -> None:
        self._connected += 1
        try:
            async with client:
                if self._connected > MAX_CONNECTIONS and not self._close_most_idle():
                    await _close_with(client, "too many commands are connected; try again in a moment")
                    return
                await self._exchange(client)
        except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream):
            pass  # the client has left
        except Exception:
            self._log.exception("control.failed")
        finally:
            self._connected -= 1

    def _close_most_idle(self) -> bool:
        """End the connection that has been silent for the longest time; return False if all others wait for answers.

        Without this, a few connections that never send a request would block `chatbot status`.
        """
        longest = next(iter(self._idle), None)
        if longest is None:
            return False
        del self._idle[longest]  # the next new connection must end another one
        longest.cancel()
        return True

    @contextmanager
    def _waiting_for_client(self) -> Iterator[anyio.CancelScope]:
        """Cancel the block if the client takes too long, or if a new connection needs its place."""
        with anyio.move_on_after(IDLE_SECONDS) as scope:
            self._idle[scope] = None
            try:
                yield scope
            finally:
                self._idle.pop(scope, None)

    async def _exchange(self, client: SocketStream) -> None:
        stream = BufferedByteReceiveStream(client)
        while True:
            line = b""
            try:
                with self._waiting_for_client() as asking:
                    line = await stream.receive_until(b"\n", MAX_QUESTION)
            except anyio.DelimiterNotFound:
                await _close_with(client, f"a request is one line of at most {MAX_QUESTION} bytes")
                return
            except (anyio.IncompleteRead, anyio.EndOfStream):
                return
            if asking.cancelled_caught:
                return
            reply = await self._reply(
                line, client
            )  # without a limit: a reload takes as long as the bots may take to finish
            with self._waiting_for_client() as reading:
                await _send(client, reply)
            if reading.cancelled_caught:
                return

    async def _reply(self, line: bytes, client: SocketStream) -> dict[str, Any]:
        question = _parse(line)
        if question is None:
            return _refusal("a request is one JSON object on one line")
        given = question.pop("token", "")
        if self._token and not _is_same(str(given), self._token):
            return _refusal("the token is wrong; it is stored in the .chatbot directory, which only its owner can read")
        facts = self._audit(question)
        peer = Peer.of(client) if facts is not None else None  # before the answer: the client may be gone after it
        reply = await self._answered(question)
        if facts is not None and peer is not None:
            if "answer" not in reply:  # a name that is refused may be any words
                facts = {"command": facts["command"]}
            outcome = "done" if "answer" in reply else reply["kind"]
            self._log.info("command.answered", **facts, outcome=outcome, **peer.as_fields())
        return reply

    async def _answered(self, question: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return {"answer": await self._answer(question)}
        except ChatbotError as error:
            return _refusal(str(error), _kind_of(error))
        except Exception as error:
            self._log.exception("control.failed")
            return _refusal(f"the request failed: {type(error).__name__}; see the log of the bots")


def _is_same(given: str, token: str) -> bool:
    import hmac

    return hmac.compare_digest(given.encode(errors="replace"), token.encode())


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        question = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return question if isinstance(question, dict) else None


def _refusal(text: str, kind: str = StateError.__name__) -> dict[str, Any]:
    return {"error": text, "kind": kind}


async def _close_with(client: SocketStream, text: str) -> None:
    """Send a refusal, then read for a moment: closing with unread input would discard the refusal."""
    with anyio.move_on_after(CLOSE_SECONDS):
        await _send(client, _refusal(text))
        await client.send_eof()
        while True:
            await client.receive()


async def _send(client: SocketStream, reply: Mapping[str, Any]) -> None:
    line = json.dumps(reply).encode() + b"\n"
    if len(line) > MAX_ANSWER:
        line = json.dumps(_refusal("the answer is too long; request less")).encode() + b"\n"
    await client.send(line)
