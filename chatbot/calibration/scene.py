"""The stage of a probe: its throw-away users and threads, its limits, and what changes while it runs.

Every request passes the meter, which ends the probe at its limits. Waiting is done with `pause` alone, because watches
(how long is a revoked token accepted?) look again meanwhile.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Container
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote, urlencode

import anyio

from chatbot.calibration.findings import Findings
from chatbot.calibration.intents import IDENTITY_VERSIONS, Cleanup, IntentJournal, wait_of
from chatbot.errors import ProtocolError, ServiceError, Throttled
from chatbot.model import MessageId, Participant, ThreadId, UserId
from chatbot.service.acs import AcsResource
from chatbot.service.base import ChatService
from chatbot.service.credentials import StaticToken
from chatbot.service.raw_requests import RawResponse

MAX_REQUESTS: Final = 250
MAX_SECONDS: Final = 180.0
CLEANUP_REQUESTS: Final = 45
"""Kept back for the cleanup."""

CLEANUP_SECONDS: Final = 25.0
"""Kept back for the cleanup; more if the service is slow."""

AGES: Final = (0.0, 0.5, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 110.0)
"""Seconds at which a watch looks again."""

CHAT_VERSIONS: Final = ("2025-03-15", "2024-03-07")
SENDS: Final = 9
"""Messages in ten seconds and thread: below the documented quota of ten."""


class LimitReached(Exception):
    """The probe has used up its requests or its time."""


class Meter:
    """Counts requests and time.

    Args:
        clock: returns seconds, on the event loop's clock.
        requests: the limit of the observations; the cleanup may use `CLEANUP_REQUESTS` more.
    """

    def __init__(self, clock: Callable[[], float], requests: int = MAX_REQUESTS - CLEANUP_REQUESTS) -> None:
        self._clock = clock
        self._begun = clock()
        self._limit = requests
        self.count = 0
        self.is_cleaning = False

    @property
    def seconds(self) -> float:
        """Return for how long the probe has run."""
        return self._clock() - self._begun

    def take(self) -> None:
        """Count a request.

        Raises:
            LimitReached: it may not be sent.
        """
        if not self.is_cleaning:
            if self.count >= self._limit:
                msg = f"the limit of {self._limit} requests was reached"
                raise LimitReached(msg)
            needed = CLEANUP_REQUESTS * self.seconds / max(1, self.count)
            if self.seconds > MAX_SECONDS - max(CLEANUP_SECONDS, needed):
                msg = f"the limit of {MAX_SECONDS:.0f} s was near"
                raise LimitReached(msg)
        self.count += 1


@dataclass(frozen=True, slots=True)
class ProbeUser:
    """A throw-away user."""

    name: str
    intent: str
    user: UserId
    token: str


@dataclass(slots=True)
class Watch:
    """Something that ends on its own after a time that is sought.

    Args:
        quirk: the quirk that names this time.
        what: what is watched, for the report.
        check: returns whether it still lasts.
        since: when it began.
        ages: when to look, in seconds since it began.
    """

    quirk: str
    what: str
    check: Callable[[], Awaitable[bool]]
    since: float
    ages: tuple[float, ...] = AGES
    last_seen: float = 0.0
    first_gone: float | None = None
    looks: int = 0

    @property
    def next_at(self) -> float:
        """Return when to look next."""
        later = [age for age in self.ages if self.looks == 0 or age > self.last_seen + 0.01]
        return self.since + later[0] if later and self.first_gone is None else float("inf")


class Scene:
    """Users, threads and requests of one probe.

    Args:
        resource: the resource, entered; its transport asks the meter.
        journal: records what is created.
        meter: counts requests.
        clock: returns epoch seconds.
    """

    def __init__(self, resource: AcsResource, journal: IntentJournal, meter: Meter, clock: Callable[[], float]) -> None:
        self.resource = resource
        self.raw = resource.raw_requests()
        self.journal = journal
        self.meter = meter
        self.clock = clock
        self.findings = Findings()
        self.version = CHAT_VERSIONS[0]
        self.lag = 0.0
        """How far the service's clock is ahead when it handles a request that is sent now, in seconds."""
        self.run = uuid.uuid4().hex[:12]
        self._identity_version = IDENTITY_VERSIONS[0]
        self._users: dict[str, ProbeUser] = {}
        self._watches: list[Watch] = []
        self._sends: dict[str, list[float]] = {}
        self._is_looking = False
        self._names: dict[str, str] = {}

    # Users and threads

    async def user(self, name: str) -> ProbeUser:
        """Return the throw-away user of this name, created at the first call."""
        if name not in self._users:
            intent, user = await self._create_user(name)
            token = await self._issue_token(user)
            self._users[name] = ProbeUser(name, intent, user, token)
            self._names[user] = f"<user {name}>"
        return self._users[name]

    async def users(self, *names: str) -> list[ProbeUser]:
        """Return several users."""
        return [await self.user(name) for name in names]

    async def _create_user(self, name: str) -> tuple[str, UserId]:
        while True:
            version = self._identity_version
            has_custom_id = version != IDENTITY_VERSIONS[-1]
            custom_id = f"chatbot-probe-{self.run}-{name}" if has_custom_id else ""
            intent = await self.journal.plan_user(custom_id, version)
            body = {"customId": custom_id} if custom_id else None
            response = await self.identity("POST", f"/identities?api-version={version}", body)
            user = response.json.get("identity", {}).get("id")
            if response.status == 201 and isinstance(user, str):
                await self.journal.know_user(intent, user)
                return intent, UserId(user)
            await self.journal.lose_user(intent)
            place = IDENTITY_VERSIONS.index(version) + 1
            if response.status not in (400, 404) or place == len(IDENTITY_VERSIONS):
                msg = f"cannot create a user: the identity service answered {response.status} {response.code}"
                raise ProtocolError(msg)
            self._identity_version = IDENTITY_VERSIONS[place]

    async def _issue_token(self, user: str) -> str:
        target = f"/identities/{user}/:issueAccessToken?api-version={self._identity_version}"
        response = await self.identity("POST", target, {"scopes": ["chat"]})
        token = response.json.get("token")
        if not isinstance(token, str):
            msg = f"cannot issue a token: the identity service answered {response.status} {response.code}"
            raise ProtocolError(msg)
        return token

    async def thread(self, creator: ProbeUser, topic: str, *others: ProbeUser) -> ThreadId:
        """Create a thread."""
        key = str(uuid.uuid4())
        people = [Participant(one.user, one.name) for one in others]
        await self.journal.plan_thread(key, creator.intent)
        created = await self.patiently(
            lambda: self.chat_of(creator).create_thread(f"probe: {topic}", people, repeatability_id=key)
        )
        thread: ThreadId = created.thread.id
        await self.journal.know_thread(key, thread)
        self._names[thread] = f"<thread {topic}>"
        return thread

    def chat_of(self, user: ProbeUser) -> ChatService:
        """Return a user's client of the service: the official SDK."""
        return self.resource.chat(user.user, StaticToken(user.token, clock=self.clock))

    async def forget_user(self, user: ProbeUser) -> None:
        """Note that a user was deleted."""
        await self.journal.lose_user(user.intent)

    async def say(self, user: ProbeUser, thread: ThreadId, text: str, metadata: dict[str, str] | None = None) -> int:
        """Send a message within the quota; return its id."""
        await self._pace(thread)
        chat = self.chat_of(user)
        before = self.clock()
        message = int(await self.patiently(lambda: chat.send_message(thread, text, metadata=metadata)))
        self.lag = message / 1000 - before
        return message

    async def edit(self, user: ProbeUser, thread: ThreadId, message: int, text: str) -> None:
        """Edit a message within the quota."""
        await self._pace(thread)
        chat = self.chat_of(user)
        await self.patiently(lambda: chat.edit_message(thread, MessageId(str(message)), content=text))

    async def pace(self, thread: ThreadId) -> None:
        """Wait until a message may be sent to a thread, and count it."""
        await self._pace(thread)

    async def _pace(self, thread: ThreadId) -> None:
        times = self._sends.setdefault(thread, [])
        if len(times) >= SENDS and (wait := times[-SENDS] + 10.1 - self.clock()) > 0:
            await self.pause(wait)
        times.append(self.clock())

    # Requests

    async def identity(
        self, method: str, target: str, body: dict[str, Any] | None = None, *, signed_at: float | None = None
    ) -> RawResponse:
        """Send a request to the identity service."""
        return await self.raw.identity(method, target, body, signed_at=signed_at)

    async def ask(
        self,
        user: ProbeUser,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        query: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        token: str | None = None,
        version: str | None = None,
        is_patient: bool = True,
    ) -> RawResponse:
        """Send a chat request as a user, and return the response, whatever it is.

        Args:
            path: below `/chat/threads`, percent-encoded.
            query: besides the api-version.
            token: in place of the user's own.
            version: in place of the probe's api-version.
            is_patient: wait and repeat when the service throttles.
        """
        known = urlencode({**(query or {}), "api-version": version or self.version})
        target = f"/chat/threads{path}?{known}"
        response = await self.raw.chat(method, target, user.token if token is None else token, body, headers)
        for _ in range(3 if is_patient else 0):
            if response.status not in (429, 503):
                break
            await self.pause(wait_of(response, 10.5))
            response = await self.raw.chat(method, target, user.token if token is None else token, body, headers)
        return response

    async def follow(self, user: ProbeUser, link: str) -> RawResponse:
        """Follow a nextLink, at the resource that is probed whatever host it names."""
        _, _, rest = link.partition("/chat/threads")
        return await self.raw.chat("GET", f"/chat/threads{rest}", user.token)

    async def patiently(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Call the SDK; wait and repeat when the service throttles."""
        for _ in range(3):
            try:
                return await call()
            except Throttled as error:
                await self.pause(min(15.0, (error.retry_after or 10.0) + 0.5))
        return await call()

    # Time

    async def pause(self, seconds: float) -> None:
        """Wait; watches that are due look meanwhile."""
        end = self.clock() + max(0.0, seconds)
        while True:
            await self.look()
            now = self.clock()
            if now >= end:
                return
            due = min([end, *(one.next_at for one in self._watches)]) if not self._is_looking else end
            await anyio.sleep(max(0.001, due - now))

    async def until_fraction(self, fraction: float, lag: float) -> None:
        """Wait until a request that is sent now arrives at this fraction of a second of the service's clock.

        Args:
            fraction: of a second.
            lag: how far the service's clock is ahead when it handles a request that is sent now.
        """
        await self.pause((fraction - (self.clock() + lag)) % 1.0)

    def watch(
        self, quirk: str, what: str, check: Callable[[], Awaitable[bool]], ages: tuple[float, ...] = AGES
    ) -> None:
        """Look from time to time whether something still lasts."""
        self._watches.append(Watch(quirk, what, check, self.clock(), ages))

    async def look(self) -> None:
        """Let the watches look that are due."""
        if self._is_looking:
            return
        self._is_looking = True
        try:
            for watch in self._watches:
                if watch.next_at <= self.clock():
                    await self._look(watch)
        finally:
            self._is_looking = False

    async def _look(self, watch: Watch) -> None:
        age = self.clock() - watch.since
        is_there = await watch.check()
        watch.looks += 1
        if is_there:
            watch.last_seen = max(age, 0.001)
        else:
            watch.first_gone = self.clock() - watch.since

    async def outlast(self, patience: float, longer: float, quirks: Container[str]) -> None:
        """Look a last time at every watch that has not ended, and keep what they found.

        Args:
            patience: how long to wait for their end, in seconds since the probe began.
            longer: how long to wait for the end of the important ones.
            quirks: the important ones.
        """
        while True:
            lasting = [one for one in self._watches if one.first_gone is None]
            until = longer if any(one.quirk in quirks for one in lasting) else patience
            if not lasting or self.meter.seconds >= until:
                break
            await self.pause(max(0.1, min(5.0, until - self.meter.seconds)))
        for watch in self._watches:
            try:
                if watch.first_gone is None and (not watch.looks or self.clock() - watch.since > watch.last_seen + 0.5):
                    await self._look(watch)
            except (LimitReached, ServiceError):
                continue
            finally:
                self._conclude(watch)

    def _conclude(self, watch: Watch) -> None:
        if not watch.looks:
            self.findings.miss([watch.quirk], "the probe ended before it looked")
            return
        low = 0.0 if watch.last_seen <= 0.001 else watch.last_seen
        self.findings.between(watch.quirk, low, watch.first_gone, f"{watch.what}, seen {watch.looks} times")

    # Cleanup

    async def clean_up(self) -> list[str]:
        """Delete every user and thread of this probe; return what is left."""
        self.meter.is_cleaning = True
        tokens: dict[str, str] = {one.user: one.token for one in self._users.values()}
        return await Cleanup(self.journal, self.raw, self.pause_quietly, tokens).run()

    async def pause_quietly(self, seconds: float) -> None:
        """Wait without watches."""
        await anyio.sleep(seconds)

    # Texts

    def redact(self, text: str) -> str:
        """Replace ids, tokens and the resource's name by placeholders."""
        for secret, shown in self._names.items():
            for form in (secret, quote(secret, safe=""), quote(secret, safe="@")):
                text = text.replace(form, shown)
        for one in self._users.values():
            text = text.replace(one.token, "<token>")
            text = text.replace(one.user.split(":")[-1].partition("_")[0], "<resource>")
        return text.replace(self.resource.endpoint.partition("://")[2], "<host>")


def iso(millis: int) -> str:
    """Return a time as the service takes it."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=millis)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{millis % 1000:03d}Z"


def shown(response: RawResponse) -> str:
    """Return a response in a few words: status, code, and whether there was a text."""
    if response.status < 400:
        return str(response.status)
    if not response.body:
        return f"{response.status} without a body"
    text = "" if response.message is None else f" {response.message!r}"
    return f"{response.status} {response.code or 'without a code'}{text}"
