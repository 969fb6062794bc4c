"""Faults being carried out on one request: what happens before its effect, after it, and on the way back."""

from __future__ import annotations

from collections.abc import Sequence

import anyio

from chatbot.emulator.answers import Answers, Headers
from chatbot.emulator.faults import ConnectionLost, Fault
from chatbot.emulator.gate import Receive, Send
from chatbot.emulator.identities import unauthorized
from chatbot.emulator.problems import ServiceError
from chatbot.emulator.request import Request, Response
from chatbot.emulator.world import World

_PIECES = 10
_PAGE = b"<html><head><title>%d</title></head><body>The proxy does not let you through.</body></html>"


async def before(
    struck: Sequence[Fault], request: Request, world: World, answers: Answers, receive: Receive
) -> Response | None:
    """Everything that keeps the effect from happening, or happens first; the answer, if somebody else gives one."""
    for fault in struck:
        match fault.kind:
            case "latency":
                await anyio.sleep(fault.seconds)
                request.now += int(fault.seconds * 1000)
            case "refuse":
                raise ConnectionRefusedError
            case "reset":
                raise ConnectionLost
            case "hang":
                while (await receive())["type"] != "http.disconnect":
                    pass
                raise ConnectionLost
            case "expired-token":
                raise unauthorized()
            case "revoked-token":
                world.identities.revoke(request.caller, request.now)
                raise unauthorized()
            case "skew":
                request.now += int(fault.seconds * 1000)
            case "status" if not fault.after:
                raise refusal(fault, answers)
            case "proxy":
                return Response(fault.status, _PAGE % fault.status, [], b"text/html")
    return None


def after(struck: Sequence[Fault], answers: Answers) -> None:
    """What hides an effect that took place."""
    for fault in struck:
        if fault.kind == "reset-after":
            raise ConnectionLost
        if fault.kind == "status" and fault.after:
            raise refusal(fault, answers)


def staleness(struck: Sequence[Fault]) -> int:
    """For how many milliseconds lists do not show what this request changes."""
    return max((int(fault.seconds * 1000) for fault in struck if fault.kind == "stale"), default=0)


def refusal(fault: Fault, answers: Answers) -> ServiceError:
    """The error of a status fault."""
    if fault.status in {429, 503}:
        error = answers.throttled(fault.status, fault.retry_after or 1)
    else:
        code = {401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 500: "InternalServerError"}
        error = ServiceError(fault.status, code.get(fault.status, f"Status{fault.status}"), None)
    if fault.retry_after is not None:
        error.headers = ((b"retry-after", b"%g" % fault.retry_after),)
    return error


async def deliver(struck: Sequence[Fault], response: Response, headers: Headers, send: Send) -> None:
    """Send an answer, whole or not, at once or slowly."""
    body = response.body or b""
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    for fault in struck:
        if fault.kind == "truncate":
            await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
            raise ConnectionLost
        if fault.kind == "drip" and body:
            step = -(-len(body) // _PIECES)
            for start in range(0, len(body), step):
                await anyio.sleep(fault.seconds / _PIECES)
                piece = body[start : start + step]
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            body = b""
    await send({"type": "http.response.body", "body": body})
