"""Run a script in a chat of the harness, and show where the bots' replies differ from it, as lines for people.

The comparison is pure; `perform` runs the people's steps and records what the bots do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import Final

import anyio

from chatbot.bot import BotSettings
from chatbot.dispatch import Ack
from chatbot.dispatch.plaintext import plain_text
from chatbot.emulator import Emulator, World
from chatbot.emulator.records import Message
from chatbot.errors import ConfigError, PluginError
from chatbot.model import REPLY_KEY, MessageId
from chatbot.plugin import Plugin, load_plugin
from chatbot.stores import MemoryStore
from chatbot.stores.base import Store
from chatbot.testing.chat_files.script import (
    Role,
    Script,
    ScriptStep,
    Verb,
    as_written,
    final_replies,
    first_line,
    with_final_texts,
)
from chatbot.testing.harness import VIRTUAL_CADENCE, VIRTUAL_LIMIT, Harness, bot_specs, run_harness
from chatbot.testing.process import BotOptions, BotProcess, BotSpec, Failure
from chatbot.testing.room import Person, Room, ThreadMember
from chatbot.testing.transport import Stage
from chatbot.testing.virtual_time import VirtualClock, VirtualTimeLoop, store_in_real_time, virtual_loop

CONTEXT: Final = 3
"""Number of steps shown before and after a difference."""


def difference(expected: Sequence[ScriptStep], actual: Sequence[ScriptStep]) -> list[str]:
    """Return the differences as text: `-` is an expected step with its line in the file; `+` is what happened.

    Returns:
        No lines if there is no difference.
    """
    matcher = SequenceMatcher(None, [step.key for step in expected], [step.key for step in actual], autojunk=False)
    width = len(str(max((step.number for step in expected), default=0)))
    lines: list[str] = []
    for group in matcher.get_grouped_opcodes(CONTEXT):
        lines += ["…"] if lines else []
        for tag, first, last, begin, end in group:
            if tag == "equal":
                lines += _shown(" ", expected[first:last], width)
            else:
                lines += _shown("-", expected[first:last], width)
                lines += _shown("+", actual[begin:end], width)
    return lines


def other_replies(script: Script, done: Sequence[ScriptStep]) -> Iterator[tuple[str, list[str]]]:
    """Return the differing replies of each bot, one bot after the other.

    The order of replies and people's messages is not compared: people in a recording did not wait for the bots.
    """
    for bot in script.bots:
        before, now = final_replies(script.steps, bot), final_replies(done, bot)
        if [step.key for step in before] != [step.key for step in now]:
            shown = [
                step for step in with_final_texts(done, script.bots) if step.who == bot or step.who not in script.bots
            ]
            yield bot, difference(_with_replies(shown, before, now), shown)


def _with_replies(
    done: Sequence[ScriptStep], before: Sequence[ScriptStep], now: Sequence[ScriptStep]
) -> list[ScriptStep]:
    """Return the steps that happened, with a bot's expected replies in place of its actual ones."""
    matcher = SequenceMatcher(None, [step.key for step in before], [step.key for step in now], autojunk=False)
    places: dict[int, list[ScriptStep]] = {}
    for tag, first, last, begin, _ in matcher.get_opcodes():
        for offset, step in enumerate(before[first:last]):
            places.setdefault(begin + offset if tag == "equal" else begin, []).append(step)
    mixed: list[ScriptStep] = []
    count = 0
    for step in done:
        if step not in now:
            mixed.append(step)
            continue
        mixed += places.pop(count, [])
        count += 1
    return [*mixed, *(step for rest in places.values() for step in rest)]


def first_difference(expected: Sequence[ScriptStep], actual: Sequence[ScriptStep]) -> int:
    """Return the line of the file at which the steps begin to differ."""
    for one, other in zip(expected, actual, strict=False):
        if one.key != other.key:
            return one.number
    rest = expected[len(actual) :] or expected[-1:]
    return rest[0].number if rest else 1


def _shown(sign: str, steps: Sequence[ScriptStep], width: int) -> Iterator[str]:
    for step in steps:
        for offset, line in enumerate(str(step).split("\n")):
            number = "" if sign == "+" or not step.number or offset else str(step.number)
            yield f"{sign} {number:>{width}}  {line}".rstrip()


@dataclass(frozen=True, slots=True)
class ScriptRun:
    """The result of a run.

    Args:
        steps: all steps in order: people's as in the script, the bots' as they happened.
        failures: of handlers, unless they were raised.
        keys: by the number of a bot's step in `steps`: the key of the reply.
    """

    steps: tuple[ScriptStep, ...]
    failures: tuple[Failure, ...]
    keys: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Performance:
    """How a script is run.

    Args:
        raise_failures: whether a handler's failure ends the run.
        loop: makes the event loop.
        process: makes the process of the bots.
        begin: is called when all plugins are loaded.
        report: is called after each step of the script, with how many are done.
    """

    raise_failures: bool = True
    loop: Callable[[], VirtualTimeLoop] = VirtualTimeLoop
    process: Callable[[Stage, Store, Sequence[BotSpec], Callable[[Failure], None]], BotProcess] = BotProcess
    begin: Callable[[], None] = lambda: None
    report: Callable[[int], None] = lambda _: None


def perform(script: Script, *, near: Path, root: Path, how: Performance | None = None) -> ScriptRun:
    """Load the plugins of a script and run it, in virtual time, on an event loop of its own.

    Args:
        script: the conversation.
        near: its directory. Plugins are searched for there, then in each directory above, up to `root`.
        root: the directory of the project; it comes first on `sys.path` if no nearer directory has the plugin.
        how: how it is run; as a test by default.

    Raises:
        ConfigError: a plugin cannot be loaded.
        Exception: the exception of a handler, with the line of the script as a note.
    """
    cast = {role.name: [_load(script, role, path, near, root) for path in role.plugins] for role in script.roles}
    how = how or Performance()
    how.begin()
    return anyio.run(_perform, script, cast, how, backend_options={"loop_factory": how.loop})


def _load(script: Script, role: Role, reference: str, near: Path, root: Path) -> Plugin:
    above = [near, *near.parents] if near.is_relative_to(root) else [near]
    path = Path(*reference.split("."))
    places = [directory for directory in above if directory.is_relative_to(root) or directory == near]
    having = (
        directory
        for directory in places
        if (directory / path / "__init__.py").is_file() or (directory / f"{path}.py").is_file()
    )
    try:
        return load_plugin(reference, base_dir=next(having, root), settings=role.settings.get(reference))
    except PluginError as error:
        msg = f"{script.file}:{role.number}: {error}" if role.number else str(error)
        raise ConfigError(msg) from error


async def _perform(script: Script, cast: Mapping[str, Sequence[Plugin]], how: Performance) -> ScriptRun:
    loop = virtual_loop()
    assert loop is not None
    settings = BotSettings(cadence=VIRTUAL_CADENCE)
    # Whoever writes in a file is a person: loop protection must not stop a long conversation.
    options = BotOptions(settings, Ack.HANDLED, are_people_known=True)
    harness = Harness(
        Emulator(World(seed=0), clock=VirtualClock(loop)),
        store_in_real_time(MemoryStore(), loop),
        bot_specs((), "", cast, options, {}),
        patience=VIRTUAL_LIMIT,
        raise_failures=how.raise_failures,
        process=how.process,
    )
    async with run_harness(harness) as room:
        player = _Player(room)
        for number, step in enumerate(script.steps):
            if step.who in cast:
                continue
            try:
                await player.play(step)
            except Exception as error:
                error.add_note(f"\nat {script.file}:{step.number}: {step}")
                raise
            how.report(number + 1)
        return ScriptRun(tuple(player.steps), tuple(room.failures), player.keys)


class _Player:
    """Performs people's steps, and records what the bots did after each of them."""

    def __init__(self, room: Room) -> None:
        self.steps: list[ScriptStep] = []
        self._room = room
        self._seen: dict[int, Message] = {}
        self.keys: dict[int, str] = {}

    async def play(self, step: ScriptStep) -> None:
        if step.verb is Verb.WAITS:
            self.steps.append(step)
            await self._room.advance(step.duration)
        elif step.verb is Verb.RESTARTS:
            self.steps.append(step)
            await self._room.restart()
        else:
            person = self._room.user(step.who)
            if step.verb is not Verb.JOINS:
                await self._room.add_person(person, rejoins=False)
                self._record_replies()  # bots may greet a person who joins before they say anything
            self.steps.append(step)
            await self._act(person, step)
        self._record_replies()

    async def _act(self, person: Person, step: ScriptStep) -> None:
        match step.verb:
            case Verb.SAYS:
                await person.says(as_written(step.text))
            case Verb.EDITS:
                await person.edits(as_written(step.text), self._message(person, step))
            case Verb.DELETES:
                await person.deletes(self._message(person, step))
            case Verb.JOINS:
                await person.joins()
            case Verb.LEAVES:
                await person.leaves()
            case Verb.ADDS:
                await person.adds(*(self._guest(name) for name in step.others))
            case Verb.REMOVES:
                for name in step.others:
                    await person.removes(self._guest(name))
            case _:
                await person.renames(step.text)

    def _guest(self, name: str) -> ThreadMember:
        return self._room.bots.get(name) or self._room.user(name)

    def _message(self, person: Person, step: ScriptStep) -> MessageId:
        """Return the message that is edited or deleted; the parser has checked that there is one."""
        said = [message for message in self._room.messages if message.sender == person.user and _is_said(message)]
        fitting = [
            message for message in said if step.target is None or first_line(message.text) == step.target.strip()
        ]
        return MessageId(str(fitting[-1].id))

    # ── what the bots did ─────────────────────────────────────────────────────────────────────────────────────

    def _record_replies(self) -> None:
        """Record what bots have done since the last call, in order; a new message with its current text only."""
        names = {guest.user: name for name, guest in self._room.bots.items()}
        changed = [message for message in self._room.messages if self._is_new(message)]
        for message in sorted(changed, key=lambda one: one.version if one.id in self._seen else one.id):
            if (who := names.get(message.sender)) is not None:  # type: ignore[call-overload]
                if key := message.metadata.get(REPLY_KEY):
                    self.keys[len(self.steps)] = key
                self.steps += self._described(who, message)
            self._seen[message.id] = message

    def _is_new(self, message: Message) -> bool:
        seen = self._seen.get(message.id)
        return seen is None or message.version > seen.version

    def _described(self, who: str, message: Message) -> list[ScriptStep]:
        before = self._seen.get(message.id)
        if message.is_system:
            return [self._describe_change(who, message)]
        if before is None:
            return [ScriptStep(Verb.SAYS, who, _readable(message))] if message.deleted is None else []
        target = None if self._is_latest(message) else first_line(_readable(before))
        if message.deleted is not None:
            return [ScriptStep(Verb.DELETES, who, target=target)]
        is_other = as_written(_readable(message)) != as_written(_readable(before))
        return [ScriptStep(Verb.EDITS, who, _readable(message), target)] if is_other else []

    def _is_latest(self, message: Message) -> bool:
        own = [other for other in self._room.messages if other.sender == message.sender and _is_said(other)]
        return not own or own[-1].id <= message.id

    def _describe_change(self, who: str, message: Message) -> ScriptStep:
        """Return the step of a bot that changed the thread itself."""
        if message.type == "topicUpdated":
            return ScriptStep(Verb.RENAMES, who, message.topic)
        names = self._room.stage.names
        others = [member for member in message.participants if member.user != message.sender]
        if not others:
            return ScriptStep(Verb.LEAVES if message.type == "participantRemoved" else Verb.JOINS, who)
        verb = Verb.REMOVES if message.type == "participantRemoved" else Verb.ADDS
        return ScriptStep(
            verb, who, ", ".join(names.get(member.user, member.display_name or member.user) for member in others)
        )


def _is_said(message: Message) -> bool:
    return not message.is_system and message.deleted is None


def _readable(message: Message) -> str:
    """Return the text as people read it."""
    return plain_text(message.text) if message.type == "html" else message.text
