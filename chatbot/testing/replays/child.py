"""The process of one run of a replay: it gets the conversation on its standard input, and prints what happens.

It ends with its parent: when the standard input ends, it exits at once, whatever its handlers do.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

import anyio

from chatbot.config import Config, load_config
from chatbot.errors import ChatbotError, ConfigError, PluginSettingsError, described
from chatbot.runtime.logs import logging_to
from chatbot.runtime.plugins import Plugins, load_plugins
from chatbot.testing.chat_files.difference import Performance, ScriptRun, perform
from chatbot.testing.chat_files.script import Script
from chatbot.testing.replays.guard import Guard, NetworkLoop, ReplayLoop, ReplaySelector
from chatbot.testing.replays.player import RecordingPlayer, ScriptProcess
from chatbot.testing.replays.recording import Recording

Json = dict[str, Any]

HANG_SECONDS: Final = 20.0
"""Seconds after which a handler that blocks the event loop ends the run."""

PROGRESS_EVERY: Final = 10
"""Steps between two reports of progress."""


@dataclass(frozen=True, slots=True)
class ReplayJob:
    """What one run does.

    Args:
        what: a recording of a thread, or a `.chat` file.
        config: the bots.yaml of a recording; the directory of a `.chat` file.
        root: the directory of the project, for a `.chat` file.
        allows_network: whether author code may reach the network.
        patience: seconds after which a handler that blocks the event loop ends the run.
    """

    what: Recording | Script
    config: Path
    root: Path = field(default_factory=Path)
    allows_network: bool = False
    patience: float = HANG_SECONDS


class Child:
    """One run.

    Args:
        job: what it does.
        out: gets the frames: one JSON object a line.
    """

    def __init__(self, job: ReplayJob, out: BinaryIO) -> None:
        self._job = job
        self._out = out
        self._reported = 0
        self._guard = Guard(allows_network=job.allows_network)
        self._selector = ReplaySelector(allows_network=job.allows_network, hangs=out, patience=job.patience)

    def run(self) -> None:
        """Run it, and print the result, or why there is none."""
        self._guard.install()
        try:
            result = self._perform()
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            self._print(_failed(error))
            return
        self._print({**result, "refused": self._guard.refused})

    def _perform(self) -> Json:
        what = self._job.what
        if isinstance(what, Script):
            return self._perform_script(what)
        config = load_config(self._job.config, os.environ)
        plugins = load_plugins(config)
        self._begin()
        return anyio.run(self._play, what, config, plugins, backend_options={"loop_factory": self._loop})

    async def _play(self, recording: Recording, config: Config, plugins: Plugins) -> Json:
        player = RecordingPlayer(recording, config, plugins, self._report)
        self._selector.is_working = lambda: any(bot.scheduler.working for bot in player.process.bots)
        await player.play()
        return {
            "done": True,
            "replies": [asdict(reply) for reply in player.replies()],
            "stories": player.stories.all(),
            "problems": player.problems,
        }

    def _perform_script(self, script: Script) -> Json:
        processes: list[ScriptProcess] = []

        def process(*args: Any) -> ScriptProcess:
            processes.append(ScriptProcess(*args))
            return processes[-1]

        self._selector.is_working = lambda: any(bot.scheduler.working for one in processes for bot in one.bots)
        how = Performance(
            raise_failures=False, loop=self._loop, process=process, begin=self._begin, report=self._report
        )
        done = perform(script, near=self._job.config, root=self._job.root, how=how)
        reasons = {place: processes[-1].reasons(key) for place, key in done.keys.items()}
        return {**_script_result(done), "reasons": {place: found for place, found in reasons.items() if found}}

    def _begin(self) -> None:
        self._guard.has_begun = True
        self._print({"progress": 0})

    def _loop(self) -> ReplayLoop:
        kind = NetworkLoop if self._job.allows_network else ReplayLoop
        return kind(self._guard, self._selector)

    def _report(self, number: int) -> None:
        if number - self._reported >= PROGRESS_EVERY:  # steps of bots in a file are not reported
            self._reported = number
            self._print({"progress": number})

    def _print(self, frame: Mapping[str, Any]) -> None:
        self._out.write(json.dumps(frame, default=repr).encode() + b"\n")
        self._out.flush()


def _script_result(done: ScriptRun) -> Json:
    steps = [
        {
            "verb": step.verb.value,
            "who": step.who,
            "text": step.text,
            "target": step.target,
            "seconds": step.duration.total_seconds(),
            "number": step.number,
        }
        for step in done.steps
    ]
    failures = [{"bot": failure.bot, "error": _described(failure.error)} for failure in done.failures]
    return {"done": True, "steps": steps, "failures": failures}


def _described(error: Exception) -> str:
    try:
        return f"{error!r}"
    except BaseException:
        return described(error)


def _failed(error: BaseException) -> Json:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, ConfigError):
        is_settings = isinstance(error.__cause__, PluginSettingsError)
        return {"failed": list(error.problems), "is_config": True, "is_settings": is_settings}
    if isinstance(error, ChatbotError):
        return {"failed": [str(error)]}
    return {"failed": [f"the replay failed: {described(error)[:2000]}"]}


def _end_with_parent(stream: BinaryIO) -> None:
    while stream.read(1):
        pass
    os._exit(0)


def main() -> None:
    """Read the job, and run it."""
    # What author code prints goes to stderr: stdout is the channel to the parent.
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    stream = sys.stdin.buffer
    size = int.from_bytes(stream.read(8), "big")
    job = pickle.loads(stream.read(size))  # noqa: S301 -- from the parent
    threading.Thread(target=_end_with_parent, args=(stream,), daemon=True, name="parent").start()
    with logging_to(sys.stderr, format="console", level="error"):
        Child(job, out).run()
    out.flush()
    os._exit(0)  # threads of author code must not keep the process


if __name__ == "__main__":
    main()
