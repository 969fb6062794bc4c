"""Replays the recorded sessions of the real service against the emulator and compares what comes back.

What a recording does not show (`sanitized` bodies, the caller, what happened before it began) is reconstructed, as the
SDKs' test suites did it.

Run it for the table: `python -m tests.contracts.replay`.
"""

from __future__ import annotations

import asyncio
import json
import re
import urllib.parse
from collections import Counter, defaultdict
from typing import Any

from chatbot.emulator import Emulator, World
from tests.contracts.comparison import ALLOWED, Comparison, Outcome
from tests.contracts.sessions import HIDDEN, ID, STORY, Session, quirks_of, step, stories
from tests.unit.emulator.asgi import Answer, Clock, call, signed

ANY_GUID = "8a5e3ae1-0c9b-4c4a-9b0e-6e5f6d1c2b3a"


class Replay:
    """One story against a fresh emulator."""

    def __init__(self, story: list[Session]) -> None:
        self.evidence = json.dumps([session.exchanges for session in story])
        self.clock = Clock(1_750_000_000.123)
        self.emulator = Emulator(World(quirks=quirks_of(story[0])), clock=self.clock, quotas=False, entra=True)
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
        compare = Comparison(self.known, outcome)
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
            return self._teams_body(session, exchange)
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

    def _teams_body(self, session: Session, exchange: dict[str, Any]) -> dict[str, str]:
        """What the suites' tests sent, which their names tell: the recordings show none of it."""
        name = session.name.lower().replace("_", "")
        body = {"token": self.emulator.entra_token(lifetime=180_000), "appId": ANY_GUID, "userId": ANY_GUID}
        for key, words in (
            ("appId", ("clientid", "appid")),
            ("userId", ("userid", "userobjectid")),
            ("token", ("token.", "aadtoken", "withinvalidtoken", "withemptytoken")),
        ):
            for state, value in (("empty", ""), ("invalid", "invalid"), ("expired", "invalid")):
                if any(re.search(f"{state}[a-z]{{0,9}}{word}", name) for word in words):
                    body[key] = value
        return {key: body[key] for key in exchange["request"]}

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
