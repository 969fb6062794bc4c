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

import anyio
import structlog

from chatbot.bot import Bot
from chatbot.cluster.notes import LettersChanged, encode
from chatbot.cluster.requests import Answerer, ReplicaAnswer, Requests
from chatbot.errors import ChatbotError, StateError, UnknownName
from chatbot.events import ActionFailed, MessageEvent, ThreadEvent
from chatbot.model import ThreadId, UserId
from chatbot.runtime import replicas
from chatbot.runtime.bot_users import adopt
from chatbot.runtime.observe.status import StatusMonitor, as_json
from chatbot.runtime.pauses import Pauses, is_paused, pause_stored, resume_stored
from chatbot.runtime.reloading import Reloader
from chatbot.runtime.stored_state import StateAdmin
from chatbot.stores.base import SharedStore, Store
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
        requests: asks the other processes that share the store; None if there are none.
    """

    def __init__(
        self,
        admin: AdminApi,
        status_monitor: StatusMonitor,
        reloader: Reloader | None,
        pauses: Pauses,
        requests: Requests | None = None,
    ) -> None:
        self._requests = requests
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
                return await self._reload(question)
            case "pause":
                return await self._pauses.pause(str(question.get("bot")))
            case "resume":
                is_skipping = question.get("skip") is True
                return await self._pauses.resume(str(question.get("bot")), is_skipping=is_skipping)
            case _:
                return await self._admin.answer(question)

    async def _reload(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        """Reload this process, then the others if that is asked for: what is refused here changes nothing there."""
        if self._reloader is None:
            message = "these bots end by themselves (--once); changes are applied at the next start"
            raise StateError(message)
        is_forced = question.get("force") is True
        are_new_users_allowed = question.get("allow_new_users") is True
        outcome = await self._reloader.reload(is_forced=is_forced, are_new_users_allowed=are_new_users_allowed)
        if question.get("all") is not True:
            return outcome
        options = [*([replicas.FORCE] if is_forced else ()), *([replicas.NEW_USERS] if are_new_users_allowed else ())]
        seconds = replicas.LOAD_SECONDS + self._reloader.drain_seconds
        replies = await replicas.ask_others(self._requests, replicas.RELOAD, options=options, seconds=seconds)
        return {**outcome, "replicas": replicas.as_json(replies)}


def answerers(bots: Sequence[Bot], pauses: Pauses, reloader: Reloader | None) -> Mapping[str, Answerer]:
    """Return what this process does when another one asks it.

    Args:
        bots: the bots of this process; a reload changes this list.
        pauses: pauses and resumes them.
        reloader: applies changes; None where the bots end by themselves.
    """

    async def follow_pauses(_bot: str, _options: Sequence[str]) -> str:
        await pauses.follow()
        return replicas.DONE

    async def erase_person(person: str, _options: Sequence[str]) -> str:
        return replicas.DONE if await replicas.erase(bots, UserId(person)) else replicas.BUSY

    async def wait_for_turns(user: str, _options: Sequence[str]) -> str:
        meant = [bot for bot in bots if bot.user == user]
        return replicas.DONE if await replicas.wait_for_turns(meant) else replicas.BUSY

    async def reload(_subject: str, options: Sequence[str]) -> str:
        if reloader is None:
            return replicas.REFUSED
        try:
            outcome = await reloader.reload(
                is_forced=replicas.FORCE in options, are_new_users_allowed=replicas.NEW_USERS in options
            )
        except ChatbotError:  # `reload` has logged it
            return replicas.REFUSED
        return "kept" if outcome["kept"] else replicas.DONE

    async def runs(name: str, _options: Sequence[str]) -> str:
        return "yes" if name in {bot.name for bot in bots} else "no"

    return {
        replicas.PAUSES: follow_pauses,
        replicas.ERASE: erase_person,
        replicas.WAIT: wait_for_turns,
        replicas.RELOAD: reload,
        replicas.RUNS: runs,
    }


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
ALL: Final = "all"
_USER_ID: Final = re.compile(r"\d+:\S+")
_Owned = tuple[BotRecord, DeadLetter]


class Inside:
    """Which threads bots are in, according to the store; read once for each bot.

    Args:
        store: opened by the caller.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._threads: dict[UserId, frozenset[ThreadId]] = {}

    async def has(self, record: BotRecord, letter: DeadLetter) -> bool:
        """Return whether a bot is in the thread of a dead letter, or the letter has no thread."""
        if not isinstance(letter.event, ThreadEvent):
            return True
        if record.user not in self._threads:
            known = await self._store.threads(record.user)
            self._threads[record.user] = frozenset(one.thread for one in known if not one.is_left)
        return letter.event.thread in self._threads[record.user]


class AdminApi:
    """Manages dead letters and erases people, in a store and in the bots that run on it.

    Args:
        store: opened by the caller.
        bots: the bots that run on it; a reload changes this list.
        requests: asks the other processes that share the store; None if there are none.
    """

    def __init__(self, store: Store, bots: Sequence[Bot] = (), requests: Requests | None = None) -> None:
        self._store = store
        self._bots = bots
        self._requests = requests
        self._log = structlog.get_logger()

    @property
    def _stored_state(self) -> StateAdmin:
        return StateAdmin(self._store, self._running, self._requests)

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
                letters, inside = await self._select(id, _name(question, "bot")), Inside(self._store)
                return {"letters": [await self._retry(*letter, inside) for letter in letters]}
            case {"ask": "dead-letters drop", "id": str(id)}:
                letters = await self._select(id, _name(question, "bot"))
                return {"letters": await self._drop_all(letters)}
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

    async def _retry(self, record: BotRecord, letter: DeadLetter, inside: Inside) -> Mapping[str, Any]:
        outcome = "not in the thread"
        bot = self._running.get(record.user)
        if bot is not None and bot.owns_letter(letter):
            # If its thread is lost just now, the next owner finds the request.
            if await bot.retry_letter(letter) or not bot.owns_letter(letter):
                outcome = "now"
        elif await inside.has(record, letter):
            await self._commit(record.user, RequestRetry(letter.id))
            outcome = "now" if await self._is_run(record) else "at the next start"
        self._log.info("dead_letter.retry_requested", letter=letter.id, bot=record.name, outcome=outcome)
        return {**letter_summary(record, letter), "outcome": outcome}

    async def _is_run(self, record: BotRecord) -> bool:
        """Return whether a process runs the bot: this one, or another one that shares the store."""
        if self._bots:
            return record.user in self._running
        is_shared = isinstance(self._store, SharedStore) and bool(await self._store.replicas())
        return is_shared and record.paused_ms is None

    async def _drop_all(self, letters: Sequence[_Owned]) -> list[Mapping[str, Any]]:
        """Drop dead letters; those of other processes twice, because a retry that runs there may store one again."""
        dropped = [await self._drop(*letter) for letter in letters]
        elsewhere: dict[UserId, list[str]] = {}
        for record, letter in letters:
            bot = self._running.get(record.user)
            if bot is not None and not bot.owns_letter(letter):
                elsewhere.setdefault(record.user, []).append(letter.id)
        for user, again in elsewhere.items():
            await replicas.ask_others(self._requests, replicas.WAIT, user, seconds=replicas.ANSWER_SECONDS)
            for id in again:
                await self._commit(user, DropDeadLetter(id))
        return dropped

    async def _drop(self, record: BotRecord, letter: DeadLetter) -> Mapping[str, Any]:
        bot = self._running.get(record.user)
        if bot is not None:
            await bot.drop_letter(letter)
        else:
            await self._commit(record.user, DropDeadLetter(letter.id))
        self._log.info("dead_letter.dropped", letter=letter.id, bot=record.name)
        return letter_summary(record, letter)

    async def _commit(self, user: UserId, write: RequestRetry | DropDeadLetter) -> None:
        """Change a dead letter in the store, and tell the process that owns its thread."""
        await self._store.commit(user, [write], notes=encode(LettersChanged(user, (write.id,))))

    # ── bots ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _adopt(self, question: Mapping[str, Any], name: str, resource: str) -> Mapping[str, Any]:
        if name in {bot.name for bot in self._bots}:
            message = f"the bot {name} runs, as the user that it has; stop the bots first"
            raise StateError(message)
        asked = await replicas.ask_others(self._requests, replicas.RUNS, name, seconds=replicas.ANSWER_SECONDS)
        for reply in asked:
            if reply.outcome != "no":
                how = "runs there" if reply.outcome == "yes" else "may run there, which did not answer"
                message = f"the bot {name} {how}: {reply.replica.host}, pid {reply.replica.pid}; stop the bots first"
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
        """Erase a person from memory and the store, then once more, because running handlers may have written.

        The memory of all processes comes first: what is left there would be written after the rows were erased.
        """
        await self._check_person(user)
        person, erased, is_complete = UserId(user), 0, True
        replies: list[ReplicaAnswer] = []
        for _ in range(2 if self._bots else 1):
            is_here, replies = await self._erase_from_memory(person)
            erased += await self._store.forget(person)
            is_complete = is_here and all(reply.outcome == replicas.DONE for reply in replies)
        self._log.info("person.erased", records=erased, is_complete=is_complete)
        answer: dict[str, Any] = {"records": erased, "is_complete": is_complete}
        return {**answer, "replicas": replicas.as_json(replies)} if replies else answer

    async def _erase_from_memory(self, person: UserId) -> tuple[bool, list[ReplicaAnswer]]:
        """Erase a person from the memory of this process and of the others, at the same time."""
        is_complete, replies, problem = True, list[ReplicaAnswer](), list[ChatbotError]()

        async def ask() -> None:
            try:
                replies.extend(
                    await replicas.ask_others(self._requests, replicas.ERASE, person, seconds=replicas.ANSWER_SECONDS)
                )
            except ChatbotError as error:  # raised below: a group would wrap it
                problem.append(error)

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            is_complete = await replicas.erase(self._bots, person)
        if problem:
            raise problem[0]
        return is_complete, replies

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
