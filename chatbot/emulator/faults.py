"""Fault injection: failures of network and service, reproducible by a seed.

A fault is written `OPERATION:KIND[=VALUE][,NAME=VALUE…]`; `*` is every operation. Kinds:

* a status from 400 to 599: refused before anything took effect; with `after=true` it takes effect first
* `proxy=STATUS`: a proxy on the way answers with a page of its own
* `latency=SECONDS` or `latency=FROM..TO`: waits before anything happens
* `refuse`: the request never arrived (a cut connection over sockets, where nobody can refuse a request)
* `reset`: the connection breaks before the effect; `reset-after`: the effect took place, the answer is lost
* `truncate`: half the body, then the connection breaks; `drip=SECONDS`: the body in pieces over that time
* `hang`: no answer until the client gives up
* `circle`: a page's nextLink leads back to it; `endless`: to further copies of it, without end
* `expired-token`: 401 as for an expired token; `revoked-token`: the caller's tokens are revoked for good
* `skew=SECONDS`: the service's clock is off (may be negative), for this request
* `stale=SECONDS`: what this request changes is shown in lists only so much later

Names: `probability` (default 1), `skip` (matching calls to let pass first), `times` (strikes at most), `every` (strike
only each n-th matching call), `begin` and `end` (seconds since the first request after the rule was put in force),
`retry-after` (seconds, on a status), `after`, `user`, `thread`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import anyio

from chatbot.emulator.errors import ErrorResponse
from chatbot.emulator.identities import unauthorized
from chatbot.emulator.request import Request, Response
from chatbot.emulator.responses import Answers, Headers
from chatbot.emulator.routing import Receive, Send, check_operation
from chatbot.emulator.world import World

KINDS = frozenset(
    {
        "status",
        "latency",
        "refuse",
        "reset",
        "reset-after",
        "truncate",
        "drip",
        "hang",
        "circle",
        "endless",
        "expired-token",
        "revoked-token",
        "skew",
        "stale",
        "proxy",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault rule; the module lists the kinds."""

    operation: str
    kind: str
    status: int = 0
    seconds: float = 0.0
    most_seconds: float | None = None
    probability: float = 1.0
    skip: int = 0
    times: int | None = None
    every: int = 1
    retry_after: float | None = None
    after: bool = False
    user: str | None = None
    thread: str | None = None
    begin_seconds: float = 0.0
    end_seconds: float | None = None

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Parse the text of a fault; the ValueError names the mistake."""
        operation, colon, rest = text.partition(":")
        first, *others = rest.split(",")
        kind, _, value = first.partition("=")
        if not colon or not operation:
            msg = f"fault {text!r}: write OPERATION:KIND, as in send_message:503,probability=0.2 or *:latency=0.1"
            raise ValueError(msg)
        check_operation(operation.strip())
        try:
            fields = _kind(kind.strip(), value.strip())
            for other in others:
                name, _, setting = other.partition("=")
                fields |= _setting(name.strip(), setting.strip())
        except ValueError as error:
            msg = f"fault {text!r}: {error}"
            raise ValueError(msg) from error
        return cls(operation=operation.strip(), **fields)  # type: ignore[arg-type]


class ConnectionLost(ConnectionResetError):
    """The connection must be broken here; the transport does it."""


class Faults:
    """The active rules; each rule counts its own matches and applications."""

    def __init__(self, rules: Iterable[Fault | str] = (), *, seed: int = 0) -> None:
        self._random = random.Random(seed)  # noqa: S311 -- repeatable on purpose
        self._rules: list[_Rule] = []
        self.end_listeners: list[Callable[[], None]] = []
        for rule in rules:
            self.add(rule)

    def __bool__(self) -> bool:
        return bool(self._rules)

    @property
    def rules(self) -> list[Fault]:
        """Return the active rules; those that have struck as often as they may are over."""
        return [rule.fault for rule in self._rules if not rule.is_over]

    def add(self, fault: Fault | str) -> Fault:
        """Activate a rule."""
        rule = Fault.parse(fault) if isinstance(fault, str) else fault
        self._rules.append(_Rule(rule))
        return rule

    def clear(self) -> None:
        """Remove all rules."""
        self._rules.clear()

    def select(self, operation: str, user: str, thread: str, now: int) -> list[Fault]:
        """Return the faults that apply to this request, with their random values drawn."""
        applied: list[Fault] = []
        for rule in self._rules:
            if rule.in_force(now) and rule.applies(operation, user, thread, self._random):
                fault = rule.fault
                if fault.most_seconds is not None:
                    drawn = self._random.uniform(fault.seconds, fault.most_seconds)
                    fault = dataclasses.replace(fault, seconds=drawn, most_seconds=None)
                applied.append(fault)
                if rule.is_over:
                    for listener in self.end_listeners:
                        listener()
        return applied


class _Rule:
    """A fault and its counts."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self._matches = 0
        self._applied = 0
        self._since: int | None = None

    @property
    def is_over(self) -> bool:
        """Whether the rule has struck as often as it may."""
        return self.fault.times is not None and self._applied >= self.fault.times

    def in_force(self, now: int) -> bool:
        """Return whether the rule is active at this time."""
        if self._since is None:
            self._since = now
        elapsed = (now - self._since) / 1000
        end = self.fault.end_seconds
        return elapsed >= self.fault.begin_seconds and (end is None or elapsed < end)

    def applies(self, operation: str, user: str, thread: str, generator: random.Random) -> bool:
        fault = self.fault
        if fault.operation not in {"*", operation}:
            return False
        if fault.user not in {None, user} or fault.thread not in {None, thread}:
            return False
        self._matches += 1
        if self._matches <= fault.skip or (self._matches - fault.skip) % fault.every:
            return False
        if self.is_over:
            return False
        if fault.probability < 1 and generator.random() >= fault.probability:
            return False
        self._applied += 1
        return True


def _kind(kind: str, value: str) -> dict[str, object]:
    if kind.isdecimal():
        if not 400 <= int(kind) <= 599:
            msg = f"{kind} is not an error status (400 to 599)"
            raise ValueError(msg)
        return {"kind": "status", "status": int(kind)}
    if kind not in KINDS - {"status"}:
        msg = f"there is no kind {kind!r}; there are: a status, {', '.join(sorted(KINDS - {'status'}))}"
        raise ValueError(msg)
    if kind == "proxy":
        if not value.isdecimal() or not 400 <= int(value) <= 599:
            msg = f"{value!r} is not an error status (400 to 599)"
            raise ValueError(msg)
        return {"kind": kind, "status": int(value)}
    if kind not in {"latency", "drip", "skew", "stale"}:
        return {"kind": kind}
    least, dots, most = value.partition("..")
    return {"kind": kind, "seconds": _seconds(least), "most_seconds": _seconds(most) if dots else None}


def _seconds(text: str) -> float:
    seconds = float(text)
    if not math.isfinite(seconds) or abs(seconds) > 1e9:
        msg = f"{text} is not a number of seconds"
        raise ValueError(msg)
    return seconds


def _setting(name: str, value: str) -> dict[str, object]:
    name = name.replace("-", "_")
    match name:
        case "probability":
            chance = float(value)
            if not 0 <= chance <= 1:
                msg = f"probability is between 0 and 1, not {value}"
                raise ValueError(msg)
            return {name: chance}
        case "skip" | "times" | "every":
            if not value.isdecimal() or (name == "every" and int(value) < 1):
                msg = f"{name} is a whole number, not {value!r}"
                raise ValueError(msg)
            return {name: int(value)}
        case "retry_after":
            return {name: _seconds(value)}
        case "begin" | "end":
            return {f"{name}_seconds": _seconds(value)}
        case "after":
            return {name: value.lower() in {"true", "yes", "on", "1", ""}}
        case "user" | "thread":
            return {name: value}
    names = "after, begin, end, every, probability, retry-after, skip, thread, times, user"
    msg = f"there is no setting {name!r}; there are: {names}"
    raise ValueError(msg)


_PIECES = 10
_PAGE = b"<html><head><title>%d</title></head><body>The proxy does not let you through.</body></html>"


async def apply_before(
    applied: Sequence[Fault], request: Request, world: World, answers: Answers, receive: Receive
) -> Response | None:
    """Apply faults that precede or prevent the effect; return the response if a fault provides it."""
    for fault in applied:
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


def apply_after(applied: Sequence[Fault], answers: Answers) -> None:
    """Apply faults that hide an effect that took place."""
    for fault in applied:
        if fault.kind == "reset-after":
            raise ConnectionLost
        if fault.kind == "status" and fault.after:
            raise refusal(fault, answers)


def mislead(applied: Sequence[Fault], request: Request, response: Response) -> None:
    """Make the link of a page lead nowhere."""
    for fault in applied:
        if fault.kind in {"circle", "endless"} and response.body and b'"value"' in response.body:
            target, _, lap = request.target.partition("&lap=")
            if fault.kind == "endless":
                target = f"{target}&lap={int(lap or 0) + 1}"
            response.body = json.dumps(json.loads(response.body) | {"nextLink": request.base + target}).encode()


def list_delay_ms(applied: Sequence[Fault]) -> int:
    """Return the milliseconds for which lists do not show the changes of this request."""
    return max((int(fault.seconds * 1000) for fault in applied if fault.kind == "stale"), default=0)


def refusal(fault: Fault, answers: Answers) -> ErrorResponse:
    """The error of a status fault."""
    if fault.status in {429, 503}:
        error = answers.throttled(fault.status, fault.retry_after or 1)
    else:
        code = {401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 500: "InternalServerError"}
        error = ErrorResponse(fault.status, code.get(fault.status, f"Status{fault.status}"), None)
    if fault.retry_after is not None:
        error.headers = ((b"retry-after", b"%g" % fault.retry_after),)
    return error


async def deliver(applied: Sequence[Fault], response: Response, headers: Headers, send: Send) -> None:
    """Send a response, complete or truncated, at once or slowly."""
    body = response.body or b""
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    for fault in applied:
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
