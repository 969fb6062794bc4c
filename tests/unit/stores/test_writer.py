import threading

import anyio
import pytest

from chatbot.errors import StateError
from chatbot.stores.writer import Job, Writer


class Disk:
    """What a writer writes to: remembers its groups, and stands still while its gate is closed."""

    def __init__(self) -> None:
        self.groups: list[list[object]] = []
        self.is_busy = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, group: list[Job]) -> None:
        self.groups.append([])
        self.is_busy.set()
        self.gate.wait(120)
        for job in group:
            job.result = job.work(self.groups[-1])


def put(value):
    def work(group):
        group.append(value)
        return value

    return work


async def started(disk, **sizes) -> Writer:
    writer = Writer(disk, **sizes)
    await anyio.to_thread.run_sync(writer.start)
    return writer


async def until_busy(disk) -> None:
    """Until the disk has a group in hand."""
    assert await anyio.to_thread.run_sync(disk.is_busy.wait, 10)


async def test_what_work_returned_comes_back():
    writer = await started(Disk())

    assert await writer.submit(put("a")) == "a"
    await writer.close()


async def test_what_waits_while_a_group_is_written_becomes_the_next_group():
    disk = Disk()
    writer = await started(disk)

    disk.gate.clear()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.submit, put(0))
        await until_busy(disk)
        for number in range(1, 6):
            tasks.start_soon(writer.submit, put(number))
        await anyio.wait_all_tasks_blocked()
        disk.gate.set()
    await writer.close()

    assert disk.groups == [[0], [1, 2, 3, 4, 5]]


async def test_a_group_has_a_largest_size():
    disk = Disk()
    writer = await started(disk, max_group=2)

    disk.gate.clear()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.submit, put(0))
        await until_busy(disk)
        for number in range(1, 6):
            tasks.start_soon(writer.submit, put(number))
        await anyio.wait_all_tasks_blocked()
        disk.gate.set()
    await writer.close()

    assert disk.groups == [[0], [1, 2], [3, 4], [5]]


async def test_only_so_many_jobs_are_with_the_writer_and_the_others_wait_their_turn():
    disk = Disk()
    writer = await started(disk, max_pending=3)

    disk.gate.clear()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.submit, put(0))
        await until_busy(disk)
        for number in range(1, 8):
            tasks.start_soon(writer.submit, put(number))
        await anyio.wait_all_tasks_blocked()
        disk.gate.set()
    await writer.close()

    # The place that the first job gives back may be taken before the next group is.
    assert disk.groups[:2] in ([[0], [1, 2]], [[0], [1, 2, 3]])
    assert [value for group in disk.groups for value in group] == list(range(8))
    assert max(map(len, disk.groups)) <= 3


async def test_a_failing_disk_fails_the_group_and_the_next_one_is_tried():
    fails = [True, False]

    def disk(group):
        if fails.pop(0):
            raise OSError("no disk")

    writer = await started(disk)

    with pytest.raises(OSError, match="no disk"):
        await writer.submit(put(1))
    assert await writer.submit(put(2)) is None
    await writer.close()


async def test_closing_writes_what_was_submitted_and_refuses_what_comes_later():
    disk = Disk()
    writer = await started(disk, max_pending=2)
    refused = []

    async def late() -> None:
        with pytest.raises(StateError, match="not open"):
            await writer.submit(put("late"))
        refused.append("late")

    disk.gate.clear()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.submit, put(0))
        await until_busy(disk)
        tasks.start_soon(writer.submit, put(1))
        tasks.start_soon(late)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(writer.close)
        await anyio.wait_all_tasks_blocked()
        disk.gate.set()
    await late()

    assert disk.groups == [[0], [1]]
    assert refused == ["late", "late"]


async def test_closing_waits_for_the_disk_even_when_it_is_cancelled():
    disk = Disk()
    writer = await started(disk)

    disk.gate.clear()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.submit, put(0))
        await until_busy(disk)
        tasks.start_soon(writer.close)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
        disk.gate.set()

    assert disk.groups == [[0]]


async def test_a_job_whose_task_is_cancelled_while_it_waits_is_written_and_frees_its_slot():
    disk = Disk()
    writer = await started(disk, max_pending=1)

    disk.gate.clear()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.submit, put(0))
        await until_busy(disk)
        tasks.cancel_scope.cancel()
    disk.gate.set()
    with anyio.fail_after(60):
        await writer.submit(put(1))
    await writer.close()

    assert disk.groups == [[0], [1]]


def test_a_writer_may_outlive_its_event_loop():
    """When a process stops at once, nobody waits for the answer any more."""
    disk = Disk()
    disk.gate.clear()
    writers = []

    async def main() -> None:
        writer = await started(disk)
        writers.append(writer)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(writer.submit, put(0))
            await until_busy(disk)
            tasks.cancel_scope.cancel()

    anyio.run(main)
    disk.gate.set()
    anyio.run(writers[0].close)  # returns when the thread has ended

    assert disk.groups == [[0]]
