"""Replays the recorded sessions of the real service against the emulator and compares what comes back.

Ids are unified: the first time a recorded id meets an emulated one the two are taken for the same, afterwards they must
be. Times and tokens are compared by their form. What a recording does not show (`sanitized` bodies, the caller, what
happened before it began) is reconstructed, as the SDKs' test suites did it.

Run it for the table: `python -m tests.contracts.replay`.
"""

from __future__ import annotations

import asyncio
import json
import re
import urllib.parse
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chatbot.emulator import Emulator, World
from chatbot.emulator.cursors import parse_message_cursor
from tests.unit.emulator.asgi import Answer, Clock, call, signed

RECORDINGS = Path(__file__).parent / "recordings"
HIDDEN = {"sanitized", "REDACTED", "Sanitized", "redacted"}
ANY_GUID = "8a5e3ae1-0c9b-4c4a-9b0e-6e5f6d1c2b3a"

ID = re.compile(r"8:acs:[0-9a-f\-]{36}_[0-9a-f\-]+|19:[\w\-]+@thread\.v2|\b\d{13}\b")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")

ALLOWED = {
    "framing": "2021 and 2022 answers were chunked; since 2023 they carry Content-Length, as the emulator's do",
    "shorter message": "one recording of 2022-10-01 has the error text before its second sentence was added",
    "no trace context": "answers of January 2021 lack Request-Context",
    "no location": "the Python suite's recorder of 2021 removed Location; JavaScript's of the same api-version has it",
    "no echo": "Python's and some of Java's recordings do not show x-ms-client-request-id, asked for or not",
}


@dataclass
class Outcome:
    """One exchange: what differs, and which of the allowed differences."""

    exchange: str
    differences: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)


@dataclass
class Session:
    """A recorded session."""

    name: str
    exchanges: list[dict[str, Any]]

    @property
    def thread(self) -> str | None:
        """The thread a session is about, if the recording shows it."""
        for exchange in self.exchanges:
            for text in (exchange["uri"], json.dumps(exchange["response"])):
                match = re.search(r"19:[\w\-]+@thread\.v2", urllib.parse.unquote(text))
                if match:
                    return match[0]
        return None


def sessions() -> list[Session]:
    """All recorded sessions."""
    return [
        Session(document["session"], document["exchanges"])
        for path in sorted(RECORDINGS.glob("*.jsonl"))
        for document in map(json.loads, path.read_text().splitlines())
    ]


# The order of the JavaScript suite, whose sessions are cut out of one story each: later tests use the thread, message
# and participants of earlier ones.
STORY = (
    "initializes_chatthreadclient",
    "creates_a_thread",
    "gets_the_thread_properties",
    "updates_the_thread_topic",
    "updates_the_thread_metadata",
    "sends_a_message",
    "retrieves_a_message",
    "lists_messages",
    "sends_typing",
    "sends_read_receipt",
    "lists_read_receipts",
    "adds_participants",
    "lists_participants",
    "remove_a_participant",
    "deletes_a_message",
    "deletes_a_thread",
)


def stories() -> Iterator[list[Session]]:
    """Sessions that share a thread, in the order in which they happened; every other session alone."""
    shared: dict[str, list[Session]] = defaultdict(list)
    for session in sessions():
        thread = session.thread
        if session.name.startswith("js/") and thread:
            shared[thread].append(session)
        else:
            yield [session]
    for group in shared.values():
        yield sorted(group, key=lambda session: step(session.name))


def step(name: str) -> int:
    """A session's place in the story."""
    return next((number for number, part in enumerate(STORY) if part in name), 0)


class Replay:
    """One story against a fresh emulator."""

    def __init__(self, story: list[Session]) -> None:
        self.evidence = json.dumps([session.exchanges for session in story])
        self.clock = Clock(1_750_000_000.123)
        self.emulator = Emulator(World(), clock=self.clock, quotas=False)
        self.known: dict[str, str] = {}
        self.users: list[str] = []
        self.tokens: dict[str, str] = {}
        self.thread = ""
        self.creator = ""
        self.messages: list[str] = []
        self.next_link = ""
        self.done = 0

    async def run(self, session: Session) -> list[Outcome]:
        """Replay a session after whatever must have happened before it."""
        self._prepare(session)
        return [await self._exchange(session, exchange) for exchange in session.exchanges]

    # What happened before the recording began

    def _prepare(self, session: Session) -> None:
        wanted = step(session.name)
        if (
            not session.name.startswith("js/")
            or session.thread is None
            or wanted < STORY.index("gets_the_thread_properties")
        ):
            self.done = max(self.done, wanted)
            return
        while self.done < wanted:
            self._silently(STORY[self.done], session)
            self.done += 1
        self.done = wanted + 1

    def _silently(self, part: str, session: Session) -> None:
        emulator, thread, creator = self.emulator, self.thread, self.creator
        match part:
            case "creates_a_thread" if not thread:
                self.users = [emulator.create_user(), emulator.create_user()]
                self.creator = self.users[0]
                metadata = (
                    {"threadType": "primary", "secondaryThread": "test-id"}
                    if "secondaryThread" in self.evidence
                    else {}
                )
                self.thread = emulator.create_thread(self.creator, "test topic", self.users[1:], metadata=metadata)
                self.known[session.thread or ""] = self.thread
            case "updates_the_thread_topic":
                emulator.set_topic(thread, creator, "new topic")
            case "sends_a_message":
                self.messages.append(str(emulator.send(thread, creator, "content", metadata={"tags": "sometag"})))
            case "sends_read_receipt":
                emulator.read(thread, creator, int(self.messages[-1]))
            case "adds_participants":
                self.users.append(emulator.create_user())
                metadata = {"userType": "C2"} if "userType" in self.evidence else {}
                emulator.add(thread, creator, self.users[-1], metadata=metadata)
        self.clock.advance(1)

    # One exchange

    async def _exchange(self, session: Session, exchange: dict[str, Any]) -> Outcome:
        self.clock.advance(1)
        path = exchange["uri"].removeprefix("https://endpoint")
        outcome = Outcome(f"{exchange['method']} {_shape(path)}")
        target = self.next_link if self.next_link and "syncState" in path else self._target(path, exchange)
        answer = await self._call(session, exchange, target)
        compare = Comparison(self, outcome)
        compare.all(exchange, answer)
        self._learn(exchange, answer)
        return outcome

    def _target(self, path: str, exchange: dict[str, Any]) -> str:
        raw, _, query = path.partition("?")
        parts = raw.split("/")
        for place, part in enumerate(parts):
            text = urllib.parse.unquote(part)
            hidden = text in HIDDEN
            if place and parts[place - 1] == "threads" and (hidden or text.startswith("19:")):
                parts[place] = urllib.parse.quote(self.known.get(text, self.thread))
            elif place and parts[place - 1] == "messages" and (hidden or text.isdigit()):
                parts[place] = self.known.get(text, self.messages[-1] if self.messages else "0")
            elif place and parts[place - 1] == "identities" and (hidden or text.startswith("8:")):
                parts[place] = self._user(text, exchange)
        return "/".join(parts) + f"?{query}"

    def _user(self, text: str, exchange: dict[str, Any]) -> str:
        if text in self.known:
            return self.known[text]
        if exchange["status"] == 401:  # the test used somebody else's user
            return f"8:acs:{ANY_GUID}_0000001c-0000-0000-0000-000000000000"
        living = [user for user in self.users if self.emulator.world.state.users[user].deleted is None]
        return living[-1]

    async def _call(self, session: Session, exchange: dict[str, Any], target: str) -> Answer:
        body = self._body(session, exchange, target)
        raw = target.partition("?")[0]
        headers = {key: value for key, value in exchange["request_headers"].items() if key != "content-type"}
        if raw.startswith("/chat"):
            token = self._token(self.creator or self.users[0])
            return await call(self.emulator, exchange["method"], target, body, token=token, headers=headers)
        headers |= {"x-ms-client-request-id": "id", "x-ms-return-client-request-id": "true"}
        plain = urllib.parse.unquote(raw)
        return await signed(self.emulator, exchange["method"], plain, body, version=_version(exchange), headers=headers)

    def _token(self, user: str) -> str:
        if user not in self.tokens:
            self.tokens[user] = self.emulator.issue_token(user).text
        return self.tokens[user]

    def _body(self, session: Session, exchange: dict[str, Any], target: str) -> Any:
        recorded = exchange["request"]
        if exchange["method"] in {"GET", "DELETE"} or recorded == "":
            return None
        if target.startswith("/teamsUser"):
            return self._teams_body(exchange)
        if recorded is None and "accessToken" in (exchange["response"] or {}):
            return {"createTokenWithScopes": ["chat"]}
        if recorded is None:
            reconstructed = {":issueAccessToken": {"scopes": ["chat"]}, "typing": {}}
            return reconstructed.get(target.partition("?")[0].rpartition("/")[2])
        return self._translated(recorded, session, target)

    def _translated(self, value: Any, session: Session, target: str) -> Any:
        if isinstance(value, dict):
            return {key: self._field(key, item, session, target) for key, item in value.items()}
        if isinstance(value, list):
            return [self._translated(item, session, target) for item in value]
        if isinstance(value, str):
            return ID.sub(lambda match: self._translated_id(match[0]), value)
        return value

    def _field(self, key: str, value: Any, session: Session, target: str) -> Any:
        if isinstance(value, str) and value in HIDDEN:
            if key == "participants":
                if "no_participants" in session.name:
                    return []
                users = self.users[-1:] if ":add" in target else self.users[:1]
                return [{"communicationIdentifier": {"communicationUser": {"id": user}}} for user in users]
            if key == "chatMessageId":
                return self.messages[-1]
        return self._translated(value, session, target)

    def _translated_id(self, text: str) -> str:
        if text in self.known:
            return self.known[text]
        if text.startswith("8:"):
            return self.known.setdefault(text, self.users[1])  # the JavaScript suite removes its second user
        return self.messages[-1] if text.isdigit() and self.messages else text

    def _teams_body(self, exchange: dict[str, Any]) -> dict[str, str]:
        body = {"token": self._entra_token(), "appId": ANY_GUID, "userId": ANY_GUID}
        if exchange["status"] == 401:
            body["token"] = "invalid" if "appId" in exchange["request"] else "invalid-too"
        elif exchange["status"] == 400:
            error = exchange["response"]["error"]
            name = error["target"][0].lower() + error["target"][1:]
            body[name] = "" if "required" in error["message"] else "invalid"
        return {key: body[key] for key in exchange["request"]}

    def _entra_token(self) -> str:
        user = self.emulator.create_user()
        return self.emulator.issue_token(user, minutes=3000).text

    def _learn(self, exchange: dict[str, Any], answer: Answer) -> None:
        if answer.status != 201 and answer.status != 200:
            return
        body = answer.json if answer.body else {}
        if "identity" in body:
            self.users.append(body["identity"]["id"])
        if "chatThread" in body:
            self.thread = body["chatThread"]["id"]
            self.creator = body["chatThread"]["createdByCommunicationIdentifier"]["rawId"]
        if exchange["method"] == "POST" and set(body) == {"id"}:
            self.messages.append(body["id"])
        link = body.get("nextLink", "")
        self.next_link = link.removeprefix("https://emulator.test")


class Comparison:
    """Compares a recorded answer with the emulator's."""

    def __init__(self, replay: Replay, outcome: Outcome) -> None:
        self._known = replay.known
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


def _version(exchange: dict[str, Any]) -> str:
    match = re.search(r"api-version=([^&]*)", exchange["uri"])
    return match[1] if match else ""


def _shape(path: str) -> str:
    raw = urllib.parse.unquote(path.partition("?")[0])
    for hidden in HIDDEN:
        raw = raw.replace(hidden, "{id}")
    return ID.sub("{id}", raw)


async def replay_all() -> list[tuple[Session, list[Outcome]]]:
    """Every session and what came of it."""
    results: list[tuple[Session, list[Outcome]]] = []
    for story in stories():
        replay = Replay(story)
        results += [(session, await replay.run(session)) for session in story]
    return results


def table(results: list[tuple[Session, list[Outcome]]]) -> str:
    """Sessions, exchanges, equal, differing with the reason."""
    lines = [f"{'recordings':38} {'sessions':>8} {'exchanges':>9} {'equal':>6} {'allowed':>8} {'differing':>9}"]
    groups: dict[str, list[list[Outcome]]] = defaultdict(list)
    for session, outcomes in results:
        groups["/".join(session.name.split("/")[:2])].append(outcomes)
        groups["all"].append(outcomes)
    for name, parts in sorted(groups.items(), key=lambda item: (item[0] == "all", item[0])):
        flat = [outcome for outcomes in parts for outcome in outcomes]
        differing = sum(bool(one.differences) for one in flat)
        allowed = sum(bool(one.allowed) and not one.differences for one in flat)
        equal = len(flat) - differing - allowed
        lines.append(f"{name:38} {len(parts):8} {len(flat):9} {equal:6} {allowed:8} {differing:9}")
    reasons = Counter(name for _, outcomes in results for one in outcomes for name in one.allowed)
    lines += ["", "Allowed differences:"]
    lines += [f"{count:6} {name}: {ALLOWED[name]}" for name, count in reasons.most_common()]
    lines += [
        f"DIFFERS {session.name}\n    {outcome.exchange}\n    {text}"
        for session, outcomes in results
        for outcome in outcomes
        for text in outcome.differences
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(asyncio.run(replay_all())))
