"""The writer: one thread that writes commits to disk in groups.

A commit to a disk takes as long for a thousand changes as for one. All jobs that tasks submit while a group is being
written therefore become the next group. A queue that never blocks passes jobs to the thread; the thread passes results
to the event loop once per group.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

from chatbot.stores import rows

T = TypeVar("T")

ROOM: Final = 10_000
"""How many jobs the writer holds at most; further tasks wait before they submit."""

GROUP: Final = 1_000
"""How many jobs become one transaction at most; this limits how long the first of them waits."""


class Job(Generic[T]):
    """A write and its outcome: either `result` or `error` is valid after it is done.

    Args:
        work: the function to call in the writer's thread.
        done: the future that the submitting task awaits; None if no task waits.
        written: set in the writer's thread after the job, for a thread that waits for it.
    """

    __slots__ = ("done", "error", "result", "work", "written")

    def __init__(
        self, work: Callable[[Any], T], done: asyncio.Future[T] | None, written: threading.Event | None = None
    ) -> None:
        self.work = work
        self.done = done
        self.written = written
        self.result: T | None = None
        self.error: Exception | None = None


class Writer:
    """A thread that writes groups of jobs.

    Args:
        write: writes one group, in the writer's thread, and gives each job its result or error. What it raises
            becomes the error of the group's jobs.
        room: see `ROOM`.
        group: see `GROUP`.
    """

    def __init__(self, write: Callable[[Sequence[Job[Any]]], None], *, room: int = ROOM, group: int = GROUP) -> None:
        self._write = write
        self._group = group
        self._room = anyio.Semaphore(room, fast_acquire=True)
        self._queue: SimpleQueue[Job[Any] | None] = SimpleQueue()
        self._is_closing = False
        # anyio has no way to hand back to the loop that does not make the thread wait for the loop's answer
        self._loop = asyncio.get_running_loop()
        # A daemon: a process that is told to stop now does not wait for a disk.
        self._thread = threading.Thread(target=self._run, name="chatbot-store-writer", daemon=True)

    def start(self) -> None:
        """Start the thread. Blocks until it runs: call it from a worker thread."""
        self._thread.start()

    async def submit(self, work: Callable[[Any], T]) -> T:
        """Have something written; returns what `work` returned, once its group is durable.

        Cancelled before it is submitted, it is not written; cancelled while waiting, it is written all the same.

        Raises:
            StateError: the writer is closing.
            Exception: what the job, or its whole group, failed with; it was not written then.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        await self._room.acquire()
        if self._is_closing:
            self._room.release()
            raise rows.not_open()
        done: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(Job(work, done))
        return await done

    def submit_from_thread(self, work: Callable[[Any], T]) -> threading.Event:
        """Have something written after everything that was submitted; the event loop may be blocked.

        Returns:
            set once it is written, or has failed; never, if the writer is closed.
        """
        written = threading.Event()
        self._queue.put(Job(work, None, written))
        return written

    async def close(self) -> None:
        """Write what was submitted, then end the thread. Cancellation waits."""
        self._is_closing = True
        self._queue.put(None)
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._thread.join)

    def _run(self) -> None:
        is_last = False
        while not is_last:
            group, is_last = self._take()
            if group:
                self._write_all(group)

    def _take(self) -> tuple[list[Job[Any]], bool]:
        """Wait for a job, then take all that are there; whether they are the last ones."""
        group: list[Job[Any]] = []
        try:
            while len(group) < self._group:
                job = self._queue.get(block=not group)
                if job is None:
                    return group, True
                group.append(job)
        except Empty:
            pass
        return group, False

    def _write_all(self, group: list[Job[Any]]) -> None:
        try:
            self._write(group)
        except Exception as error:  # handed to the tasks that wait, which log or raise it
            for job in group:
                job.error = error
        for job in group:
            if job.written is not None:
                job.written.set()
        try:
            self._loop.call_soon_threadsafe(self._hand_back, group)
        except RuntimeError:
            return  # the loop was closed without closing the store: nobody waits any more

    def _hand_back(self, group: list[Job[Any]]) -> None:
        for job in group:
            if job.done is None:
                continue
            self._room.release()
            if job.done.done():  # its task was cancelled
                continue
            if job.error is not None:
                job.done.set_exception(job.error)
            else:
                job.done.set_result(job.result)
