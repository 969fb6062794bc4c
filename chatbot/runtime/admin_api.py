"""Administration of running bots and of their store: status, reload, dead letters, and erasing a person.

A daemon answers these requests for its running bots, which act at once; commands answer them for a store that no
process has open. Message texts, and errors that may quote them, are only in the details of one dead letter, never in a
list.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import structlog

from chatbot.bot import Bot
from chatbot.errors import StateError, UnknownName
from chatbot.events import ActionFailed, MessageEvent, ThreadEvent
from chatbot.model import ThreadId, UserId
from chatbot.runtime.bot_users import adopt
from chatbot.runtime.observe.status import StatusMonitor, as_json
from chatbot.runtime.pauses import Pauses, is_paused, pause_stored, resume_stored
from chatbot.runtime.reloading import Reloader
from chatbot.runtime.stored_state import StateAdmin
from chatbot.stores.base import Store
from chatbot.stores.codec import EVENTS
from chatbot.stores.records import BotRecord, DeadLetter
from chatbot.stores.writes import DropDeadLetter, RequestRetry

_AUDITED: Final = frozenset(
    {
        "reload",
        "pause",
        "resume",
        "dead-letters show",
        "dead-letters retry",
        "dead-letters drop",
        "state show",
        "state export",
        "state results",
        "state forget",
        "state end-dialog",
        "state cancel-timer",
        "identity adopt",
    }
)
"""Requests that change something, or show what people wrote."""

_LETTER_OR_ENTRY: Final = re.compile(r"[0-9a-f]{10}|all")


def audit(question: Mapping[str, Any]) -> Mapping[str, str] | None:
    """Return what the log may say of a request; None if it changes nothing and shows nobody's words.

    The id of a person is not logged: who was erased must not stay in the log. The name of a bot is checked by nobody
    yet, so the caller logs it only once the request was accepted.
    """
    command = question.get("ask")
    if command not in _AUDITED:
        return None
    facts = {"command": str(command)}
    if isinstance(bot := question.get("bot"), str):
        facts["bot"] = bot
    if isinstance(id := question.get("id"), str) and _LETTER_OR_ENTRY.fullmatch(id):
        facts["id"] = id
    return facts


class ControlApi:
    """Answers the requests that commands send to running bots.

    Args:
        reloader: applies changes; None where the bots end by themselves (`--once`).
        pauses: pauses and resumes bots.
    """

    def __init__(
        self, admin: AdminApi, status_monitor: StatusMonitor, reloader: Reloader | None, pauses: Pauses
    ) -> None:
        self._admin = admin
        self._status_monitor = status_monitor
        self._reloader = reloader
        self._pauses = pauses

    async def answer(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        """Answer a request: `{"ask": "status"}`, `{"ask": "unsent", "thread": …}`, `{"ask": "reload", "force": …}`,
        `{"ask": "pause", "bot": …}`, `{"ask": "resume", "bot": …, "skip": …}`, or one of `AdminApi.answer`.
        """
        match question.get("ask"):
            case "status":
                return as_json(await self._status_monitor.read_status())
            case "unsent":
                return {"count": self._status_monitor.unsent(ThreadId(str(question.get("thread"))))}
            case "reload":
                if self._reloader is None:
                    message = "these bots end by themselves (--once); changes are applied at the next start"
                    raise StateError(message)
                return await self._reloader.reload(
                    is_forced=question.get("force") is True,
                    are_new_users_allowed=question.get("allow_new_users") is True,
                )
            case "pause":
                return await self._pauses.pause(str(question.get("bot")))
            case "resume":
                is_skipping = question.get("skip") is True
                return await self._pauses.resume(str(question.get("bot")), is_skipping=is_skipping)
            case _:
                return await self._admin.answer(question)


def letter_summary(bot: BotRecord, letter: DeadLetter) -> dict[str, Any]:
    """Return an entry of a list: no message text, and of the error only its type."""
    event = letter.event
    return {
        "id": letter.id,
        "bot": bot.name,
        "died_ms": letter.died_ms,
        "attempts": letter.attempts,
        "event": type(event).__name__,
        "thread": event.thread if isinstance(event, ThreadEvent) else None,
        "handler": letter.handler,
        "error": letter.error.partition(":")[0],
        "is_revived": letter.is_revived,
    }


def letter_details(bot: BotRecord, letter: DeadLetter) -> dict[str, Any]:
    """Return everything about a dead letter, including the message text."""
    facts = {**letter_summary(bot, letter), "error": letter.error, "user": bot.user, "resource": bot.resource}
    match letter.event:
        case MessageEvent(message=message):
            facts |= {
                "message": message.id,
                "sender": message.sender,
                "sender_name": message.sender_display_name,
                "text": message.content,
            }
        case ActionFailed(action=action, reason=reason):
            facts |= {"wish": type(action).__name__, "reason": reason, "text": getattr(action, "content", None)}
        case _:
            pass
    return {**facts, "facts": EVENTS.encode(letter.event, "event")}


MAX_LISTED: Final = 1000
HANDLER_WAIT_SECONDS: Final = 10.0
"""Seconds that an erasure waits for running handlers, which may hold the person's texts."""

ALL: Final = "all"
_USER_ID: Final = re.compile(r"\d+:\S+")
_Owned = tuple[BotRecord, DeadLetter]


class AdminApi:
    """Manages dead letters and erases people, in a store and in the bots that run on it.

    Args:
        store: opened by the caller.
        bots: the bots that run on it; a reload changes this list.
    """

    def __init__(self, store: Store, bots: Sequence[Bot] = ()) -> None:
        self._store = store
        self._bots = bots
        self._log = structlog.get_logger()

    @property
    def _stored_state(self) -> StateAdmin:
        return StateAdmin(self._store, self._running)

    @property
    def _running(self) -> Mapping[UserId, Bot]:
        return {bot.user: bot for bot in self._bots if not is_paused(bot)}

    async def answer(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        """Answer one request: `ask` names it; further keys are `bot` (a name), `id` (or `all`), `user`, `thread`.

        Raises:
            UnknownName: there is no such bot, dead letter or person.
            StoreError: the store cannot be read or written.
            StateError: the request is unknown.
        """
        match question:
            case {"ask": "dead-letters list"}:
                return await self._list(_name(question, "bot"))
            case {"ask": "dead-letters show", "id": str(id)}:
                return {"letter": letter_details(*await self._find(id, _name(question, "bot")))}
            case {"ask": "dead-letters retry", "id": str(id)}:
                letters = await self._select(id, _name(question, "bot"))
                return {"letters": [await self._retry(*letter) for letter in letters]}
            case {"ask": "dead-letters drop", "id": str(id)}:
                letters = await self._select(id, _name(question, "bot"))
                return {"letters": [await self._drop(*letter) for letter in letters]}
            case {"ask": "state forget", "user": str(user)}:
                return await self._forget(user)
            case {"ask": "state list"}:
                chosen = {key: _name(question, key) for key in ("bot", "user", "thread")}
                return await self._stored_state.list(**chosen)
            case {"ask": "state show", "id": str(id)}:
                return await self._stored_state.show(id)
            case {"ask": "state export", "user": str(user)}:
                await self._check_person(user)
                return await self._stored_state.export(user)
            case {"ask": "state results", "users": list(users)}:
                return await self._stored_state.results(map(str, users))
            case {"ask": "state end-dialog", "id": str(id)}:
                return await self._stored_state.end_dialog(id)
            case {"ask": "state cancel-timer", "id": str(id)}:
                return await self._stored_state.cancel_timer(id)
            case {"ask": "identity list"}:
                records = await self._store.bots()
                return {"bots": [asdict(record) for record in records]}
            case {"ask": "identity adopt", "bot": str(name), "resource": str(resource)}:
                return await self._adopt(question, name, resource)
            case {"ask": "pause", "bot": str(name)}:
                return await pause_stored(self._store, name)
            case {"ask": "resume", "bot": str(name)}:
                return await resume_stored(self._store, name, is_skipping=question.get("skip") is True)
            case _:
                message = "this version of chatbot does not know the request; run command and bots in the same version"
                raise StateError(message)

    # ── dead letters ──────────────────────────────────────────────────────────────────────────────────────────

    async def _letters(self, name: str | None) -> list[_Owned]:
        """Return the dead letters of all bots or of one, oldest first."""
        records = await self._store.bots()
        if name is not None and name not in {record.name for record in records}:
            known = ", ".join(sorted({record.name for record in records})) or "none"
            message = f"the store knows no bot {name!r}; it knows: {known}"
            raise UnknownName(message)
        meant = [record for record in records if name in (None, record.name)]
        letters = [(record, letter) for record in meant for letter in await self._store.dead_letters(record.user)]
        return sorted(letters, key=lambda one: (one[1].died_ms, one[1].id))

    async def _find(self, id: str, name: str | None) -> _Owned:
        for record, letter in await self._letters(name):
            if letter.id == id:
                return record, letter
        message = f"there is no dead letter {id!r}; `chatbot dead-letters list` shows all"
        raise UnknownName(message)

    async def _select(self, id: str, name: str | None) -> list[_Owned]:
        return await self._letters(name) if id == ALL else [await self._find(id, name)]

    async def _list(self, name: str | None) -> Mapping[str, Any]:
        letters = await self._letters(name)
        shown = letters[-MAX_LISTED:]
        return {"letters": [letter_summary(*letter) for letter in shown], "left_out": len(letters) - len(shown)}

    async def _retry(self, record: BotRecord, letter: DeadLetter) -> Mapping[str, Any]:
        outcome = "not in the thread"
        bot = self._running.get(record.user)
        if bot is not None:
            if await bot.retry_letter(letter):
                outcome = "now"
        elif await self._is_in(record, letter):
            await self._store.commit(record.user, [RequestRetry(letter.id)])
            outcome = "at the next start"
        self._log.info("dead_letter.retry_requested", letter=letter.id, bot=record.name, outcome=outcome)
        return {**letter_summary(record, letter), "outcome": outcome}

    async def _is_in(self, record: BotRecord, letter: DeadLetter) -> bool:
        """Return whether the bot is in the dead letter's thread, according to the store."""
        thread = letter.event.thread if isinstance(letter.event, ThreadEvent) else None
        return any(one.thread == thread and not one.is_left for one in await self._store.threads(record.user))

    async def _drop(self, record: BotRecord, letter: DeadLetter) -> Mapping[str, Any]:
        bot = self._running.get(record.user)
        if bot is not None:
            await bot.drop_letter(letter)
        else:
            await self._store.commit(record.user, [DropDeadLetter(letter.id)])
        self._log.info("dead_letter.dropped", letter=letter.id, bot=record.name)
        return letter_summary(record, letter)

    # ── bots ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _adopt(self, question: Mapping[str, Any], name: str, resource: str) -> Mapping[str, Any]:
        if name in {bot.name for bot in self._bots}:
            message = f"the bot {name} runs, as the user that it has; stop the bots first"
            raise StateError(message)
        user, since_ms = _name(question, "user"), question.get("since_ms")
        adopted = await adopt(
            self._store,
            name,
            resource=resource,
            user=None if user is None else UserId(user),
            old=_name(question, "from"),
            since_ms=since_ms if isinstance(since_ms, int) else 0,
        )
        self._log.info("identity.adopted", bot=name, user_id=adopted)
        return {"bot": name, "user": adopted}

    # ── people ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _forget(self, user: str) -> Mapping[str, Any]:
        """Erase a person from the store and the lanes, then once more, because running handlers may have written."""
        await self._check_person(user)
        person = UserId(user)
        erased = await self._erase(person)
        is_complete = True
        for bot in self._running.values():
            is_complete &= await bot.wait_for_turns(timeout=HANDLER_WAIT_SECONDS)
        if self._running:
            erased += await self._erase(person)
        self._log.info("person.erased", records=erased, is_complete=is_complete)
        return {"records": erased, "is_complete": is_complete}

    async def _erase(self, person: UserId) -> int:
        erased = await self._store.forget(person)
        for bot in self._running.values():
            bot.erase(person)
        return erased

    async def _check_person(self, user: str) -> None:
        if not _USER_ID.fullmatch(user):
            message = (
                f"{user!r} is not a user's id: expected one like 8:acs:…, as threads, logs and dead letters show it"
            )
            raise UnknownName(message)
        for record in await self._store.bots():
            if record.user == user:
                message = f"{user} is the bot {record.name!r} itself; name a person"
                raise UnknownName(message)


def _name(question: Mapping[str, Any], key: str) -> str | None:
    value = question.get(key)
    if value is None or isinstance(value, str):
        return value
    message = f"{key} must be a string"
    raise StateError(message)
