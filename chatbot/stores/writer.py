"""The writer: one thread that writes commits to disk in groups.

A commit takes about the same time for a thousand changes as for one, because it waits for the disk. All jobs submitted
while a group is being written therefore form the next group. A non-blocking queue passes jobs to the thread; the thread
passes results to the event loop once per group.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, TypeVar

import anyio
import anyio.lowlevel

from chatbot.stores import rows
from chatbot.worker_threads import run_in_thread

T = TypeVar("T")

MAX_PENDING: Final = 10_000
"""The maximum number of pending jobs; further tasks wait before they submit."""

MAX_GROUP: Final = 1_000
"""The maximum number of jobs in a transaction; it limits how long the first of them waits."""


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
        write: writes one group in the writer's thread and sets the result or error of each job. If it raises, the
            exception becomes the error of all jobs of the group.
        max_pending: see `MAX_PENDING`.
        max_group: see `MAX_GROUP`.
    """

    def __init__(
        self, write: Callable[[Sequence[Job[Any]]], None], *, max_pending: int = MAX_PENDING, max_group: int = MAX_GROUP
    ) -> None:
        self._write = write
        self._max_group = max_group
        self._slots = anyio.Semaphore(max_pending, fast_acquire=True)
        self._queue: SimpleQueue[Job[Any] | None] = SimpleQueue()
        self._is_closing = False
        # asyncio directly: with anyio, the thread would have to wait for the event loop's answer
        self._loop = asyncio.get_running_loop()
        # A daemon thread, so that an immediate stop of the process does not wait for the disk.
        self._thread = threading.Thread(target=self._run, name="chatbot-store-writer", daemon=True)

    def start(self) -> None:
        """Start the thread. Blocks until it runs: call it from a worker thread."""
        self._thread.start()

    async def submit(self, work: Callable[[Any], T]) -> T:
        """Run a write in the writer's thread; return its result once its group is durable.

        If the task is cancelled before submission, nothing is written. If it is cancelled while waiting, the write
        still takes place.

        Raises:
            StateError: the writer is closing.
            Exception: the error of the job or of its whole group; nothing was written.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        try:
            self._slots.acquire_nowait()  # does not overtake those who wait
        except anyio.WouldBlock:
            await self._slots.acquire()
        # No await from here to `put`: `close` could otherwise queue its end marker before this job, which would then
        # never be written.
        if self._is_closing:
            self._slots.release()
            raise rows.not_open()
        done: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(Job(work, done))
        return await done

    def submit_from_thread(self, work: Callable[[Any], T]) -> threading.Event:
        """Queue a write after all submitted ones, from any thread, even while the event loop is blocked.

        Returns:
            An event that is set once the job is written or has failed; it is never set if the writer is closed.
        """
        written = threading.Event()
        self._queue.put(Job(work, None, written))
        return written

    async def close(self) -> None:
        """Write the submitted jobs, then end the thread. Not interrupted by cancellation."""
        self._is_closing = True
        self._queue.put(None)
        with anyio.CancelScope(shield=True):
            await run_in_thread(self._thread.join)

    def _run(self) -> None:
        is_last = False
        while not is_last:
            group, is_last = self._next_group()
            if group:
                self._write_all(group)

    def _next_group(self) -> tuple[list[Job[Any]], bool]:
        """Wait for a job and return it with all other pending ones, and whether they are the last."""
        group: list[Job[Any]] = []
        try:
            while len(group) < self._max_group:
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
            self._loop.call_soon_threadsafe(self._return_results, group)
        except RuntimeError:
            return  # the loop was closed before the store: no task waits

    def _return_results(self, group: list[Job[Any]]) -> None:
        for job in group:
            if job.done is None:
                continue
            self._slots.release()
            if job.done.done():  # its task was cancelled
                continue
            if job.error is not None:
                job.done.set_exception(job.error)
            else:
                job.done.set_result(job.result)
