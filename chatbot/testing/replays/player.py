"""Play a recording: the bots of a bots.yaml on a service and a store in memory, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any, Final, cast

import anyio
import structlog

from chatbot.bot import Bot
from chatbot.config import Config
from chatbot.dispatch import Ack, BotInfo, Dispatcher
from chatbot.emulator import Emulator, World
from chatbot.emulator.messages import sanitize
from chatbot.emulator.participants import Invited
from chatbot.emulator.records import Member, Message, MessageAttachment, ThreadEntry, User
from chatbot.emulator.state import ThreadContents
from chatbot.errors import StateError
from chatbot.model import REPLY_KEY, Attachment, Participant, UserId
from chatbot.polling.cadence import Cadence
from chatbot.runtime.assemble import access, bot_settings
from chatbot.runtime.observe.log_context import LoggedWork
from chatbot.runtime.observe.story import Stories, StoryStore, StoryTracer, current_story, recorded
from chatbot.runtime.plugins import Plugins
from chatbot.service.budget import NoQuotas, SharedQuotas
from chatbot.stores import MemoryStore
from chatbot.stores.base import Store
from chatbot.stores.records import BotRecord
from chatbot.stores.writes import SaveBot, SaveResult
from chatbot.testing.process import BotProcess, BotSpec, Failure
from chatbot.testing.replays.guard import noting_unrepeatable
from chatbot.testing.replays.recording import RecordedBot, Recording, Reply, Step, StepKind
from chatbot.testing.transport import Stage
from chatbot.testing.virtual_time import VirtualClock, waiting_places

CADENCE: Final = Cadence(interval=3_600, idle=86_400)
"""Polls are rare, so that silence costs little: the player asks for one whenever something has happened."""

BURST: Final = 0.1
"""Seconds between messages of a burst: bots are not asked to look before its end. Otherwise their replies would take
the ids, which are milliseconds, of the next messages of people, and with them the keys of everything that follows."""

FIRST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 30.0
"""Virtual seconds between two looks at whether the bots have handled everything."""

PATIENCE: Final = 3_600.0
"""Virtual seconds that a handler may still run after the end of the recording."""

MAX_STORIES: Final = 100_000
"""Number of stories kept of a replay: practically all, because they say what is not repeatable."""

BEFORE: Final = 60.0
"""Virtual seconds from the start of the bots to the first step."""


class ReplayTracer(StoryTracer):
    """Story of each event, with what in it is not repeatable."""

    @contextmanager
    def handler(self, name: str) -> Iterator[object]:
        """Record a handler that runs, and what it reads that differs between two runs."""
        with super().handler(name) as block, noting_unrepeatable():
            yield block


def recalling(runs: Mapping[str, Sequence[tuple[int, str, Any]]]) -> Callable[[str, int, str], Sequence[Any]]:
    """Return a function that finds what a `talk.run` has returned, and says so in the story.

    Args:
        runs: number of the step, function and encoded result, by dialog.
    """

    def recorded_run(dialog: str, index: int, label: str) -> Sequence[Any]:
        found = [value for at, name, value in runs.get(dialog, ()) if (at, name) == (index, label)]
        story = current_story()
        if found and story is not None:
            story.add("recalled", call="talk.run", result=repr(found[0])[:500])
        return found

    return recorded_run


class ScriptProcess(BotProcess):
    """The bots of a `.chat` file, with the story of each event.

    Attributes:
        stories: what the bots do with each event.
    """

    def __init__(
        self, stage: Stage, store: Store, specs: Sequence[BotSpec], on_failure: Callable[[Failure], None]
    ) -> None:
        super().__init__(stage, store, specs, on_failure)
        self.stories = Stories(MAX_STORIES)

    def make_bot(self, spec: BotSpec, records: Mapping[str, BotRecord]) -> Bot:
        """Make a bot that records stories."""
        bot = super().make_bot(spec, records)
        info = BotInfo(spec.name, bot.user, spec.name)
        tracer = ReplayTracer(spec.name, LoggedWork(spec.name, texts=False), self.stories, info)
        tracer.handlers = lambda: bot.handlers.dispatcher.handlers
        bot.context.tracer = tracer
        return bot

    def reasons(self, key: str | None) -> list[Any]:
        """Return why the reply with a key is not repeatable: what its handler has read, and where."""
        story = self.stories.of_action(key) if key else None
        found: list[Any] = story.data.get("unrepeatable", []) if story is not None else []
        return found


class RecordedProcess(BotProcess):
    """The bots of a bots.yaml, with the users that they had.

    Args:
        stage: the service.
        store: the store of all bots.
        recording: what is replayed.
        config: the settings of the bots.
        plugins: of each bot.
        stories: what the bots do with each event.
    """

    def __init__(
        self,
        stage: Stage,
        store: Store,
        recording: Recording,
        config: Config,
        plugins: Plugins,
        stories: Stories,
    ) -> None:
        super().__init__(stage, store, (), self._ignore)
        self._recorded_stage = stage
        self._recording = recording
        self._config = config
        self._plugins = plugins
        self._stories = stories

    def _ignore(self, _failure: Failure) -> None:
        """Failures are in the stories."""

    async def make_bots(self) -> list[Bot]:
        """Make all bots of the recording that bots.yaml still has."""
        recording, shared = self._recording, NoQuotas()
        first_ms = recording.begin_ms - 1
        known = [bot for bot in recording.bots if bot.name in self._config.bots]
        for bot in known:
            await self.store.commit(bot.user, [SaveBot(BotRecord(bot.name, recording.resource, bot.user, first_ms))])
            # As if they were new: otherwise a replay that is longer than the retention would prune them.
            results = [
                SaveResult(key, text, recording.end_ms)
                for (user, key), text in recording.results.items()
                if user == bot.user
            ]
            if results:
                await self.store.commit(bot.user, results)
        return [self._create(bot, known, shared, first_ms) for bot in known]

    def _create(self, known: RecordedBot, bots: Sequence[RecordedBot], shared: SharedQuotas, first_ms: int) -> Bot:
        config, stage = self._config.bots[known.name], self._recorded_stage
        others = frozenset(bot.user for bot in bots) - {known.user}
        name = config.display_name or known.name
        info = BotInfo(known.name, known.user, name, siblings=others, admins=frozenset(map(UserId, config.admins)))
        tracer = ReplayTracer(known.name, LoggedWork(known.name, texts=False), self._stories, info)

        bot = Bot(
            name=known.name,
            service=recorded(self.service_of(known.user), lambda _operation, _thread: None),
            store=cast(Store, StoryStore(self.store, self._stories)),
            dispatcher=Dispatcher(
                self._plugins[known.name],
                bot=info,
                ack=Ack(config.ack),
                access=replace(access(config), are_people_known=True),
                apology=config.apology,
            ),
            settings=replace(
                bot_settings(config, retention=self._config.retention),
                cadence=CADENCE,
                threads=None,
                maintenance=86_400,
            ),
            display_name=name,
            first_started_ms=first_ms,
            shared=shared,
            clock=stage.clock,
            tracer=tracer,
            log=structlog.get_logger(),
        )
        tracer.handlers = lambda: bot.handlers.dispatcher.handlers
        runs = {dialog: found for (user, dialog), found in self._recording.runs.items() if user == known.user}
        bot.context.conversations.recorded_run = recalling(runs)
        return bot


class RecordingPlayer:
    """Plays one recording.

    Args:
        recording: what is replayed.
        config: the settings of the bots.
        plugins: of each bot.
        report: is told how many steps are done.

    Attributes:
        stories: what the bots do with each event.
        process: the bots.
        problems: why the replay is not complete.
    """

    def __init__(self, recording: Recording, config: Config, plugins: Plugins, report: Callable[[int], None]) -> None:
        self._recording = recording
        self._report = report
        self._start = recording.begin_ms / 1000 - BEFORE
        clock = VirtualClock(start=datetime.fromtimestamp(self._start, UTC))
        self._world = World(seed=0, resource_id=recording.resource)
        self._stage = Stage(Emulator(self._world, clock=clock, quotas=False))
        self.stories = Stories(MAX_STORIES)
        self.process = RecordedProcess(self._stage, MemoryStore(), recording, config, plugins, self.stories)
        gone = [bot.name for bot in recording.bots if bot.name not in config.bots]
        self.problems = [f"{config.path}: there is no bot {name!r} any more, so it does not answer" for name in gone]

    async def play(self) -> None:
        """Let people do again what they did, at the times at which they did it."""
        self._create_thread()
        steps = self._recording.steps
        async with self._stage.resource, anyio.create_task_group() as group:
            await self.process.start(group)
            await self._settle(BEFORE / 2)
            for number, (step, following) in enumerate(zip_longest(steps, steps[1:])):
                await self._until(step.ms)
                self._act(step)
                free = (following.ms if following else step.ms + 1000) / 1000 - self._stage.clock()
                if free >= BURST:
                    await self._settle(free)
                self._report(number + 1)
            await self._until(self._recording.end_ms)
            if not await self._settle(PATIENCE):
                self.problems.append(self._explain_hang())
            await self.process.kill()
            group.cancel_scope.cancel()

    def replies(self) -> list[Reply]:
        """Return what the bots have said, with the final texts."""
        bots = {bot.user for bot in self._recording.bots}
        return [
            Reply(message.id, message.sender, message.text, message.type == "html", message.metadata.get(REPLY_KEY))
            for message in self._stage.messages(self._recording.thread)
            if message.sender in bots and not message.is_system and message.deleted is None
        ]

    async def _until(self, ms: int) -> None:
        # A little later, so that rounding never makes it the millisecond before.
        await anyio.sleep(max(0.0, ms / 1000 + 0.0002 - self._stage.clock()))

    def _create_thread(self) -> None:
        recording, state = self._recording, self._world.state
        before_ms = recording.begin_ms - 1
        users = {bot.user for bot in recording.bots} | {one.user for one in recording.members}
        for step in recording.steps:
            users |= {UserId(step.user), *(one.user for one in step.people)} - {UserId("")}
        for user in sorted(users):
            state.put(User(id=user, created=before_ms))
        creator = next((step.user for step in recording.steps if step.user), "")
        state.put(ThreadEntry(id=recording.thread, topic=recording.topic, created=before_ms, creator=creator))
        for one in recording.members:
            state.put(Member(recording.thread, one.user, before_ms, one.display_name))

    @property
    def _room(self) -> ThreadContents:
        return self._world.state.room(self._recording.thread)

    def _act(self, step: Step) -> None:
        """Put into the thread what happened, as the service had it: it was checked when it was recorded."""
        room, world = self._room, self._world
        match step.kind:
            case StepKind.SAYS:
                kind = "html" if step.is_html else "text"
                text = sanitize(step.text) if step.is_html and step.before is not None else step.text
                blank = Message(thread=room.head.id, id=0, type=kind, sequence=0, version=0, sender=step.user)
                said = replace(blank, text=text, display_name=step.name, metadata=dict(step.metadata))
                said = replace(said, attachments=tuple(map(_attached, step.attachments)))
                world.messages.post(room, step.ms, said)
            case StepKind.ADDS:
                # A bot may have added them by itself already, in this replay.
                fresh = [_invited(one) for one in step.people if room.member(one.user) is None]
                if fresh:
                    world.participants.add_members(room, step.user, fresh, step.ms)
            case StepKind.REMOVES:
                for one in step.people:
                    by = step.user if room.member(step.user) is not None else one.user
                    if room.member(one.user) is not None:
                        world.participants.remove(room, by, one.user, step.ms)
            case StepKind.RENAMES if step.text != room.head.topic or step is self._recording.steps[0]:
                world.state.put(replace(room.head, topic=step.text))
                world.messages.announce(room, "topicUpdated", step.user, step.ms, topic=step.text)

    async def _settle(self, seconds: float) -> bool:
        """Let the bots handle everything, for some virtual seconds at most; return whether they have."""
        pause, until = FIRST_PAUSE, anyio.current_time() + seconds
        while not self._is_settled():
            left = until - anyio.current_time()
            if left <= 0:
                return False
            for bot in self.process.bots:
                if not self._has_settled(bot):
                    self._request_poll(bot)
            await anyio.sleep(min(pause, left))
            pause = min(LONGEST_PAUSE, pause * 2)
        return True

    def _request_poll(self, bot: Bot) -> None:
        thread = self._recording.thread
        lane = bot.scheduler.lanes.get(thread)
        if lane is None or self._stage.is_in(thread, bot.user) is lane.membership.is_out:
            bot.watcher.request_poll()
        if lane is not None:
            bot.scheduler.schedule(thread)

    def _is_settled(self) -> bool:
        if not self.process.is_running:
            msg = "the bots have ended by themselves"
            raise StateError(msg)
        return all(map(self._has_settled, self.process.bots))

    def _has_settled(self, bot: Bot) -> bool:
        """Return whether a bot has handled everything. It need not read what it said itself: that takes a poll more."""
        thread = self._recording.thread
        if not self._stage.is_in(thread, bot.user):
            return bot.scheduler.is_idle
        return bot.is_settled(thread, self._stage.version_of_others(thread, bot.user))

    def _explain_hang(self) -> str:
        where = waiting_places(asyncio.all_tasks())
        return f"a handler did not end within an hour of virtual time after the last message; waiting are:\n{where}"


def _invited(one: Participant) -> Invited:
    since = 0 if one.share_history_time is None else int(one.share_history_time.timestamp() * 1000)
    return Invited(one.user, one.display_name, since)


def _attached(one: Attachment) -> MessageAttachment:
    return MessageAttachment(one.id, one.type, one.name or "", one.url or "", one.preview_url or "")
