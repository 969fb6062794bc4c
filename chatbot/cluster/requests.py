"""Requests of an operator to all processes that share a store, and their answers.

The process that the operator uses tells the others, and waits for the answer of each. Notes may be lost, so it repeats
the request until all have answered or the time has passed; each process does what is asked for once. Whoever has not
answered by then is named: it may be disconnected, and still have in memory what it was to change.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from typing import Final

import anyio
import structlog
from anyio.abc import TaskGroup
from msgspec import Struct

from chatbot.cluster.notes import Answered, Asked, encode
from chatbot.errors import ChatbotError, StateError, StoreError
from chatbot.stores.base import NOTE_BYTES, Replica, SharedStore

AGAIN_SECONDS: Final = 2.0
"""Seconds after which a request is repeated to those that have not answered."""

RETRY_SECONDS: Final = 0.5
"""Seconds until the database is tried again that did not take a request."""

MAX_KNOWN: Final = 1_000
"""Requests whose answers are kept, in case that they are repeated."""

UNKNOWN: Final = "unknown"
"""The outcome of a request that a process of another version does not know."""

FAILED: Final = "failed"
"""The outcome of a request that could not be done; the log of that process says why."""

Answerer = Callable[[str, Sequence[str]], Awaitable[str]]
"""Does what is asked for, with the subject and the options; returns the outcome."""


class ReplicaAnswer(Struct, frozen=True):
    """What became of a request in one process.

    Args:
        replica: the process.
        outcome: its answer; None if there was none in time.
    """

    replica: Replica
    outcome: str | None


class Requests:
    """Asks the other processes, and answers them.

    Args:
        store: opened by the caller.

    Attributes:
        answerers: what this process does, by what is asked for. While there are none it is starting, and the others
            ask again.
    """

    def __init__(self, store: SharedStore) -> None:
        self._store = store
        self._open: dict[str, dict[str, str]] = {}
        self._done: dict[str, str | None] = {}
        self._news = anyio.Event()
        self._group: TaskGroup | None = None
        self.answerers: Mapping[str, Answerer] = {}
        self._log = structlog.get_logger()

    async def run(self) -> None:
        """Answer the requests of others, until canceled."""
        async with anyio.create_task_group() as self._group:
            await anyio.sleep_forever()

    async def ask(
        self, what: str, subject: str = "", options: Sequence[str] = (), *, seconds: float
    ) -> list[ReplicaAnswer]:
        """Ask all other processes, and return the answer of each; none if there are no others.

        Args:
            what: what is asked for.
            subject: whom or what it concerns.
            options: how.
            seconds: how long to wait for the answers.

        Raises:
            StateError: the subject is too long.
            StoreError: it is not known who the others are.
        """
        present = await self._store.replicas()
        others = [replica for replica in present if not replica.is_oneself]
        if not others:
            return []
        asked = Asked(secrets.token_hex(6), _own_name(present), what, subject, tuple(options))
        if any(len(text) > NOTE_BYTES for text in encode(asked)):
            message = "a name or an id is too long to tell it to the other processes that share the store"
            raise StateError(message)
        answers = self._open[asked.id] = {}
        names = {replica.name for replica in others}
        try:
            with anyio.move_on_after(seconds):
                while not answers.keys() >= names:
                    await self._send(asked)
                    with anyio.move_on_after(AGAIN_SECONDS):
                        await self._answered(answers, names)
        finally:
            del self._open[asked.id]
        return [ReplicaAnswer(replica, answers.get(replica.name)) for replica in others]

    async def _answered(self, answers: Mapping[str, str], names: Set[str]) -> None:
        while not answers.keys() >= names:
            await self._news.wait()

    def receive(self, note: Asked | Answered) -> None:
        """Take a note of another process: an answer, or a request, which is answered soon."""
        if isinstance(note, Answered):
            if note.id in self._open:
                self._open[note.id][note.sender] = note.outcome
                self._news.set()
                self._news = anyio.Event()
            return
        if self._group is not None and self.answerers and note.id not in self._open:
            self._group.start_soon(self._answer, note)

    async def _answer(self, asked: Asked) -> None:
        if asked.id not in self._done:
            self._done[asked.id] = None
            while len(self._done) > MAX_KNOWN:
                del self._done[next(iter(self._done))]
            self._done[asked.id] = await self._do(asked)
        outcome = self._done.get(asked.id)
        if outcome is None:
            return  # it is being done, and answered then
        try:
            sender = _own_name(await self._store.replicas())
            await self._store.tell(encode(Answered(asked.id, sender, outcome)))
        except StoreError as error:
            self._log.debug("answer.lost", request=asked.what, error=error)  # it will be asked again

    async def _do(self, asked: Asked) -> str:
        answerer = self.answerers.get(asked.what)
        if answerer is None:
            return UNKNOWN
        try:
            outcome = await answerer(asked.subject, asked.options)
        except ChatbotError as error:
            self._log.warning("request.failed", request=asked.what, error=error)
            return FAILED
        except Exception:
            self._log.exception("request.failed", request=asked.what)
            return FAILED
        self._log.info("request.done", request=asked.what, outcome=outcome, asked_by=asked.sender)
        return outcome

    async def _send(self, asked: Asked) -> None:
        while True:
            try:
                await self._store.tell(encode(asked))
                return
            except StoreError as error:
                self._log.debug("request.not_sent", request=asked.what, error=error)
                await anyio.sleep(RETRY_SECONDS)


def _own_name(present: Sequence[Replica]) -> str:
    """Return the name of this process; empty if it is not present."""
    return next((replica.name for replica in present if replica.is_oneself), "")
