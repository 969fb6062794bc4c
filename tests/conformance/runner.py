"""Runs the conformance scenarios against any implementation of the service. Needs Python and PyYAML only.

The scenarios are data (`*.yaml` beside this file); docs/reference/conformance.md describes their format, so that others
can write a runner in another language.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import re
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

import yaml

DIRECTORY: Final = Path(__file__).parent
IDENTITY_VERSION: Final = "2023-10-01"

KINDS: Final = {
    "any": r"(?s).*",
    "text": r"(?s).+",
    "time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ",
    "moment": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,7})?\+00:00",
    "digits": r"\d+",
    "millis": r"\d{13}",
    "thread": r"19:[A-Za-z0-9_:\-]+@thread\.v2",
    "user": r"8:acs:[0-9a-f-]{36}_[0-9a-zA-Z-]+",
    "token": r"[\w-]+\.[\w-]+\.[\w-]+",
    "url": r"https?://\S+",
}
"""What `<kind>` stands for in an expected text."""

_WORD: Final = re.compile(r"\$([a-z][a-z0-9_]*)")


class Failure(Exception):
    """A step was not answered as expected."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One scenario of a file."""

    file: str
    name: str
    version: str
    users: Sequence[str]
    when: Mapping[str, Any]
    steps: Sequence[Mapping[str, Any]]

    @property
    def title(self) -> str:
        return f"{self.file}: {self.name}"


@dataclass(frozen=True, slots=True)
class Response:
    """What an implementation answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body.decode("utf-8-sig")) if self.body else None


@dataclass(slots=True)
class Target:
    """The implementation: where it is, its key, and how it reads what the documentation leaves open."""

    endpoint: str
    access_key: str
    quirks: Mapping[str, Any]
    ca_file: Path | None = None
    checks_key_order: bool = True
    patience_seconds: float = 10.0

    def holds(self, when: Mapping[str, Any]) -> bool:
        """Whether the quirks are the ones that a scenario or step is about; one value, or a list of them."""
        return all(self.quirks[name] in (value if isinstance(value, list) else [value]) for name, value in when.items())


def default_quirks() -> dict[str, Any]:
    """The quirks that hold unless others are given."""
    return dict(_default_quirks())


@cache
def _default_quirks() -> dict[str, Any]:
    return dict(yaml.safe_load((DIRECTORY / "quirks.yaml").read_text("utf-8")))


def scenarios(directory: Path = DIRECTORY) -> Iterator[Scenario]:
    """All scenarios, by file and order."""
    for path in sorted(directory.glob("*.yaml")):
        if path.name == "quirks.yaml":
            continue
        document = yaml.safe_load(path.read_text("utf-8"))
        for entry in document["scenarios"]:
            yield Scenario(
                path.stem,
                entry["name"],
                str(entry.get("version", document["version"])),
                entry.get("users", ()),
                entry.get("when", {}),
                entry["steps"],
            )


@dataclass(slots=True)
class Run:
    """One scenario against one implementation; what it creates is deleted at its end."""

    target: Target
    scenario: Scenario
    names: dict[str, Any] = field(default_factory=dict)
    skipped: int = 0
    _tokens: dict[str, str] = field(default_factory=dict)
    _threads: list[tuple[str, str]] = field(default_factory=list)
    _connection: http.client.HTTPConnection | None = None

    def __call__(self) -> None:
        """Run all steps.

        Raises:
            Failure: a step failed; says which, what was expected, and what came.
        """
        try:
            for name in self.scenario.users:
                self._create_user(name)
            for number, step in enumerate(self.scenario.steps, 1):
                if not self.target.holds(step.get("when", {})):
                    self.skipped += 1
                    continue
                try:
                    self._step(step)
                except Failure as failure:
                    text = step.get("request", "wait")
                    msg = f"{self.scenario.title}\n  step {number}, {step.get('as', '')} {text}: {failure}"
                    raise Failure(msg) from None
        finally:
            self._clean_up()

    def _step(self, step: Mapping[str, Any]) -> None:
        if "wait" in step:
            time.sleep(float(step["wait"]))
            return
        is_repeated = step.get("eventually") or step.get("until")
        deadline = time.monotonic() + (self.target.patience_seconds if is_repeated else 0)
        while True:
            known = dict(self.names)
            try:
                self._check(step, self._ask(step))
                return
            except Failure:
                if time.monotonic() >= deadline:
                    raise
                self.names = known
                time.sleep(0.0 if step.get("until") else 0.3)

    def _ask(self, step: Mapping[str, Any]) -> Response:
        method, _, target = str(self._filled(step["request"], is_target=True)).partition(" ")
        if target.startswith("http"):  # a link of the implementation; it leads to itself
            url = urlsplit(target)
            target = f"{url.path}?{url.query}"
        elif "api-version=" not in target and not step.get("bare"):
            target += ("&" if "?" in target else "?") + f"api-version={step.get('version', self.scenario.version)}"
        body = json.dumps(self._filled(step["body"])).encode() if "body" in step else b""
        headers = {name: str(self._filled(value)) for name, value in step.get("send", {}).items()}
        if "raw" in step:
            body = str(step["raw"]).encode()
        response = self.send(step.get("as", "nobody"), method, target, body, headers)
        if response.status == 429 and step["status"] != 429:
            time.sleep(float(response.headers.get("retry-after", 10)) + 0.2)
            response = self.send(step.get("as", "nobody"), method, target, body, headers)
        if response.status == 201 and target.startswith("/chat/threads?"):
            self._threads.append((step["as"], response.json["chatThread"]["id"]))
        return response

    def send(self, who: str, method: str, target: str, body: bytes, headers: Mapping[str, str]) -> Response:
        """Send one request: as a user of the scenario, signed as the resource, or as nobody."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        sent = {"Content-Type": kind} if body else {}
        if who == "resource":
            sent |= self._signature(method, target, body)
        elif who != "nobody":
            sent["Authorization"] = f"Bearer {self._tokens[who]}"
        url = urlsplit(self.target.endpoint)
        if self._connection is None:
            self._connection = _connect(url.scheme, url.netloc, self.target.ca_file)
        self._connection.request(method, target, body, sent | dict(headers))
        answer = self._connection.getresponse()
        content = answer.read()
        return Response(answer.status, {name.lower(): value for name, value in answer.getheaders()}, content)

    def _signature(self, method: str, target: str, body: bytes) -> dict[str, str]:
        date = formatdate(usegmt=True)
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        host = urlsplit(self.target.endpoint).netloc
        text = f"{method}\n{unquote(target)}\n{date};{host};{digest}"
        made = hmac.digest(base64.b64decode(self.target.access_key), text.encode(), "sha256")
        signature = base64.b64encode(made).decode()
        authorization = f"HMAC-SHA256 SignedHeaders=x-ms-date;host;x-ms-content-sha256&Signature={signature}"
        return {"x-ms-date": date, "x-ms-content-sha256": digest, "Authorization": authorization}

    # Users and cleanup

    def _create_user(self, name: str) -> None:
        body = json.dumps({"createTokenWithScopes": ["chat"]}).encode()
        response = self.send("resource", "POST", f"/identities?api-version={IDENTITY_VERSION}", body, {})
        if response.status != 201:
            msg = f"{self.scenario.title}: user {name} was not created: {response.status} {response.body[:300]!r}"
            raise Failure(msg)
        self.names[name] = response.json["identity"]["id"]
        self._tokens[name] = response.json["accessToken"]["token"]

    def _clean_up(self) -> None:
        try:
            for who, thread in self._threads:
                self.send(who, "DELETE", f"/chat/threads/{quote(thread, safe='')}?api-version=2024-03-07", b"", {})
            for name in self._tokens:
                user = f"/identities/{self.names[name]}?api-version={IDENTITY_VERSION}"
                self.send("resource", "DELETE", user, b"", {})
        finally:
            if self._connection is not None:
                self._connection.close()

    # Requests: what stands for something is filled in

    def _filled(self, value: Any, *, is_target: bool = False) -> Any:
        if isinstance(value, Mapping):
            return {key: self._filled(one) for key, one in value.items()}
        if isinstance(value, list):
            return [self._filled(one) for one in value]
        if not isinstance(value, str):
            return value
        if value.startswith("@"):
            user = self.names[value[1:]]
            return {"rawId": user, "communicationUser": {"id": user}}
        if match := re.fullmatch(r"<(\d+) x>", value):
            return "x" * int(match[1])
        known = self.names

        def word(found: re.Match[str]) -> str:
            if found[1] not in known:
                msg = f"nothing is known as ${found[1]} yet"
                raise Failure(msg)
            text = str(known[found[1]])
            return quote(text, safe="") if is_target and not text.startswith("http") else text

        return _WORD.sub(word, value)

    # Responses

    def _check(self, step: Mapping[str, Any], response: Response) -> None:
        expected = step["status"]
        if response.status != expected:
            msg = f"expected {expected}, not {response.status} {response.body[:500]!r}"
            raise Failure(msg)
        self._check_body(step, response)
        for name, value in step.get("headers", {}).items():
            self._match(value, response.headers.get(name), f"header {name}")

    def _check_body(self, step: Mapping[str, Any], response: Response) -> None:
        if "error" in step:
            self._check_error(step["error"], response)
        if "expect" not in step:
            return
        if step["expect"] is None:
            if response.body:
                msg = f"expected no body, not {response.body[:500]!r}"
                raise Failure(msg)
            return
        try:
            body = response.json
        except ValueError:
            msg = f"expected JSON, not {response.body[:500]!r}"
            raise Failure(msg) from None
        self._match(step["expect"], body, "body")

    def _check_error(self, error: Mapping[str, str], response: Response) -> None:
        """Compare with an error of chat: its code, and its message, which may be missing."""
        text = error.get("message")
        if self.target.quirks["error-envelope"] == "CommunicationError":
            inner = {"Code": error["code"], **({} if text is None else {"Message": text}), "Details": []}
            self._match({"CommunicationError": inner}, response.json, "body")
        else:
            self._match({"error": {"code": error["code"], "message": text or "<any>"}}, response.json, "body")

    def _match(self, expected: Any, found: Any, place: str) -> None:
        """Compare; `$name` is bound where it is new, and equal where it is known."""
        if isinstance(expected, str):
            self._match_text(expected, found, place)
        elif isinstance(expected, Mapping):
            self._match_object(expected, found, place)
        elif isinstance(expected, list):
            if not isinstance(found, list) or len(found) != len(expected):
                msg = f"{place}: expected {len(expected)} items, not {json.dumps(found)[:800]}"
                raise Failure(msg)
            for number, (one, other) in enumerate(zip(expected, found, strict=True)):
                self._match(one, other, f"{place}[{number}]")
        elif expected != found or type(expected) is not type(found):
            msg = f"{place}: expected {expected!r}, not {found!r}"
            raise Failure(msg)

    def _match_object(self, expected: Mapping[str, Any], found: Any, place: str) -> None:
        if not isinstance(found, Mapping):
            msg = f"{place}: expected an object, not {found!r}"
            raise Failure(msg)
        is_open = "..." in expected
        wanted = {key.removesuffix("?"): value for key, value in expected.items() if key != "..."}
        required = [key for key in expected if not key.endswith("?") and key != "..."]
        missing = [key for key in required if key not in found]
        surplus = [] if is_open else [key for key in found if key not in wanted]
        if missing or surplus:
            msg = f"{place}: missing {missing}, unexpected {surplus} in {json.dumps(found)[:800]}"
            raise Failure(msg)
        order = [key for key in found if key in wanted]
        if self.target.checks_key_order and order != [key for key in wanted if key in found]:
            msg = f"{place}: expected the order {[key for key in wanted if key in found]}, not {order}"
            raise Failure(msg)
        for key in order:
            self._match(wanted[key], found[key], f"{place}.{key}")

    def _match_text(self, expected: str, found: Any, place: str) -> None:
        if expected == "<absent>":
            if found is not None:
                msg = f"{place}: expected none, not {found!r}"
                raise Failure(msg)
            return
        if expected.startswith("@"):
            user = self.names[expected[1:]]
            self._match({"kind?": "communicationUser", "rawId": user, "communicationUser": {"id": user}}, found, place)
            return
        if not isinstance(found, str):
            msg = f"{place}: expected {expected!r}, not {found!r}"
            raise Failure(msg)
        name, _, kind = expected.partition(":") if _WORD.match(expected) and ":<" in expected else (expected, "", "")
        if (word := _WORD.fullmatch(name)) and word[1] not in self.names:
            self._match_text(kind or "<any>", found, place)
            self.names[word[1]] = found
            return
        pattern = "".join(self._pattern(part) for part in re.split(r"(<[a-z]+>|\$[a-z][a-z0-9_]*)", name))
        if not re.fullmatch(pattern, found):
            msg = f"{place}: expected {self._shown(name)!r}, not {found!r}"
            raise Failure(msg)

    def _pattern(self, part: str) -> str:
        if part.startswith("<") and part[1:-1] in KINDS:
            return f"(?:{KINDS[part[1:-1]].removeprefix('(?s)')})"
        if (word := _WORD.fullmatch(part)) and word[1] in self.names:
            return re.escape(str(self.names[word[1]]))
        return re.escape(part)

    def _shown(self, text: str) -> str:
        return _WORD.sub(lambda found: str(self.names.get(found[1], found[0])), text)


def _connect(scheme: str, netloc: str, ca_file: Path | None) -> http.client.HTTPConnection:
    if scheme == "https":
        return http.client.HTTPSConnection(netloc, timeout=60, context=ssl.create_default_context(cafile=ca_file))
    return http.client.HTTPConnection(netloc, timeout=60)
