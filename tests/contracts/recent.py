"""Replays the sessions recorded since November 2023: every exchange, in the order of time, with all of its headers.

Requests go out as they were recorded, with the recorded ids replaced by the emulator's. What a recording does not show
is looked up: who asked (in the answers of its run), what a hidden id stood for (the latest of its kind, or
`HIDDEN_USERS`), and what had happened before the first exchange (threads, messages and participants that only its
answers show).
"""

from __future__ import annotations

import json
import re
import urllib.parse
from collections import defaultdict
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

from chatbot.emulator import Emulator, World
from tests.contracts.comparison import Comparison, Outcome
from tests.contracts.sessions import HIDDEN, ID, Session, quirks_of, sessions
from tests.unit.emulator.asgi import Answer, Clock, call, signed

GUID = "8a5e3ae1-0c9b-4c4a-9b0e-6e5f6d1c2b3a"
OTHER_GUID = "00000000-0c9b-4c4a-9b0e-6e5f6d1c2b3a"
EMULATOR = "https://emulator.test"
_HOST = re.compile(r"^https://(?!global\.)[^/]+/+")

HIDDEN_USERS = {
    "test_chat_add_participant_bad_user.yaml": {
        2: "8:acs:00000000-1111-2222-3333-444444444444_55555555-6666-7777-8888-999999999999",
        3: "8:acs:fakeid===",
    },
    "test_chat_remove_participants.yaml": {3: 1, 4: 1, 5: "8:acs:fakeid", 6: 0, 7: 0, 8: 0, 9: 0, 10: 0},
    "test_chat_add_participant_with_history_time.yaml": {3: 1},
}
"""Whom the hidden ids of a session stand for, by exchange: an id, or the number of a user of the session."""


def runs() -> Iterator[list[Session]]:
    """Sessions that were one run of a suite and share threads, in the order of time; every other session alone."""
    shared: dict[str, list[Session]] = defaultdict(list)
    for session in sessions(since_2024=True):
        run = session.name.rpartition("/")[0]
        key = run if session.name.startswith("js/") else session.name
        shared[f"{key} {quirks_of(session)}"].append(session)
    for group in shared.values():
        yield sorted(group, key=lambda one: parsedate_to_datetime(one.exchanges[0]["response_headers"]["date"]))


class Strict(Comparison):
    """Compares every header, too."""

    def __init__(self, known: dict[str, str], outcome: Outcome, exchange: dict[str, Any], session: Session) -> None:
        super().__init__(known, outcome)
        self._exchange = exchange
        self._session = session

    def _headers(self, recorded: dict[str, str], answer: Answer) -> None:
        theirs = dict(recorded)
        ours = {name: value for name, value in answer.headers.items() if name not in {"date", "x-processing-time"}}
        for name in ("date", "x-processing-time"):
            if name not in answer.headers or theirs.pop(name, None) is None:
                self._differs(f"header {name}", recorded.get(name), answer.headers.get(name))
        if self._session.name.startswith("cli/") and ours.pop("x-ms-client-request-id", None) is not None:
            self._allowed("no echo")
        if set(theirs) != set(ours):
            self._differs("headers", sorted(set(theirs) - set(ours)), sorted(set(ours) - set(theirs)))
        for name in set(theirs) & set(ours):
            self._one_header(name, theirs[name], ours[name])

    def _one_header(self, name: str, theirs: str, own: str) -> None:
        if name == "location":
            if theirs == "https://REDACTED.com":
                return
            self._text("header location", urllib.parse.unquote(theirs), urllib.parse.unquote(own))
            if theirs.count("%") != own.count("%"):
                self._differs("escapes of location", theirs, own)
        elif name == "api-supported-versions":
            if theirs != own:
                listed = own.split(", ")
                dropped = {"2021-02-22-preview1"}
                if set(theirs.split(", ")) - dropped <= set(listed) and "/2025-06" not in self._session.name:
                    self._allowed("fewer versions")
                else:
                    self._differs("header api-supported-versions", theirs, own)
        elif name == "ms-cv":
            if theirs not in HIDDEN and theirs.partition(".")[2] != own.partition(".")[2]:
                self._differs("header ms-cv", theirs, own)
        elif name == "content-length":
            elided = (*HIDDEN, "expiresOn", "nextLink")  # a link has the host's name
            whole = not any(word in json.dumps(self._exchange["response"]) for word in elided)
            if whole and not self._session.name.startswith("cli/") and theirs != own:
                self._differs("header content-length", theirs, own)
        elif name not in {"x-azure-ref", "x-ms-client-request-id", "mise-correlation-id"} and theirs != own:
            self._differs(f"header {name}", theirs, own)

    def _text(self, place: str, theirs: str, own: str) -> None:
        super()._text(place, _HOST.sub(f"{EMULATOR}/", theirs), own)


class RecentReplay:
    """One run against a fresh emulator."""

    def __init__(self, run: list[Session]) -> None:
        self.clock = Clock(1_750_000_000.123)
        self.emulator = Emulator(World(quirks=quirks_of(run[0])), clock=self.clock, quotas=False, entra=True)
        self.answers = [exchange["response"] for session in run for exchange in session.exchanges]
        self.known: dict[str, str] = {}
        self.users: list[str] = []
        self.threads: list[str] = []
        self.messages: list[str] = []
        self.next_link = ""

    async def run(self, session: Session) -> list[Outcome]:
        """Replay the exchanges of a session."""
        first = len(self.users)
        return [await self._exchange(session, number, first) for number in range(len(session.exchanges))]

    async def _exchange(self, session: Session, number: int, first_user: int) -> Outcome:
        exchange = session.exchanges[number]
        self.clock.advance(1)
        path = re.sub(r"https://[^/]+/+", "/", exchange["uri"])
        outcome = Outcome(f"#{number} {exchange['method']} {path[:60]}")
        self._before(exchange, path)
        if exchange["status"] == 429:
            waits = exchange["response_headers"]["retry-after"]
            self.emulator.faults.add(f"update_thread:429,retry-after={waits},times=1")
        target = self.next_link if "syncState" in path and self.next_link else self._target(path)
        hidden = HIDDEN_USERS.get(session.name.rpartition("/")[2], {}).get(number)
        if isinstance(hidden, int):
            hidden = self.users[first_user + hidden]
        answer = await self._call(session, exchange, target, hidden)
        Strict(self.known, outcome, exchange, session).all(exchange, answer)
        self._learn(exchange, answer)
        return outcome

    # What was there before

    def _before(self, exchange: dict[str, Any], path: str) -> None:
        identity = exchange["response"].get("identity", {}) if exchange["response"] else {}
        if "lastTokenIssuedAt" in identity and "accessToken" not in exchange["response"]:
            user = self.emulator.world.identities.create(self.emulator.now(), identity["customId"])
            self.emulator.world.identities.note_token(user.id, self.emulator.now())
        thread = next(iter(re.findall(r"19:[\w\-]+@thread\.v2", urllib.parse.unquote(path))), None)
        if thread is None:
            return
        if thread not in self.known:
            self._make_thread(thread, exchange)
        own = self.known[thread]
        creator = self.emulator.world.state.room(own).head.creator
        is_send = exchange["method"] == "POST" and path.partition("?")[0].endswith("/messages")
        if is_send and exchange["response"] and exchange["response"].get("id") not in HIDDEN:
            self._catch_up(own, creator, self._shown(exchange["response"]["id"]))
        number = re.search(r"/messages/(\d{13})", path)
        if number and number[1] not in self.known:
            shown = self._shown(number[1]) or {}
            self._catch_up(own, creator, shown)
            text = shown.get("content", {}).get("message", "content")
            sent = self.emulator.send(own, creator, text, metadata=shown.get("metadata"))
            self.known[number[1]] = str(sent)
        self._seat(exchange, own, creator)
        topic = exchange["response"].get("topic") if exchange["method"] == "GET" and exchange["response"] else None
        if topic and topic != self.emulator.world.state.room(own).head.topic:
            self.emulator.set_topic(own, creator, topic)

    def _make_thread(self, thread: str, exchange: dict[str, Any]) -> None:
        """A thread that was created before the run's first exchange."""
        bodies = [one for one in self.answers if isinstance(one, dict)]
        head = next((one for one in bodies if one.get("id") == thread), {})
        creator = head.get("createdByCommunicationIdentifier", {}).get("rawId") or self._sender(bodies)
        owner = self._user(creator) if creator else self.emulator.create_user()
        version = "2025-03-15" if "2025" in exchange["uri"] else "2024-03-15-preview"
        self.known[thread] = self.emulator.create_thread(
            owner, head.get("topic", "test topic"), metadata=head.get("metadata") if version else None
        )
        self.threads.append(self.known[thread])

    @staticmethod
    def _sender(bodies: list[dict[str, Any]]) -> str:
        for body in bodies:
            for item in (body, *body.get("value", ())):
                for key in ("senderCommunicationIdentifier", "communicationIdentifier"):
                    if key in item:
                        return str(item[key]["rawId"])
        return ""

    def _seat(self, exchange: dict[str, Any], thread: str, creator: str) -> None:
        """Let those join, and read, of whom only a list tells."""
        listed = exchange["response"].get("value", []) if isinstance(exchange["response"], dict) else []
        for item in listed:
            person = item.get("communicationIdentifier", {}).get("rawId", "")
            if (
                person.startswith("8:acs:")
                and self.emulator.world.state.room(thread).member(self._user(person)) is None
            ):
                metadata = item.get("metadata")
                self.emulator.add(
                    thread, creator, self._user(person), display_name=item.get("displayName"), metadata=metadata
                )
            reader = item.get("senderCommunicationIdentifier", {}).get("rawId", "")
            if "chatMessageId" in item and reader.startswith("8:acs:") and item["chatMessageId"] not in self.known:
                sent = self.emulator.send(thread, creator, "content")
                self.known[item["chatMessageId"]] = str(sent)
                self.emulator.read(thread, self._user(reader), sent)

    def _shown(self, number: str) -> dict[str, Any] | None:
        for body in self.answers:
            if isinstance(body, dict):
                for item in (body, *body.get("value", ())):
                    if item.get("id") == number and "sequenceId" in item:
                        return dict(item)
        return None

    def _catch_up(self, thread: str, creator: str, shown: dict[str, Any] | None) -> None:
        """As many events as had happened before this message."""
        while shown and self.emulator.world.state.room(thread).sequence < int(shown["sequenceId"]) - 1:
            self.emulator.set_topic(thread, creator, "new topic")

    def _user(self, recorded: str) -> str:
        if recorded not in self.known:
            self.known[recorded] = self.emulator.create_user()
        return self.known[recorded]

    # One request

    def _target(self, path: str) -> str:
        raw, _, query = path.partition("?")
        parts = raw.split("/")
        for place, part in enumerate(parts):
            text = urllib.parse.unquote(part)
            latest = {"threads": self.threads, "messages": self.messages, "identities": self.users}
            kind = parts[place - 1] if place else ""
            if kind in latest and text in HIDDEN:
                found = latest[kind]
                parts[place] = urllib.parse.quote(found[-1] if found else "sanitized")
            elif text in self.known:
                parts[place] = urllib.parse.quote(self.known[text])
        return "/".join(parts) + (f"?{query}" if query else "")

    async def _call(self, session: Session, exchange: dict[str, Any], target: str, hidden: str | None) -> Answer:
        body = self._translated(exchange["request"], hidden)
        headers = {
            key.lower(): value if value not in HIDDEN else "id"
            for key, value in exchange["request_headers"].items()
            if key.lower() not in {"content-type", "authorization", "x-ms-content-sha256", "x-ms-date", "host"}
        }
        if "browsers_" in session.name:
            headers["origin"] = "http://localhost:9876"
        if exchange["request"] is None:
            body = None
        raw = target.partition("?")[0]
        if raw.startswith("/chat"):
            token = self.emulator.issue_token(self._caller(exchange, target)).text
            if headers.get("repeatability-request-id") == "id":
                headers["repeatability-request-id"] = f"id-{self.clock.seconds}"
            return await call(self.emulator, exchange["method"], target, body, token=token, headers=headers)
        headers["x-ms-client-request-id"] = "id"
        if raw.startswith("/teamsUser"):
            body = self._teams_body(session, exchange)
        elif "invalid_user" in session.name:
            target = f"/identities/8:acs:{GUID}_0000001c-0000-0000-0000-000000000000/{raw.rpartition('/')[2]}"
            raw = target
        version = re.search(r"api-version=([^&]*)", exchange["uri"])
        plain = urllib.parse.unquote(raw)
        return await signed(
            self.emulator, exchange["method"], plain, body, version=version[1] if version else "", headers=headers
        )

    def _translated(self, value: Any, hidden: str | None) -> Any:
        if isinstance(value, dict):
            raw = value.get("rawId")
            result = {key: self._translated(item, hidden) for key, item in value.items()}
            inner = value.get("communicationUser")
            if isinstance(inner, dict) and inner.get("id") in HIDDEN:
                shown = self._user(raw) if raw and raw not in HIDDEN else hidden or self.users[-1]
                result["communicationUser"] = {"id": shown}
                if "rawId" in result:
                    result["rawId"] = shown
            return result
        if isinstance(value, list):
            return [self._translated(item, hidden) for item in value]
        if isinstance(value, str):
            return ID.sub(self._own_id, value)
        return value

    def _own_id(self, match: re.Match[str]) -> str:
        text = match[0]
        if text.startswith("8:"):
            return self._user(text) if text in self.known or text in json.dumps(self.answers) else text
        return self.known.get(text, text)

    def _teams_body(self, session: Session, exchange: dict[str, Any]) -> dict[str, str]:
        """The suites of .NET and JavaScript say in a test's name what is wrong with the request."""
        token = self.emulator.entra_token(
            app=OTHER_GUID if "WrongClientId" in session.name else GUID,
            user=OTHER_GUID if "WrongUserObjectId" in session.name else GUID,
        )
        named = {"token": token, "appId": GUID, "userId": GUID}
        return {key: value if value not in HIDDEN else named[key] for key, value in exchange["request"].items()}

    def _caller(self, exchange: dict[str, Any], target: str) -> str:
        """Who asked, as the answers tell: the creator, the sender of a message, or the reader of a receipt."""
        response = exchange["response"] if isinstance(exchange["response"], dict) else {}
        made = response.get("chatThread")
        if made:
            raw = made["createdByCommunicationIdentifier"]["rawId"]
            return self._user(raw) if raw not in HIDDEN else self.users[0]
        number = response.get("id") if exchange["method"] == "POST" else None
        named = re.search(r"/messages/(\d+)", exchange["uri"])
        if named and exchange["method"] in {"PATCH", "DELETE"}:
            number = named[1]
        shown = self._shown(number) if number else None
        if shown and shown.get("senderCommunicationIdentifier", {}).get("rawId") not in HIDDEN:
            return self._user(shown["senderCommunicationIdentifier"]["rawId"])
        receipt = (exchange["request"] or {}).get("chatMessageId") if isinstance(exchange["request"], dict) else None
        for body in self.answers if receipt else ():
            for item in body.get("value", ()) if isinstance(body, dict) else ():
                if item.get("chatMessageId") == receipt:
                    raw = item["senderCommunicationIdentifier"]["rawId"]
                    return self._user(raw) if raw not in HIDDEN else self.users[-1]
        thread = urllib.parse.unquote(target).split("/")[3].partition("?")[0] if target.count("/") > 2 else ""
        room = self.emulator.world.state.rooms.get(thread)
        if room is not None:
            return room.head.creator
        if self.threads:
            return self.emulator.world.state.rooms[self.threads[0]].head.creator
        return self.users[0]

    def _learn(self, exchange: dict[str, Any], answer: Answer) -> None:
        if answer.status not in {200, 201}:
            return
        body = answer.json if answer.body else {}
        if "identity" in body and body["identity"]["id"] not in self.users:
            self.users.append(body["identity"]["id"])
        if "chatThread" in body:
            self.threads.append(body["chatThread"]["id"])
            theirs = exchange["response"]["chatThread"]["id"]
            location = urllib.parse.unquote(exchange["response_headers"].get("location", ""))
            for text in (theirs, *ID.findall(location)):
                if text not in HIDDEN:
                    self.known[text] = body["chatThread"]["id"]
        if exchange["method"] == "POST" and set(body) == {"id"}:
            self.messages.append(body["id"])
        self.next_link = body.get("nextLink", "").removeprefix(EMULATOR)


async def replay_recent() -> list[tuple[Session, list[Outcome]]]:
    """Every session since November 2023 and what came of it."""
    results: list[tuple[Session, list[Outcome]]] = []
    for run in runs():
        replay = RecentReplay(run)
        results += [(session, await replay.run(session)) for session in run]
    return results
