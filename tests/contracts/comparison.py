"""What differs between a recorded answer and the emulator's.

Ids are unified: the first time a recorded id meets an emulated one the two are taken for the same, afterwards they must
be. Times and tokens are compared by their form.
"""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass, field
from typing import Any

from chatbot.emulator.cursors import parse_message_cursor
from tests.contracts.sessions import HIDDEN, ID
from tests.unit.emulator.asgi import Answer

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")

ALLOWED = {
    "fewer versions": "the service had fewer api-versions then",
    "framing": "answers of 2021 and 2022 are all chunked; the emulator's carry Content-Length, except errors",
    "shorter message": "one recording of 2022-10-01 has the error text before its second sentence was added",
    "no trace context": "answers of January 2021 lack Request-Context",
    "no location": "the Python suite's recorder of 2021 removed Location; JavaScript's of the same api-version has it",
    "no echo": "Python's, the command line's and some of Java's recordings do not show x-ms-client-request-id",
}


@dataclass
class Outcome:
    """One exchange: what differs, and which of the allowed differences."""

    exchange: str
    differences: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)


class Comparison:
    """Compares a recorded answer with the emulator's; `known` holds the ids met so far, and takes the new ones."""

    def __init__(self, known: dict[str, str], outcome: Outcome) -> None:
        self._known = known
        self._outcome = outcome

    def all(self, exchange: dict[str, Any], answer: Answer) -> None:
        """Status, headers and body."""
        if exchange["status"] != answer.status:
            shown = answer.body[:200].decode()
            self._differs("status", exchange["status"], f"{answer.status} {shown}")
            return
        self._headers(exchange["response_headers"], answer)
        recorded = exchange["response"]
        if recorded is None or recorded == "":
            if answer.body:
                self._differs("body", "none", answer.body)
        else:
            self._value("body", recorded, answer.json)

    def _headers(self, recorded: dict[str, str], answer: Answer) -> None:
        ours = answer.headers
        if "transfer-encoding" in recorded and "content-length" in ours:
            self._allowed("framing")
        for name in (
            "content-type",
            "content-length",
            "location",
            "ms-cv",
            "api-supported-versions",
            "request-context",
        ):
            theirs = recorded.get(name)
            own = ours.get(name)
            if name == "content-length" and theirs not in (None, "0"):
                theirs = own = None  # ids and times have the same length, but not everything recorded is whole
            if name == "content-length" and "transfer-encoding" in recorded:
                continue
            if name == "location" and theirs is None and own is not None:
                self._allowed("no location")
            elif name == "request-context" and theirs is None and own is not None:
                self._allowed("no trace context")
            elif (theirs is None) is not (own is None):
                self._differs(f"header {name}", theirs, own)
            elif theirs is not None and own is not None:
                self._header(name, theirs, own)
        self._echo(recorded, ours)

    def _header(self, name: str, theirs: str, own: str) -> None:
        if name == "location":
            self._value(
                "header location",
                urllib.parse.unquote(theirs),
                urllib.parse.unquote(own).replace("//emulator.test", "//endpoint"),
            )
            if theirs.count("%") != own.count("%"):
                self._differs("escapes of location", theirs, own)
        elif name == "ms-cv":
            if theirs not in HIDDEN and not re.fullmatch(r"[\w+/]{22}\.0", own):
                self._differs("header ms-cv", theirs, own)
        elif name != "api-supported-versions" and theirs != own:
            self._differs(f"header {name}", theirs, own)

    def _echo(self, recorded: dict[str, str], ours: dict[str, str]) -> None:
        theirs, own = "x-ms-client-request-id" in recorded, "x-ms-client-request-id" in ours
        if own and not theirs:
            self._allowed("no echo")
        elif theirs and not own:
            self._differs("header x-ms-client-request-id", "echoed", "not echoed")

    def _value(self, place: str, theirs: Any, own: Any) -> None:
        if isinstance(theirs, str) and theirs in HIDDEN:
            return
        if type(theirs) is not type(own):
            self._differs(place, theirs, own)
        elif isinstance(theirs, dict):
            if list(theirs) != list(own):
                self._differs(f"{place}: keys", list(theirs), list(own))
            for key in theirs:
                if key in own:
                    self._value(f"{place}.{key}", theirs[key], own[key])
        elif isinstance(theirs, list):
            if len(theirs) != len(own):
                self._differs(f"{place}: length", len(theirs), len(own))
            for number, (one, other) in enumerate(zip(theirs, own, strict=False)):
                self._value(f"{place}[{number}]", one, other)
        elif isinstance(theirs, str):
            self._text(place, theirs, own)
        elif theirs != own:
            self._differs(place, theirs, own)

    def _text(self, place: str, theirs: str, own: str) -> None:
        if "syncState=" in theirs:
            self._link(place, theirs, own)
            return
        if place.endswith(".message") and own != theirs and own.startswith(theirs) and theirs.endswith("is invalid."):
            self._allowed("shorter message")
            return
        unified = ID.sub(lambda match: self._known.get(match[0], match[0]), theirs)
        for mine, match in zip(ID.findall(own), ID.finditer(theirs), strict=False):
            if match[0] not in self._known and mine not in self._known.values():
                self._known[match[0]] = mine
                if _id_form(match[0]) != _id_form(mine):
                    self._differs(f"{place}: form of the id", match[0], mine)
                unified = unified.replace(match[0], mine)
        if TIME.sub(_form, unified) != TIME.sub(_form, own):
            self._differs(place, theirs, own)

    def _link(self, place: str, theirs: str, own: str) -> None:
        recorded, emulated = urllib.parse.urlsplit(theirs), urllib.parse.urlsplit(own)
        self._text(f"{place} path", recorded.path, emulated.path)
        pairs, mine = recorded.query.split("&"), emulated.query.split("&")
        if pairs[1:] != mine[1:] or pairs[0].partition("=")[0] != mine[0].partition("=")[0]:
            self._differs(f"{place} query", pairs[1:], mine[1:])
        thread = recorded.path.split("/")[3]
        windows = [
            parse_message_cursor(query[0].partition("=")[2], name)
            for query, name in ((pairs, thread), (mine, emulated.path.split("/")[3]))
        ]
        for one, other in zip(*windows, strict=True):
            self._text(f"{place} syncState", str(one), str(other))

    def _differs(self, place: str, theirs: Any, own: Any) -> None:
        self._outcome.differences.append(f"{place}: recorded {str(theirs)[:300]!r}, emulator {str(own)[:300]!r}")

    def _allowed(self, name: str) -> None:
        if name not in self._outcome.allowed:
            self._outcome.allowed.append(name)


def _form(match: re.Match[str]) -> str:
    return re.sub(r"\d", "9", re.sub(r"\.\d+", ".9", match[0]))


def _id_form(text: str) -> str:
    """User ids by their groups, thread ids by their length."""
    return re.sub(r"[\w\-]", "x", text) if text.startswith("19:") else re.sub(r"[0-9a-f]", "x", text)
