"""Which of the threads that are planned for a process it really takes.

**Open dialogs.** Free shards are offered before they are claimed (`ShardsOffered`). If this process cannot continue a
dialog or timer in one of them and another process can, it claims none of them, and limits its share to what it owns:
then the plan gives them to others. It tries again when such dialogs have ended, or when there is no other process any
more that can. Then it takes them all the same, as a process does that has the store to itself.

**Canary.** A process with a limited share compares how often its handlers fail with the reports of those without a
limit, see `canary`. If they fail more often, it limits its share to 0, which gives its threads back in order.

Each process says in its report (`SharedStore.publish`) whether it lacks code, and while there is a process with a
limited share, what it has handled.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import anyio
import structlog

from chatbot.cluster.canary import CanaryVerdict, Counted, EventComparison
from chatbot.errors import StateError, StoreError
from chatbot.stores.base import Replica, SharedStore
from chatbot.stores.shards import ALL_SHARDS, SHARDS

LOOK_SECONDS: Final = 1.0
"""Seconds between two looks for others while shards are refused."""

CHECK_SECONDS: Final = 10.0
"""Seconds between two checks whether the dialogs that stood in the way have ended."""

COUNT_SECONDS: Final = 5.0
"""Seconds between two comparisons, and between two reports."""

RETRY_SECONDS: Final = 1.0
"""Seconds until the store is tried again."""

JOIN_SECONDS: Final = 10.0
"""Seconds for which a canary waits at the start for another process."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Report:
    """What a process says of itself.

    Args:
        lacks: its code cannot continue dialogs or timers that are waiting.
        counts: what each bot has handled since the start.
    """

    lacks: bool = False
    counts: Mapping[str, Counted] = field(default_factory=dict)

    def encode(self) -> str:
        """Return it as text."""
        counts = {bot: [one.handled, one.failed] for bot, one in self.counts.items()}
        return json.dumps({"lacks": self.lacks, "counts": counts}, separators=(",", ":"))

    @classmethod
    def decode(cls, text: str) -> Report:
        """Return the report of a text; an empty one if this version cannot read it."""
        try:
            data = json.loads(text)
            counts = {str(bot): Counted(int(handled), int(failed)) for bot, (handled, failed) in data["counts"].items()}
            return cls(bool(data["lacks"]), counts)
        except (ValueError, KeyError, TypeError, AttributeError):
            return cls()


Problems = Callable[[frozenset[int]], Awaitable[Sequence[str]]]
"""Returns what the store holds in these shards that the code of this process cannot continue."""


class Admission:
    """Decides which of the offered shards a process claims, and whether it goes on as a canary.

    Args:
        store: opened by the caller.
        share: the share of a canary, 0 to 1; None for a process without a limit.
        problems: checks the code.
        counts: returns what the bots have handled since the start.
        owned: returns the shards that this process owns.

    Attributes:
        share: the largest share that this process takes unless it refuses shards; 0 once a canary has failed.
        refused: why shards are refused now; empty while they are not.
        verdict: why a canary has given its threads back; None if it has not.
        is_alone: a canary has no other process beside it, so nobody serves the rest of the threads.
        comparison: what a canary and the others have handled.
    """

    def __init__(
        self,
        store: SharedStore,
        share: float | None,
        *,
        problems: Problems,
        counts: Callable[[], Mapping[str, Counted]],
        owned: Callable[[], frozenset[int]],
    ) -> None:
        self.canary_share = share
        self.share = share
        self.refused: tuple[str, ...] = ()
        self.refused_since = 0.0
        self.verdict: CanaryVerdict | None = None
        self.verdict_at = 0.0
        self.is_alone = False
        self.comparison = EventComparison()
        self._store = store
        self._problems = problems
        self._counts = counts
        self._owned = owned
        self._offered: set[int] = set()
        self._lacks = False
        self._checked_at = 0.0
        self._lock = anyio.Lock()

    @property
    def owned(self) -> frozenset[int]:
        """The shards that this process owns."""
        return self._owned()

    async def check_beginning(self) -> None:
        """Refuse to begin as a canary where nobody serves the rest of the threads.

        Raises:
            StateError: there is no such process.
            StoreError: the store cannot be read.
        """
        if self.canary_share is None:
            return
        end = anyio.current_time() + JOIN_SECONDS
        while not any(one.share is None for one in await self._others()):
            if anyio.current_time() > end:
                msg = (
                    "--canary: no other process runs that serves the rest of the threads; start `chatbot run` without "
                    "--canary in another place first, with the same store"
                )
                raise StateError(msg)
            await anyio.sleep(LOOK_SECONDS)
        _log.info("canary.began", share=self.canary_share)

    async def begin(self) -> None:
        """Take shards from now on: the bots run. Retries until the store can be written."""
        while True:
            try:
                async with self._lock:
                    await self._store.limit_to(self.share)
                return
            except StoreError as error:
                _log.debug("shards.not_wanted_yet", error=error)
                await anyio.sleep(RETRY_SECONDS)

    async def consider(self, shards: frozenset[int]) -> None:
        """Claim offered shards, or refuse them. Retries until the store can be read."""
        # Shards of one process come one by one: all that are offered during a check share the next one.
        self._offered |= shards
        async with self._lock:
            while self._offered:
                offered = frozenset(self._offered)
                try:
                    await self._consider(offered)
                except StoreError as error:
                    _log.debug("shards.not_considered", shards=len(offered), error=error)
                    await anyio.sleep(RETRY_SECONDS)
                    continue
                except Exception:  # a defect of the check must not leave threads to nobody
                    _log.exception("shards.check_failed", shards=len(offered))
                    await self._store.accept(offered)
                self._offered -= offered

    async def _consider(self, shards: frozenset[int]) -> None:
        is_another_able = await self._find_able()
        if not is_another_able:
            await self._store.accept(shards)  # at once: nobody else can serve them better
        found = tuple(await self._problems(shards))
        if found and is_another_able:
            await self._refuse(found)
            return
        await self._note(lacks=self._lacks or bool(found))
        if is_another_able:
            await self._store.accept(shards)

    async def run(self) -> None:
        """Look whether refused shards may be taken, report and compare, until canceled."""
        counted_at = anyio.current_time()
        while True:
            await anyio.sleep(LOOK_SECONDS)
            now = anyio.current_time()
            try:
                if self.refused or self._lacks:
                    async with self._lock:
                        await self._review(now)
                if now - counted_at >= COUNT_SECONDS:
                    counted_at = now
                    await self._count(now)
            except StoreError as error:
                _log.debug("placement.not_read", error=error)
            except Exception:
                _log.exception("shards.check_failed", shards=len(self._owned()))

    # ── open dialogs ──────────────────────────────────────────────────────────────────────────────────────────────

    async def _find_able(self) -> bool:
        """Return whether another process takes threads without limit and does not lack code."""
        return any(one.share is None and not Report.decode(one.report).lacks for one in await self._others())

    async def _others(self) -> list[Replica]:
        return [one for one in await self._store.replicas() if not one.is_oneself]

    async def _refuse(self, problems: tuple[str, ...]) -> None:
        if not self.refused:
            self.refused_since = self._checked_at = anyio.current_time()
            _log.warning(
                "shards.refused",
                problems=list(problems),
                remedy="wait until these dialogs have ended, restore the code, or stop the processes with the old code",
            )
        self.refused = problems
        await self._note(lacks=True)
        await self._store.limit_to(min(self._own_limit, len(self._owned()) / SHARDS))

    @property
    def _own_limit(self) -> float:
        return 1.0 if self.share is None else self.share

    async def _review(self, now: float) -> None:
        """Take shards again, if what stood in the way is gone, or nobody else can take them."""
        is_needed = bool(self.refused) and not await self._find_able()
        if not is_needed:
            if now - self._checked_at < CHECK_SECONDS:
                return
            self._checked_at = now
            if await self._problems(ALL_SHARDS):
                return
            await self._note(lacks=False)
        if self.refused:
            await self._store.limit_to(self.share)
            reason = "no other process can continue the dialogs" if is_needed else "the dialogs have ended"
            _log.info("shards.wanted_again", reason=reason)
            self.refused = ()

    async def _note(self, *, lacks: bool) -> None:
        if lacks != self._lacks:
            await self._store.publish(Report(lacks, self._counts()).encode())
            self._lacks = lacks

    # ── canary ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _count(self, now: float) -> None:
        others = await self._others()
        if any(one.share is not None for one in others):
            await self._store.publish(Report(self._lacks, self._counts()).encode())
        if self.canary_share is None:
            return
        old = [one for one in others if one.share is None]
        self.is_alone = not old
        if self.verdict is not None:
            return
        self.comparison.add_own(self._counts(), now)
        self.comparison.add_others({one.name: Report.decode(one.report).counts for one in old}, now)
        # While nobody would take the threads, they are served better here than nowhere.
        if old and (verdict := self.comparison.verdict()) is not None:
            await self._hand_back(verdict, now)

    async def _hand_back(self, verdict: CanaryVerdict, now: float) -> None:
        self.share = 0.0
        await self._store.limit_to(0.0)
        self.verdict, self.verdict_at = verdict, now
        _log.error(
            "canary.handed_back",
            reason=str(verdict),
            remedy="look at the failures (chatbot status, chatbot dead-letters list), correct the code, start it again",
        )
