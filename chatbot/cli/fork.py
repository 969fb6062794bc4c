"""Read a thread of running bots, and replay it with today's code: for `chatbot replay --thread` and the playground."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from chatbot.cli.daemon_client import connection_to
from chatbot.cli.record import read_thread
from chatbot.config import Config
from chatbot.errors import StateError
from chatbot.model import ThreadId, UserId
from chatbot.runtime.run_directory import ControlDirectory
from chatbot.testing.replays.child import ReplayJob
from chatbot.testing.replays.comparison import Comparison, as_json, compare
from chatbot.testing.replays.processes import run_twice
from chatbot.testing.replays.recording import RecordedBot, Recording, recording_of, runs_in, without_erased
from chatbot.worker_threads import run_in_thread

Json = dict[str, Any]
Ask = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]
"""Asks the running bots; see `ControlApi.answer`."""


async def read_recording(config: Config, control: ControlDirectory, thread: ThreadId, ask: Ask) -> Recording:
    """Return the recording of a thread of running bots, with the results of `once` and `talk.run`.

    Raises:
        StateError: no bots run, or nobody has said anything in the thread.
        UnknownName: none of the bots is in the thread.
        ServiceError: it cannot be read.
    """
    info = await run_in_thread(control.running)
    messages, present = await read_thread(info, connection_to(info, config.path), config, thread)
    bots = [RecordedBot(bot.name, bot.user_id, bot.display_name) for bot in info.bots]
    recording = recording_of(thread, messages, resource=info.resource, bots=bots, present=present)
    users = {step.user for step in recording.steps} | {one.user for one in present}
    answer = await ask({"ask": "state results", "users": sorted(users - {"", *(bot.user for bot in bots)})})
    results = {(UserId(bot), str(key)): str(text) for bot, key, text in answer["results"]}
    journals = {(UserId(bot), str(id)): str(text) for bot, id, text in answer["journals"]}
    return replace(recording, results=without_erased(results), runs=runs_in(journals))


async def replay_recording(
    config: Config,
    recording: Recording,
    report: Callable[[int], None],
    *,
    allows_network: bool = False,
) -> Comparison:
    """Replay a recording with the plugins and the bots.yaml as they are on the disk now.

    Args:
        config: names the bots.yaml, which is read again.
        recording: what is replayed.
        report: is called with the number of steps that are done.
        allows_network: whether author code may reach the network.

    Raises:
        ConfigError: bots.yaml or a plugin cannot be used.
        StateError: the replay could not be completed.
    """
    job = ReplayJob(recording, config.path, allows_network=allows_network)
    return compare(recording, await run_twice(job, report))


async def fork_thread(
    config: Config, control: ControlDirectory, ask: Ask, wanted: Mapping[str, Any], report: Callable[[int, int], None]
) -> tuple[Json, list[Json]]:
    """Fork a thread for the playground: return the comparison, and the stories of the replay.

    Args:
        config: of the running bots.
        control: of the running bots.
        ask: asks them.
        wanted: `thread`; `edits`, texts of people's messages by their ids; `network`, whether it is allowed.
        report: is called with the number of steps that are done, and of all steps.

    Raises:
        ChatbotError: the thread cannot be replayed.
    """
    recording = await read_recording(config, control, ThreadId(str(wanted["thread"])), ask)
    edits = wanted.get("edits") or {}
    if not isinstance(edits, dict):
        message = "edits are texts by the ids of messages"
        raise StateError(message)
    edited = recording.edited({str(id): str(text) for id, text in edits.items()})
    count = len(edited.steps)
    report(0, count)
    comparison = await replay_recording(
        config, edited, lambda done: report(done, count), allows_network=wanted.get("network") is True
    )
    return as_json(comparison), list(comparison.stories)
