"""Asking a running daemon: the other end of the channel, for commands."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import anyio
from anyio.abc import SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from chatbot import errors
from chatbot.errors import ChatbotError, StateError
from chatbot.runtime.channel import FACTS, MAX_ANSWER, Address
from chatbot.runtime.control import ControlDirectory

PATIENCE_SECONDS: Final = 60.0


def find_daemon(control: ControlDirectory, config: Path) -> Address | None:
    """Where the daemon that runs the bots of this file listens; None when none runs, or only one of another file.

    Raises:
        StateError: one runs, but it does not listen.
        StoreError: the directory cannot be read.
    """
    if not control.is_held:
        return None
    facts = control.recall(FACTS)
    match facts:
        case {"path": str(path), "port": int(port), "token": str(token), "config": str(known)}:
            # Links are followed only now: a config map's file is another one after every change.
            return Address(path, port, token) if os.path.realpath(known) == os.path.realpath(config) else None
        case _:
            message = (
                f"bots run in {control.path.parent}, but cannot be asked: they are starting or stopping; try again"
            )
            raise StateError(message)


async def ask(address: Address, question: Mapping[str, Any], patience: float = PATIENCE_SECONDS) -> Mapping[str, Any]:
    """Ask the daemon.

    Args:
        address: from `find_daemon`.
        question: see `Desk.answer`.
        patience: seconds until an answer must be there.

    Raises:
        ChatbotError: what the daemon answered.
        StateError: it does not answer.
    """
    try:
        with anyio.fail_after(patience):
            async with await _connect(address) as stream:
                await stream.send(json.dumps({**question, "token": address.token}).encode() + b"\n")
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
        message = "the process does not answer; it may be stopping, or very busy: try again in a moment"
        raise StateError(message) from error
    match reply:
        case {"answer": dict(answer)}:
            return answer
        case {"error": str(text), "kind": str(kind)}:
            raise _error(text, kind)
        case _:
            message = "the running bots answered something else; are they of another version of chatbot? Restart them"
            raise StateError(message)


async def _connect(address: Address) -> SocketStream:
    if address.path:
        return await anyio.connect_unix(address.path)
    return await anyio.connect_tcp("127.0.0.1", address.port)


def _error(text: str, kind: str) -> ChatbotError:
    known: Mapping[str, type[ChatbotError]] = {
        "ConfigError": errors.ConfigError,
        "ServiceError": errors.ServiceError,
        "StoreError": errors.StoreError,
        "CannotStore": errors.StoreError,
        "UnknownName": errors.UnknownName,
    }
    return known.get(kind, StateError)(text)
