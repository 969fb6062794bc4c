"""Run a replay twice, each time in a process of its own, and compare what came of it.

What differs between the two runs is not repeatable: the code does not do the same each time.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
from anyio.abc import ByteReceiveStream, Process

from chatbot.errors import ConfigError, StateError
from chatbot.testing.replays.child import ReplayJob
from chatbot.testing.replays.guard import is_author

Json = dict[str, Any]

RUNS: Final = 2
_FRAME: Final = re.compile(r'\s*File "(.+)", line (\d+) in (.+)')
_COMMAND: Final = (sys.executable, "-P", "-m", "chatbot.testing.replays.child")


class ReplayFailed(StateError):
    """A replay could not be completed: its process ended, or a handler blocked it."""


class SettingsRefused(ConfigError):
    """A plugin of a replay does not take its settings, or lacks some."""


@dataclass(slots=True)
class _Run:
    """One run, as far as it has come."""

    done: int = 0
    result: Json = field(default_factory=dict)
    rest: list[str] = field(default_factory=list)


async def run_twice(job: ReplayJob, report: Callable[[int], None], *, shows_errors: bool = False) -> list[Json]:
    """Run a job in two processes at the same time, and return both results.

    The processes end with this call, however it ends, and with this process, even if it is killed.

    Args:
        job: what to run.
        report: is called with the number of steps that both runs have done; with 0 when both have begun.
        shows_errors: whether what the first process writes to stderr is shown.

    Raises:
        ConfigError: bots.yaml or a plugin cannot be used.
        ReplayFailed: a process has ended before its time.
    """
    runs = [_Run() for _ in range(RUNS)]

    def note(_done: int) -> None:
        report(min(run.done for run in runs))

    try:
        async with anyio.create_task_group() as group:
            for number, run in enumerate(runs):
                group.start_soon(_run, job, run, note, shows_errors and number == 0)
    except BaseExceptionGroup as errors:
        raise _first(errors) from None
    return [run.result for run in runs]


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _run(job: ReplayJob, run: _Run, note: Callable[[int], None], shows_errors: bool) -> None:
    process = await anyio.open_process(
        _COMMAND,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if shows_errors else subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for this process, which then ends the other
    )
    try:
        await _send(process, job)
        assert process.stdout is not None
        await _read(process.stdout, run, note)
        if not run.result:
            await process.wait()
            raise ReplayFailed(_why(process, run))
    finally:
        with anyio.CancelScope(shield=True):
            await end_process(process)
    _raise_failure(run.result)


async def _send(process: Process, job: ReplayJob) -> None:
    data = pickle.dumps(job)
    assert process.stdin is not None
    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):  # it has died: its output says why
        await process.stdin.send(len(data).to_bytes(8, "big") + data)


async def _read(stream: ByteReceiveStream, run: _Run, note: Callable[[int], None]) -> None:
    """Read frames until the result; lines that are none are where a blocked event loop was."""
    buffered = bytearray()
    async for chunk in stream:
        buffered += chunk
        if b"\n" not in chunk:
            continue
        *lines, rest = bytes(buffered).split(b"\n")
        buffered = bytearray(rest)
        for line in lines:
            if not line.startswith(b"{"):
                run.rest = [*run.rest, line.decode(errors="replace")][-200:]
                continue
            frame = json.loads(line)
            if "progress" in frame:
                run.done = frame["progress"]
                note(run.done)
            else:
                run.result = frame
                return


async def end_process(process: Process) -> None:
    """Kill a process that leads a session of its own, with everything that its handlers have started."""
    # Not `process.kill`: it may take the exit code before the event loop does, which then logs an unknown process.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.aclose()


def _why(process: Process, run: _Run) -> str:
    where = f"after {run.done} steps" if run.done else "at the beginning"
    if any(line.startswith("Timeout") for line in run.rest):
        frames = [found for line in run.rest if (found := _FRAME.match(line))]
        own = next((found for found in frames if is_author(found[1])), None) or next(iter(frames), None)
        place = f"{own[1]}:{own[2]} in {own[3]}" if own else "an unknown place"
        return f"{place}: a handler blocks the event loop, {where}; use `await`, or a worker thread"
    code = process.returncode
    how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
    return f"the process of the replay {how}, {where}: a handler or a library ended it"


def _raise_failure(result: Json) -> None:
    if "failed" not in result:
        return
    problems = [str(one) for one in result["failed"]]
    if result.get("is_settings"):
        raise SettingsRefused(*problems)
    if result.get("is_config"):
        raise ConfigError(*problems)
    raise ReplayFailed("; ".join(problems))
