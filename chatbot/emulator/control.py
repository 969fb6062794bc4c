"""The control API: what a test in any language can see and change, under `/emulator/`.

Whoever has the access key may: `Authorization: Bearer {access key}`. All bodies are JSON.

* `GET  /emulator/status`: resource, endpoint, time, switches, counts
* `GET  /emulator/calls` (`?operation=`, `?since=` milliseconds), `DELETE` forgets them
* `GET  /emulator/typing` (`?thread=`)
* `GET  /emulator/threads`, `GET /emulator/threads/{id}`: transcript, participants, receipts
* `GET|PUT|POST|DELETE /emulator/faults`: the rules as texts; POST adds, PUT replaces, DELETE ends them
* `GET|PATCH /emulator/quirks`: `{"start-time": "exclusive"}`
* `PUT  /emulator/quotas`: `{"enabled": false}`
* `PUT  /emulator/clock`: `{"offset": 3600}`, seconds; what tokens, quotas and retention are judged by
* `POST /emulator/entra`: a token that is taken for one of Microsoft Entra ID's, where that is switched on
* `POST /emulator/seed`: a seed document (`seed.py`) as JSON; answers what it created
"""

from __future__ import annotations

import dataclasses
import hmac
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from chatbot.emulator import seed
from chatbot.emulator.bodies import dump
from chatbot.emulator.faults import Fault
from chatbot.emulator.problems import ServiceError
from chatbot.emulator.quirks import Quirks
from chatbot.emulator.request import Request, Response

if TYPE_CHECKING:
    from chatbot.emulator.app import Emulator

Json = dict[str, Any]


class Control:
    """Answers the control API."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._handlers: dict[tuple[str, str], Callable[[Request], Any]] = {
            ("GET", "status"): self._status,
            ("GET", "calls"): self._calls,
            ("DELETE", "calls"): self._forget_calls,
            ("GET", "typing"): self._typing,
            ("GET", "threads"): self._threads,
            ("GET", "faults"): self._faults,
            ("PUT", "faults"): self._replace_faults,
            ("POST", "faults"): self._add_faults,
            ("DELETE", "faults"): self._clear_faults,
            ("GET", "quirks"): self._quirks,
            ("PATCH", "quirks"): self._set_quirks,
            ("PUT", "quotas"): self._set_quotas,
            ("PUT", "clock"): self._set_clock,
            ("POST", "seed"): self._seed,
            ("POST", "entra"): self._issue_entra,
        }

    def answer(self, request: Request) -> Response:
        """The answer, a refusal too."""
        try:
            return Response(200, dump(self._run(request)), is_beside=True)
        except ServiceError as error:
            body: Json = {"error": {"code": error.code, "message": error.message}}
            return Response(error.status, dump(body), is_beside=True)

    def _run(self, request: Request) -> Any:
        if request.segments[1:] == ["eventgrid"]:
            return self._validate(request)
        key = request.header(b"authorization").removeprefix("Bearer ").encode("latin-1")
        if not hmac.compare_digest(key, self._emulator.access_key.encode()):
            raise ServiceError(401, "Unauthorized", "Authorization: Bearer with the emulator's access key is required.")
        noun = request.segments[1] if len(request.segments) > 1 else "status"
        handler = self._handlers.get((request.method, noun))
        if handler is None:
            nouns = sorted(f"{method} /emulator/{name}" for method, name in self._handlers)
            raise ServiceError(404, "NotFound", f"There are: {', '.join(nouns)}.")
        try:
            return handler(request)
        except (ValueError, RecursionError) as error:
            raise ServiceError(400, "BadRequest", str(error)) from error

    def _validate(self, request: Request) -> str:
        """The manual handshake: whoever was sent the secret code opens its URL."""
        opened = self._emulator.validations.get(request.query.get("code", ""))
        if opened is None:
            raise ServiceError(404, "NotFound", "No webhook waits for this code.")
        opened()
        return "Webhook successfully validated as a subscription endpoint."

    def _status(self, _: Request) -> Json:
        emulator = self._emulator
        return {
            "resource": emulator.world.resource.id,
            "endpoint": emulator.endpoint,
            "now": emulator.now(),
            "quotas": emulator.has_quotas,
            "faults": self._faults(_)["faults"],
            "quirks": self._quirks(_),
            "users": len(emulator.world.state.users),
            "threads": len(emulator.world.state.rooms),
        }

    def _calls(self, request: Request) -> Json:
        operation, since = request.query.get("operation"), int(request.query.get("since") or 0)
        calls = [dataclasses.asdict(call) for call in self._emulator.calls if call.at >= since]
        return {"calls": [call for call in calls if operation in {None, call["operation"]}]}

    def _forget_calls(self, _: Request) -> Json:
        self._emulator.calls.clear()
        return {}

    def _typing(self, request: Request) -> Json:
        thread = request.query.get("thread")
        seen = [dataclasses.asdict(one) for one in self._emulator.world.receipts.typing]
        return {"typing": [one for one in seen if thread in {None, one["thread"]}]}

    def _threads(self, request: Request) -> Json:
        if len(request.segments) < 3:
            return {"threads": self._emulator.threads()}
        thread = request.segments[2]
        room = self._emulator.world.state.room(thread)
        return {
            "thread": _plain(room.head),
            "participants": [_plain(one) for one in room.present()],
            "messages": [_plain(one) for one in self._emulator.transcript(thread)],
            "receipts": [_plain(one) for one in room.receipts.values()],
        }

    def _faults(self, _: Request) -> Json:
        return {"faults": [_plain(rule) for rule in self._emulator.faults.rules]}

    def _add_faults(self, request: Request) -> Json:
        listed = _document(request).get("faults")
        if not isinstance(listed, list):
            msg = 'write {"faults": ["send_message:503,times=1"]}'
            raise ValueError(msg)
        parsed = [Fault.parse(str(text)) for text in listed]
        for fault in parsed:
            self._emulator.faults.add(fault)
        return self._faults(request)

    def _replace_faults(self, request: Request) -> Json:
        earlier = self._emulator.faults.rules
        self._emulator.faults.clear()
        try:
            return self._add_faults(request)
        except ValueError:
            for fault in earlier:
                self._emulator.faults.add(fault)
            raise

    def _clear_faults(self, request: Request) -> Json:
        self._emulator.faults.clear()
        return self._faults(request)

    def _quirks(self, _: Request) -> Json:
        values = dataclasses.asdict(self._emulator.world.quirks)
        return {name.replace("_", "-"): value for name, value in values.items()}

    def _set_quirks(self, request: Request) -> Json:
        switches = [f"{name}={_text(value)}" for name, value in _document(request).items()]
        self._emulator.world.quirks = Quirks.parse(switches, self._emulator.world.quirks)
        return self._quirks(request)

    def _set_quotas(self, request: Request) -> Json:
        wanted = _document(request).get("enabled")
        if not isinstance(wanted, bool):
            msg = 'write {"enabled": true} or {"enabled": false}'
            raise ValueError(msg)
        self._emulator.has_quotas = wanted
        self._emulator.quotas.clear()
        return {"enabled": wanted}

    def _set_clock(self, request: Request) -> Json:
        offset = _document(request).get("offset")
        if isinstance(offset, bool) or not isinstance(offset, int | float) or abs(offset) > 3_000_000_000:
            msg = 'write {"offset": 3600}: seconds by which the service\'s clock shall be off'
            raise ValueError(msg)
        self._emulator.offset_seconds = float(offset)
        return {"now": self._emulator.now()}

    def _issue_entra(self, _request: Request) -> Json:
        if not self._emulator.takes_entra:
            raise ServiceError(409, "Conflict", "Tokens of Entra are not accepted: start the emulator with --entra.")
        return {"token": self._emulator.entra_token()}

    def _seed(self, request: Request) -> Json:
        return seed.plant(self._emulator, _document(request))


def _document(request: Request) -> Json:
    try:
        return request.json()
    except ServiceError as error:
        msg = "the body must be a JSON object"
        raise ValueError(msg) from error


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _plain(record: Any) -> Json:
    return {
        item.name: [_plain(one) for one in value] if isinstance(value, tuple) else value
        for item in dataclasses.fields(record)
        for value in (_value(getattr(record, item.name)),)
        if value is not None
    }


def _value(value: Any) -> Any:
    return dict(value) if hasattr(value, "items") else value
