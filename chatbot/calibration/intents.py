"""The journal of what a probe creates, and the cleanup of it after a kill at any point.

Before each creation the intent is written and synced: users with a `customId`, so that the identity service returns the
same user for the same id; threads with their repeatability id and their creator. Cleanup asks for both again and
deletes what it gets. A creator is a throw-away user, so every thread in its list is one of the probe's.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import anyio
import anyio.to_thread

from chatbot.errors import ServiceError, StateError
from chatbot.service.raw_requests import RawRequests, RawResponse

IDENTITY_VERSIONS: Final = ("2025-06-30", "2025-03-02-preview", "2023-10-01")
"""The api-versions to try for users, newest first; the last one has no `customId`."""

CLEANUP_VERSION: Final = "2024-03-07"
_NOT_OWNED: Final = "IdentityNotOwned"
_PAGES: Final = 20
_HEAD: Final = b'{"probe": 1, '
"""How the first line of a journal begins."""


@dataclass(slots=True)
class UserIntent:
    """A user that was to be created.

    Args:
        custom_id: its id of ours; empty if the service does not know such ids.
        version: the api-version of the request.
        user: its id of the service, once known.
        is_gone: it was deleted.
    """

    custom_id: str
    version: str
    user: str | None = None
    is_gone: bool = False


@dataclass(slots=True)
class ThreadIntent:
    """A thread that was to be created; `creator` is the custom id or the id of a user."""

    key: str
    creator: str
    threads: list[str] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)

    @property
    def is_gone(self) -> bool:
        """Return whether it is known what was created, and all of that was deleted."""
        return bool(self.threads) and set(self.threads) <= self.gone


class IntentJournal:
    """Intents and results, one JSON line each, synced before the caller goes on.

    Args:
        path: the file; one that exists is read by `begin`, and continued.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.endpoint = ""
        self.users: dict[str, UserIntent] = {}
        self.threads: dict[str, ThreadIntent] = {}
        self._is_cut = False
        self._number = 0

    async def begin(self, endpoint: str) -> None:
        """Read the file, if there is one, and note which resource the intents are for.

        Raises:
            StateError: the file is not such a journal, has intents for another resource, or cannot be used.
        """
        await anyio.to_thread.run_sync(self._read)
        if self.endpoint and self.endpoint != endpoint:
            msg = (
                f"{self.path} has users and threads of {self.endpoint}, not of {endpoint}: clean up there first, "
                "or name another --journal"
            )
            raise StateError(msg)
        await self._write({"probe": 1, "endpoint": endpoint})
        self.endpoint = endpoint

    @property
    def is_settled(self) -> bool:
        """Return whether everything that was created is gone."""
        return all(one.is_gone for one in self.users.values()) and all(one.is_gone for one in self.threads.values())

    async def close(self) -> None:
        """Delete the file if everything in it is gone."""
        if self.is_settled:
            await anyio.Path(self.path).unlink(missing_ok=True)

    async def plan_user(self, custom_id: str, version: str) -> str:
        """Note that a user is about to be created; return the name of the intent."""
        self._number = len(self.users) + 1
        name = custom_id or f"user-{self._number}"
        await self._write({"intent": "user", "name": name, "custom_id": custom_id, "version": version})
        self.users[name] = UserIntent(custom_id, version)
        return name

    async def know_user(self, name: str, user: str) -> None:
        """Note the id of a user."""
        await self._write({"done": "user", "name": name, "id": user})
        self.users[name].user = user

    async def lose_user(self, name: str) -> None:
        """Note that a user is gone."""
        await self._write({"gone": "user", "name": name})
        self.users[name].is_gone = True

    async def plan_thread(self, key: str, creator: str) -> None:
        """Note that a thread is about to be created, again if the key is known."""
        if key not in self.threads:
            await self._write({"intent": "thread", "name": key, "creator": creator})
            self.threads[key] = ThreadIntent(key, creator)

    async def know_thread(self, key: str, thread: str) -> None:
        """Note the id of a thread."""
        if thread not in self.threads[key].threads:
            await self._write({"done": "thread", "name": key, "id": thread})
            self.threads[key].threads.append(thread)

    async def lose_thread(self, key: str, thread: str) -> None:
        """Note that a thread is gone."""
        await self._write({"gone": "thread", "name": key, "id": thread})
        self.threads[key].gone.add(thread)

    async def _write(self, entry: dict[str, Any]) -> None:
        await anyio.to_thread.run_sync(self._append, entry)

    def _append(self, entry: dict[str, Any]) -> None:
        line = json.dumps(entry).encode() + b"\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                os.write(handle, b"\n" + line if self._is_cut else line)
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            msg = f"{self.path}: the journal of the probe cannot be written: {error.strerror}; name another --journal"
            raise StateError(msg) from error
        self._is_cut = False

    def _read(self) -> None:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            msg = f"{self.path}: the journal of the probe cannot be read: {error.strerror}"
            raise StateError(msg) from error
        *lines, last = content.split(b"\n")
        self._is_cut = bool(last)  # a line cut in half: what it says had not begun
        if not (lines or [last])[0].startswith(_HEAD) and not _HEAD.startswith(last or b"-"):
            msg = f"{self.path}: this is not a journal of `chatbot doctor --probe`; name another --journal"
            raise StateError(msg)
        for number, line in enumerate(lines, 1):
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                if not line.endswith(b"}"):  # empty, or cut in half at an earlier kill
                    continue
                msg = f"{self.path}:{number}: this is no line of a journal of `chatbot doctor --probe`"
                raise StateError(msg) from error

    def _take(self, entry: dict[str, Any]) -> None:
        match entry:
            case {"probe": 1, "endpoint": endpoint}:
                self.endpoint = endpoint
            case {"intent": "user", "name": name, "custom_id": custom_id, "version": version}:
                self.users[name] = UserIntent(custom_id, version)
            case {"done": "user", "name": name, "id": user}:
                self.users[name].user = user
            case {"gone": "user", "name": name}:
                self.users[name].is_gone = True
            case {"intent": "thread", "name": key, "creator": creator}:
                self.threads[key] = ThreadIntent(key, creator)
            case {"done": "thread", "name": key, "id": thread}:
                self.threads[key].threads.append(thread)
            case {"gone": "thread", "name": key, "id": thread}:
                self.threads[key].gone.add(thread)
            case _:
                raise ValueError


@dataclass(slots=True)
class Cleanup:
    """Deletes everything that a journal says was created, or may have been.

    Args:
        journal: the journal; it is kept up to date, so that a killed cleanup can be repeated.
        raw: sends the requests.
        tokens: known tokens by user, to save requests.
        pause: waits for some seconds.
    """

    journal: IntentJournal
    raw: RawRequests
    pause: Callable[[float], Awaitable[None]]
    tokens: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)

    async def run(self) -> list[str]:
        """Delete threads, then users; return what could not be deleted and why."""
        for name, intent in self.journal.users.items():
            if intent.is_gone:
                continue
            try:
                await self._clear(name, intent)
            except ServiceError as error:
                self.left.append(f"{intent.custom_id or name}: {error}")
        for planned in self.journal.threads.values():
            creator = self.journal.users.get(planned.creator)
            if creator is None or not creator.is_gone:
                continue
            # What is still unknown was never created; what could not be deleted has no participant left.
            for thread in set(planned.threads or ["none"]) - planned.gone:
                await self.journal.know_thread(planned.key, thread)
                await self.journal.lose_thread(planned.key, thread)
        await self.journal.close()
        return self.left

    async def _clear(self, name: str, intent: UserIntent) -> None:
        user = intent.user or await self._find_user(name, intent)
        if user is None:
            return
        # Those that are gone, too: a repeated creation may have made another thread, which only the list shows.
        planned = [one for one in self.journal.threads.values() if one.creator == name]
        if planned:
            token = self.tokens.get(user) or await self._token(intent, user)
            if token is not None and not await self._clear_threads(token, planned):
                return
        response = await self._identity("DELETE", f"/identities/{user}", intent.version)
        if response.status == 204 or response.code == _NOT_OWNED or response.status == 404:
            await self.journal.lose_user(name)
        else:
            self.left.append(f"{intent.custom_id or name}: DELETE answered {response.status} {response.code}")

    async def _find_user(self, name: str, intent: UserIntent) -> str | None:
        if not intent.custom_id:
            self.left.append(
                f"{name}: whether this user was created is not known, and this service has no customId to find it by; "
                "a user without threads costs nothing"
            )
            await self.journal.lose_user(name)
            return None
        response = await self._identity("POST", "/identities", intent.version, {"customId": intent.custom_id})
        user = response.json.get("identity", {}).get("id") if response.status == 201 else None
        if not isinstance(user, str):
            self.left.append(f"{intent.custom_id}: POST /identities answered {response.status} {response.code}")
            return None
        await self.journal.know_user(name, user)
        return user

    async def _token(self, intent: UserIntent, user: str) -> str | None:
        target = f"/identities/{user}/:issueAccessToken"
        response = await self._identity("POST", target, intent.version, {"scopes": ["chat"]})
        token = response.json.get("token")
        return token if isinstance(token, str) else None

    async def _clear_threads(self, token: str, planned: list[ThreadIntent]) -> bool:
        """Delete the threads of one creator: those that are known, those in its list, and what a repeated key gives."""
        is_clean = True
        for intent in planned:
            if not intent.threads:
                await self._repeat(token, intent)
            for thread in [one for one in intent.threads if one not in intent.gone]:
                is_clean &= await self._delete(token, intent, thread)
        known = {thread for intent in planned for thread in intent.threads}
        async for thread in self._listed(token):
            if thread not in known:
                await self.journal.know_thread(planned[-1].key, thread)
                is_clean &= await self._delete(token, planned[-1], thread)
        return is_clean

    async def _repeat(self, token: str, intent: ThreadIntent) -> None:
        """Ask for the thread again with its repeatability id: the service returns the one that it created."""
        headers = {"repeatability-request-id": intent.key}
        response = await self._chat("POST", "/chat/threads", token, {"topic": "cleanup", "participants": []}, headers)
        thread = response.json.get("chatThread", {}).get("id")
        if isinstance(thread, str):
            await self.journal.know_thread(intent.key, thread)

    async def _delete(self, token: str, intent: ThreadIntent, thread: str) -> bool:
        response = await self._chat("DELETE", f"/chat/threads/{quote(thread, safe='')}", token)
        if response.status in (204, 404):
            await self.journal.lose_thread(intent.key, thread)
            return True
        self.left.append(f"a thread of {intent.creator}: DELETE answered {response.status} {response.code}")
        return False

    async def _listed(self, token: str) -> AsyncIterator[str]:
        target: str | None = "/chat/threads"
        query = f"?{urlencode({'api-version': CLEANUP_VERSION})}"
        for _ in range(_PAGES):
            page = await self._chat("GET", target or "", token, query=query)
            for item in page.json.get("value", []):
                if "deletedOn" not in item:
                    yield item["id"]
            link = page.json.get("nextLink")
            if not isinstance(link, str):
                return
            target, _, rest = link.partition("/chat/threads")[2].partition("?")
            target, query = f"/chat/threads{target}", f"?{rest}"

    async def _chat(
        self,
        method: str,
        target: str,
        token: str,
        body: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        query: str = f"?api-version={CLEANUP_VERSION}",
    ) -> RawResponse:
        return await self._patiently(lambda: self.raw.chat(method, f"{target}{query}", token, body, headers))

    async def _identity(
        self, method: str, target: str, version: str, body: dict[str, Any] | None = None
    ) -> RawResponse:
        return await self._patiently(lambda: self.raw.identity(method, f"{target}?api-version={version}", body))

    async def _patiently(self, ask: Callable[[], Awaitable[RawResponse]]) -> RawResponse:
        for wait in _waits():
            response = await ask()
            if response.status not in (429, 500, 503):
                return response
            await self.pause(wait_of(response, wait))
        return await ask()


def _waits() -> Iterator[float]:
    yield from (2.0, 10.0, 11.0, 11.0)


def wait_of(response: RawResponse, otherwise: float) -> float:
    """Return the seconds that a response asks to wait, at most 15."""
    headers = response.headers
    try:
        if "retry-after" in headers:
            return min(15.0, float(headers["retry-after"]) + 0.1)
        if "x-ms-retry-after-ms" in headers:
            return min(15.0, float(headers["x-ms-retry-after-ms"]) / 1000 + 0.1)
    except ValueError:
        pass
    return otherwise
