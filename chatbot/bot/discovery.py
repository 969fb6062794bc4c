"""Poll the list of a bot's threads for new, changed and deleted threads."""

from __future__ import annotations

import math
from asyncio import get_running_loop
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

import anyio

from chatbot.bot.environment import BotContext
from chatbot.bot.forwarding import Forwarding, item_of
from chatbot.bot.handlers import Signal
from chatbot.bot.lane import Lane
from chatbot.bot.membership import Presence
from chatbot.bot.scheduler import Scheduler
from chatbot.cluster.notes import ListAgain, ThreadNotified, ThreadsListed
from chatbot.errors import OutcomeUnknown, ServiceError, Throttled, Unreachable
from chatbot.model import ThreadId, ThreadItem, milliseconds
from chatbot.polling.eventgrid import DeliveryReliability
from chatbot.polling.thread_list import PAGE_SIZE, SMALL_PAGE_SIZE, ThreadListWalk, may_have_moved
from chatbot.service.back_off import BackOff
from chatbot.service.budget import Operation

FULL_WALK_SECONDS: Final = 600.0
"""Seconds between two full reads of the thread list: a few threads are listed out of order (recorded sessions)."""

COMPLETE_POLL_SECONDS: Final = 1.0
"""Seconds after which a poll reads everything that is listed since the last complete one, and not only what is new."""

GOLDEN_RATIO: Final = 0.618
"""Multiples of it, modulo 1, are spread evenly for any number of bots."""

LISTED_AGAIN_MS: Final = 60_000
"""How far back the list is read again after threads were taken over: longer than a process can be silent unnoticed."""

WAIT_SECONDS: Final = 60.0
"""Seconds between two reports of a watcher that does not poll, because another process does."""

FEW_MOVED: Final = 8
"""Threads with news for which the next poll is expected to need no more than a small page."""

POLLS_AHEAD: Final = 5
"""Threads that are polled before they are listed, for each listed one with news."""


class ThreadWatcher:
    """Poll the thread list for new, changed and deleted threads.

    Args:
        context: The bot's environment.
        scheduler: Holds the lanes of the threads.

    Attributes:
        has_walked: The thread list was read to its end since the start.
        listed: How many threads the first read of the whole list has shown.
        answered: Set once the service has listed threads.
    """

    def __init__(self, context: BotContext, scheduler: Scheduler) -> None:
        self._context = context
        self._scheduler = scheduler
        self._requested = Signal()
        self._polled_ms: int | None = None
        self._completed_ms: int | None = None
        self._is_listing_again = False
        self._full_walk: ThreadListWalk | None = None
        self._full_walk_at = 0.0
        self._is_complete = False
        self._reliability = DeliveryReliability()
        self._page_size = SMALL_PAGE_SIZE
        self._completed_at = -COMPLETE_POLL_SECONDS
        self._is_budgeted = self._is_partly_read = False
        self._started_at = 0.0
        self._unlisted: Iterator[ThreadId] | None = None
        self._polled_ahead: list[ThreadId] = []
        self._forwarding = Forwarding(context)
        self.has_walked = False
        self.listed = 0
        self.answered = anyio.Event()

    def restart(self, horizon_ms: int | None) -> None:
        """Reset the state, at the start of the bot.

        Args:
            horizon_ms: Service time, epoch ms, up to which everything is settled; None if unknown.
        """
        self._polled_ms, self._is_complete = horizon_ms, horizon_ms is not None
        self._completed_ms = horizon_ms
        self._full_walk, self.has_walked, self.listed = None, False, 0
        self._started_at = get_running_loop().time()
        self._unlisted, self._polled_ahead = None, []

    def take_over(self, horizon_ms: int | None) -> None:
        """Poll the list in place of another process, which may have used all of the quota."""
        self.restart(horizon_ms)
        self._is_budgeted = False
        self._full_walk_at = get_running_loop().time()
        self.request_poll()

    def list_again(self) -> None:
        """List again what has moved lately: who was told of it may have lost its threads, or not have had them yet."""
        if self._polled_ms is not None:
            # However often this is called before the next complete poll, it goes back only once.
            self._polled_ms = min(self._polled_ms, (self._completed_ms or self._polled_ms) - LISTED_AGAIN_MS)
        self._completed_at = -math.inf
        self._is_listing_again = True
        self._forwarding.clear()
        self.request_poll()

    def request_poll(self) -> None:
        """Poll the thread list as soon as possible, instead of at its next interval."""
        self._requested.set()

    def is_in(self, thread: ThreadId) -> bool:
        """Return whether the bot is in a thread, as far as it knows."""
        lane = self._scheduler.lanes.get(thread)
        return lane is not None and not lane.membership.is_out

    def notice(self, thread: ThreadId, change: int) -> None:
        """Poll a thread in which another bot of this process has seen a change that is not known here."""
        lane = self._scheduler.lanes.get(thread)
        if lane is None or lane.membership.presence is not Presence.IN:
            return
        if thread in self._scheduler.working:
            lane.poller.note_change(change)
        elif not lane.poller.has_seen(change) and not lane.is_backing_off:
            self._scheduler.schedule(thread)

    def handle_notification(self, thread: ThreadId) -> None:
        """Handle an Event Grid notification about a thread, which may not be one of the bot's."""
        if not self.is_in(thread):
            if not self._context.owns(thread):
                self._context.ownership.tell(ThreadNotified(self._context.user, thread))
            elif self._context.owns_bot:
                self.request_poll()  # the thread list shows whether the thread is the bot's
            else:
                self._context.ownership.tell(ListAgain(self._context.user))
            return
        lane = self._scheduler.lanes[thread]
        self._reliability.record_delivery(thread, get_running_loop().time())
        lane.poller.mark_notified()
        if not lane.is_backing_off:
            self._scheduler.schedule(thread, due=lane.poller.next_notified_poll(get_running_loop().time()))

    @property
    def pause(self) -> float:
        """Seconds between two polls of the thread list; longer while Event Grid delivers reliably."""
        cadence = self._context.settings.cadence
        return cadence.idle if self._reliability.is_trusted(get_running_loop().time()) else cadence.interval

    async def run(self) -> None:
        """Poll the thread list until canceled."""
        neighbors = self._context.shared.neighbors
        # Bots that start together poll in turn: what one of them sees wakes the others.
        phase = len(neighbors) * GOLDEN_RATIO % 1
        neighbors[self._context.user] = self
        try:
            await anyio.sleep(phase * self._context.settings.cadence.fast)
            self._full_walk_at = get_running_loop().time()
            await self._poll_until_stopping()
        finally:
            neighbors.pop(self._context.user, None)
        await anyio.sleep_forever()  # a stopping bot polls no more, but returning here would count as a failure

    async def _poll_until_stopping(self) -> None:
        back_off = BackOff()
        self._context.monitor.thread_list_polled()
        while not self._context.is_stopping:
            if not self._context.owns_bot:
                await self._wait(WAIT_SECONDS)  # another process polls the list
                continue
            if not self._is_budgeted:
                # Even at the first start: a process that was killed within its first seconds has stored nothing.
                self._context.budget.assume_previous_process(get_running_loop().time())
                self._is_budgeted = True
            begun_at = get_running_loop().time()
            try:
                await self._poll()
                self._context.ongoing.record_success("list threads")
                back_off.succeeded()
                pause = self.pause if self._full_walk is None else self._context.settings.cadence.interval
                pause = max(0.0, begun_at + pause - get_running_loop().time())
            except ServiceError as error:
                pause = self._failed(error, back_off)
            await self._wait(pause)

    async def _wait(self, pause: float) -> None:
        """Wait for the next poll; `request_poll` shortens the wait to what the quota allows."""
        self._context.monitor.thread_list_polled(pause)
        await self._requested.wait(pause)

    def _failed(self, error: ServiceError, back_off: BackOff) -> float:
        self._context.ongoing.record_failure("list threads", error)
        now = get_running_loop().time()
        pause = back_off.failed(error, now, Operation.LIST_THREADS)
        if isinstance(error, Throttled):
            self._context.budget.block(Operation.LIST_THREADS, now + pause)
        return pause

    async def _poll(self) -> None:
        """Read what has changed since the last poll, then continue the full walk."""
        begun_at = get_running_loop().time()
        is_urgent = self._full_walk is not None and self._full_walk.is_urgent
        if self._polled_ms is not None and not is_urgent:
            await self._read_top(self._polled_ms)
        if self._full_walk is None and (self._polled_ms is None or get_running_loop().time() >= self._full_walk_at):
            is_first = self._polled_ms is None
            self._full_walk = ThreadListWalk(self._context.service, self._context.budget, is_urgent=is_first)
        if self._full_walk is not None:
            # Of a busy list's time, both get half: the walk must not fall behind its share of the quota.
            spent = get_running_loop().time() - begun_at
            left = max(spent, self._context.settings.cadence.interval - spent)
            await self._continue_full_walk(self._full_walk, get_running_loop().time() + left)

    async def _read_top(self, horizon_ms: int) -> None:
        """Read the top of the list: down to the horizon, or, in between, while all threads of a page have news.

        Only a complete poll moves the horizon. A thread may be listed late, below threads whose news is known, so the
        others only find most news earlier.
        """
        now, self._is_listing_again = get_running_loop().time(), False
        walk = ThreadListWalk(
            self._context.service, self._context.budget, horizon_ms=horizon_ms, page_size=self._page_size
        )
        items = await walk.read()
        news = self._process(items, walk)
        self._page_size = SMALL_PAGE_SIZE if sum(news) <= FEW_MOVED else PAGE_SIZE
        if now < self._completed_at + COMPLETE_POLL_SECONDS and not any(news[len(news) // 2 :]) and not walk.is_over:
            return
        while not walk.is_over:
            self._poll_ahead(items, walk)
            items = await walk.read()
            self._process(items, walk)
        # The start of the walk, not its end: changes made during the walk must be read again.
        self._polled_ms = self._completed_ms = walk.begun_ms or self._polled_ms
        self._completed_at = now
        if self._is_listing_again:  # requested while the walk had already passed what is to be listed
            self.list_again()

    def _poll_ahead(self, items: Sequence[ThreadItem], walk: ThreadListWalk) -> None:
        """Poll threads that the next pages of the list would probably show, while the quota delays these pages.

        After a start, the quota is assumed to be used up by the previous process. If most listed threads have moved
        since then, polling the next ones takes less time than waiting for the pages that list them. Only threads that
        were not polled since the start are, the most recently active first, and no more of them once most had no news.

        Args:
            items: The last page.
            walk: The walk that continues with the next page.
        """
        moved = sum(self._has_moved(item.id) for item in items)
        if moved * 2 < len(items) or not walk.delay(get_running_loop().time()):
            return
        lanes = self._scheduler.lanes
        polled = [thread for thread in self._polled_ahead if thread in lanes and lanes[thread].poller.has_polled]
        if sum(map(self._has_moved, polled)) * 2 < len(polled):
            return
        if self._unlisted is None:
            tops = {thread: lane.commits.cursor.top for thread, lane in lanes.items()}
            self._unlisted = iter(sorted(tops, key=tops.__getitem__, reverse=True))
        unpolled = (thread for thread in self._unlisted if self._is_unpolled(thread))
        self._polled_ahead = list(islice(unpolled, POLLS_AHEAD * moved))
        for thread in self._polled_ahead:
            self._scheduler.schedule(thread)

    def _has_moved(self, thread: ThreadId) -> bool:
        """Return whether there is or was news in a thread since the start."""
        lane = self._scheduler.lanes.get(thread)
        if lane is None:
            return False
        return lane.poller.activity_ms is not None or lane.poller.last_message_at >= self._started_at

    def _is_unpolled(self, thread: ThreadId) -> bool:
        lane = self._scheduler.lanes.get(thread)
        return lane is not None and lane.poller.run_at is None and lane.membership.presence is Presence.IN

    async def _continue_full_walk(self, walk: ThreadListWalk, until: float) -> None:
        """Read the pages of the full walk that its share of the quota allows now, but only until a time.

        Many pages in a row would delay what the top of the list shows. One is read in any case, and all while the walk
        is urgent.
        """
        is_top_due = False
        while walk.is_urgent or not (is_top_due or walk.delay(get_running_loop().time())):
            was_urgent = walk.is_urgent
            try:
                self._process(await walk.read(), walk)
            except (Throttled, Unreachable, OutcomeUnknown):
                raise
            except ServiceError:
                self._full_walk = None  # start over: the service may have refused the page link
                raise
            self._polled_ms = self._polled_ms or walk.begun_ms
            if not self.has_walked:
                self.listed = walk.listed
                self._log_progress(walk, is_end_far=was_urgent and not walk.is_urgent)
            if walk.is_over:
                self._full_walk, self._full_walk_at = None, get_running_loop().time() + FULL_WALK_SECONDS
                self.has_walked = self._is_complete = True
                return
            is_top_due = get_running_loop().time() >= until

    def _log_progress(self, walk: ThreadListWalk, *, is_end_far: bool) -> None:
        """Log how far a first start has read the list, if its end is read much later than its beginning."""
        if walk.is_over and self._is_partly_read:
            self._context.log.info("thread_list.read", threads=walk.listed)
        elif is_end_far and not walk.is_over:
            self._context.log.info("thread_list.partly_read", threads=walk.listed)
            self._is_partly_read = True

    def _process(self, items: Sequence[ThreadItem], walk: ThreadListWalk) -> list[bool]:
        """Schedule polls of the threads that have news; return for each of these threads whether it has."""
        self._context.monitor.thread_list_polled()
        self._scheduler.answers.note_answer()
        self.answered.set()
        if walk.pages == 1 and walk.date_ms is not None:
            self._context.conversations.note_service_time(walk.date_ms)
        listed_ms, begun_ms = walk.service_ms(get_running_loop().time()), walk.begun_ms
        if not self._context.ownership.is_shared:
            return [self._needs_poll(item) and self._schedule_poll(item, listed_ms, begun_ms) for item in items]
        others = [item for item in items if not self._context.owns(item.id)]
        is_full = walk is self._full_walk
        news = self._forwarding.forward(others, listed_ms, horizon_ms=self._polled_ms, is_full=is_full)
        for item in items:
            if self._context.owns(item.id) and self._needs_poll(item):
                news[item.id] = self._schedule_poll(item, listed_ms, begun_ms)
        return [news.get(item.id, False) for item in items]

    def receive(self, note: ThreadsListed) -> None:
        """Schedule polls of the threads that another process has listed and that are owned here."""
        conversations = self._context.conversations
        if note.listed_ms is not None and not conversations.has_service_time:
            conversations.note_service_time(note.listed_ms)
            self.answered.set()
        for listed in note.threads:
            item = item_of(listed)
            if self._context.owns(item.id) and self._needs_poll(item):
                self._schedule_poll(item, note.listed_ms, note.listed_ms)

    def _schedule_poll(self, item: ThreadItem, listed_ms: int | None, begun_ms: int | None) -> bool:
        """Schedule the polls of a thread that its timestamp calls for, and return whether there are any.

        Args:
            item: The thread as it is listed.
            listed_ms: Not later than the service's time now, epoch ms; None if unknown.
            begun_ms: Not later than the service's time when the first page was requested; None if unknown.
        """
        now, is_change = get_running_loop().time(), True
        lane = self._scheduler.lanes.get(item.id)
        if lane is None:
            lane = self._scheduler.open(item.id, item.last_activity)
        elif item.deleted_on is not None:
            lane.mark_deleted()
        elif lane.membership.presence is Presence.OUT:
            lane.membership.probe(item.last_activity)
        else:
            is_change = False
        due = lane.poller.note_activity(item.last_activity, listed_ms)
        if item.last_activity is not None and self._reliability.is_delivered:
            stamp_ms = milliseconds(item.last_activity)
            self._reliability.record_activity(item.id, ((begun_ms or stamp_ms) - stamp_ms) / 1000, now)
        if is_change:
            due = now
        # A lane at work finds the activity at the end of its turn.
        if due is not None and not lane.is_backing_off and (is_change or item.id not in self._scheduler.working):
            self._scheduler.schedule(item.id, due=due)
        return due is not None

    def _needs_poll(self, item: ThreadItem) -> bool:
        """Return whether a listed thread must be polled."""
        lane = self._scheduler.lanes.get(item.id)
        if lane is None:
            return item.deleted_on is None and self._context.serves(item.id)
        if lane.membership.is_out:
            if item.deleted_on is not None:
                return lane.membership.presence is Presence.OUT
            return self._context.serves(item.id) and lane.membership.needs_probe(
                item.last_activity, lane.poller.polled_ms, get_running_loop().time()
            )
        if item.deleted_on is not None:
            return True
        if lane.poller.has_noted(item.last_activity) and not self._reliability.is_delivered:
            return False  # nearly always; how reliable deliveries are depends on how old an uncovered timestamp gets
        return may_have_moved(item.last_activity, lane.poller.polled_ms)

    def settled_ms(self) -> int | None:
        """Return the service time, epoch ms, up to which all changes in the thread list are settled; None if unknown.

        After a restart, only threads that have changed since then must be polled before their interval. The value
        must never be later than an unsettled change, or that change waits for the thread's idle poll.
        """
        if not self._is_complete or self._polled_ms is None:
            return None
        settled = self._polled_ms
        if self._context.ownership.replicas > 1:
            settled -= LISTED_AGAIN_MS  # it is not known here what others have not yet handled
        for lane in self._scheduler.lanes.values():
            if (unsettled := _unsettled_since(lane)) is not None:
                settled = min(settled, unsettled)
        return settled or None


def _unsettled_since(lane: Lane) -> int | None:
    """Return since when a thread may have unsettled changes, as epoch ms; 0 if unknown, None if it has none."""
    poller, presence = lane.poller, lane.membership.presence
    if poller.activity_ms is None or lane.membership.is_out:
        return None
    # If the membership is unknown, it is enough that the list shows the thread again.
    return poller.activity_ms if presence is Presence.UNKNOWN else poller.polled_ms or 0
