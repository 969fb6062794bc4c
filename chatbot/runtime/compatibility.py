"""Compatibility of a store with the code: finds timers, dialogs, states and dead letters that it cannot continue.

No finding quotes people: names of functions and classes are the author's, and so is a dialog's question, which is
stored only if it is a literal in the dialog's source. A finding does not say why a state cannot be read, because a
key that its class lacks may be what somebody wrote.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chatbot.conversation import journal
from chatbot.conversation.conversations import SCHEDULE
from chatbot.conversation.journal import JournalStep
from chatbot.conversation.state import StateType
from chatbot.dispatch import HandlerRegistry
from chatbot.dispatch.arguments import BadArguments
from chatbot.dispatch.event_view import BotInfo, CommandInfo, EventView, function_called_by
from chatbot.dispatch.handler import Handler
from chatbot.errors import StateError, StoreError
from chatbot.events import ActionFailed
from chatbot.plugin import Plugin
from chatbot.stores.base import Store
from chatbot.stores.records import DeadLetter, DialogRecord, StateKey, StoredState, TimerRecord
from chatbot.stores.shards import shard_of
from chatbot.worker_threads import run_in_thread


@dataclass(frozen=True, slots=True)
class Incompatibility:
    """Stored data of a bot that the code cannot continue.

    Args:
        bot: its name in bots.yaml.
        key: identifies the problem within the bot; does not depend on the number of records.
        problem: one sentence.
    """

    bot: str
    key: tuple[str, ...]
    problem: str = field(compare=False)

    @property
    def loses_data(self) -> bool:
        """Whether people lose something. A schedule whose function is gone only ends."""
        return self.key[0] != "schedule"

    def __str__(self) -> str:
        return f"bot {self.bot}: {self.problem}"


async def incompatibilities(store: Store, plugins: Mapping[str, Sequence[Plugin]]) -> list[Incompatibility]:
    """Return what a store holds that these plugins cannot continue.

    Args:
        store: opened by the caller.
        plugins: by bot name; other bots of the store are left out.

    Raises:
        StoreError: the store cannot be read.
    """
    found: list[Incompatibility] = []
    for record in await store.bots():
        if record.name not in plugins:
            continue
        registry = await run_in_thread(_registry, plugins[record.name])
        timers, dialogs = await store.timers(record.user), await store.dialogs(record.user)
        letters = await store.dead_letters(record.user)
        states = [(state, await store.states(record.user, state.name)) for state in _states_of(registry)]
        if timers or dialogs or letters or states:  # in a thread: there may be many thousands, and files are read
            found += await run_in_thread(_compare, record.name, registry, timers, dialogs, letters, states)
    return found


async def discontinued(
    store: Store, registries: Callable[[], Mapping[str, HandlerRegistry]], shards: Collection[int]
) -> list[Incompatibility]:
    """Return which dialogs and timers in the threads of some shards the code cannot continue.

    Args:
        store: opened by the caller.
        registries: returns the handlers of each bot by its name; called where the store has dialogs or timers.
        shards: the shards.

    Raises:
        StoreError: the store cannot be read.
    """
    found: list[Incompatibility] = []
    for record in await store.bots():
        dialogs = [one for one in await store.dialogs(record.user) if shard_of(one.thread) in shards]
        timers = [one for one in await store.timers(record.user) if one.thread and shard_of(one.thread) in shards]
        if dialogs or timers:
            registry = (await run_in_thread(registries)).get(record.name)
            if registry is not None:
                found += await run_in_thread(_compare, record.name, registry, timers, dialogs, (), ())
    return [one for one in found if one.loses_data]


def _registry(plugins: Sequence[Plugin]) -> HandlerRegistry:
    return HandlerRegistry(handler for plugin in plugins for handler in plugin.handlers())


def _compare(
    bot: str,
    registry: HandlerRegistry,
    timers: Iterable[TimerRecord],
    dialogs: Iterable[DialogRecord],
    letters: Iterable[DeadLetter],
    states: Iterable[tuple[StateType, Iterable[tuple[StateKey, StoredState]]]],
) -> list[Incompatibility]:
    groups = _Groups(bot)
    _compare_timers(groups, registry, timers)
    _compare_dialogs(groups, registry, dialogs)
    _compare_letters(groups, registry, letters)
    for state, stored in states:
        _compare_states(groups, state, stored)
    return list(groups.problems())


class _Groups:
    """Counts records that have the same problem."""

    def __init__(self, bot: str) -> None:
        self._bot = bot
        self._threads: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)

    def add(self, *key: str, thread: str | None = None) -> None:
        """Count one record.

        Args:
            key: the kind of record, the verb in singular and plural, and the rest of the sentence.
        """
        self._threads[key].append(thread or "")

    def problems(self) -> Iterator[Incompatibility]:
        """Yield each problem once, with the number of its records and threads."""
        for key, threads in sorted(self._threads.items()):
            noun, singular, plural, rest = key
            count, places = len(threads), len(set(threads) - {""})
            where = f" of {places} thread{'' if places == 1 else 's'}" if places and noun != "dialog" else ""
            verb = singular if count == 1 else plural
            problem = f"{count} {noun}{'' if count == 1 else 's'}{where} {verb} {rest}"
            yield Incompatibility(self._bot, key, problem)


def _compare_timers(groups: _Groups, registry: HandlerRegistry, timers: Iterable[TimerRecord]) -> None:
    for timer in timers:
        noun = "schedule" if timer.thread is None or timer.id.startswith(SCHEDULE) else "timer"
        handler = registry.timed.get(timer.handler)
        if handler is None or (handler.payload is None) == (noun == "timer"):
            is_there = timer.handler in registry.by_name
            what = f"which is no {noun} any more" if is_there else "which is gone"
            groups.add(noun, "calls", "call", f"{timer.handler}, {what}", thread=timer.thread)
        elif handler.payload is not None and not _accepts(handler, timer.payload):
            what = f"{timer.handler} with other arguments than it takes now"
            groups.add(noun, "calls", "call", what, thread=timer.thread)


def _accepts(handler: Handler, payload: str) -> bool:
    assert handler.payload is not None
    try:
        handler.payload.decode(payload)
    except (StateError, StoreError, ValueError):
        return False
    return True


def _compare_dialogs(groups: _Groups, registry: HandlerRegistry, dialogs: Iterable[DialogRecord]) -> None:
    questions: dict[str, _Questions] = {}
    commands = tuple(handler.info for handler in registry.by_name.values() if handler.info)
    for dialog in dialogs:
        handler = registry.by_name.get(dialog.handler)
        if handler is None or not handler.is_dialog:
            what = "which is gone" if handler is None else "which is no dialog any more"
            groups.add("dialog", "is held by", "are held by", f"{dialog.handler}, {what}", thread=dialog.thread)
            continue
        try:
            last = journal.load(dialog.journal)[-1]
        except StoreError:
            groups.add("dialog", "of", "of", f"{dialog.handler} cannot be read", thread=dialog.thread)
            continue
        if _takes_other_arguments(handler, dialog, commands):
            what = f"{dialog.handler}, which takes other arguments than it began with"
            groups.add("dialog", "is held by", "are held by", what, thread=dialog.thread)
            continue
        if not dialog.is_waiting or last.step is not JournalStep.ASKED:
            continue
        if dialog.handler not in questions:
            questions[dialog.handler] = _Questions(handler.registration.function)
        asked = last.value if isinstance(last.value, str) else None
        if not questions[dialog.handler].may_ask(asked, last.label):
            shown = f"{asked!r}, which is now another question" if asked else f"a question that {dialog.handler} lost"
            groups.add("dialog", "asked", "asked", shown, thread=dialog.thread)


def _takes_other_arguments(handler: Handler, dialog: DialogRecord, commands: tuple[CommandInfo, ...]) -> bool:
    """Return whether the event that began a dialog is refused now. Its replay needs the same arguments."""
    if handler.info is None:
        return False
    # Neither name nor admins are known here; a command that is typed as /name needs the one, and no refusal the other.
    bot = BotInfo("", dialog.event.bot, "")
    try:
        return isinstance(handler.match(EventView(dialog.event, bot, commands)), BadArguments)
    except BaseException:  # a filter, or the class of an argument, is an author's: whatever it raises
        return False


class _Questions:
    """The questions that a dialog can ask, read from its source."""

    def __init__(self, function: Any) -> None:
        self._texts: set[str] = set()
        self._marks: set[str] = set()
        self._whole: set[str] = set()  # questions that are literals in the source, with all their choices
        self._is_complete = True
        for tree in _sources(inspect.unwrap(function)):
            self._read(tree)

    def may_ask(self, question: str | None, mark: str) -> bool:
        """Return whether the dialog may still ask this question, identified by its mark and, if stored, its text."""
        if mark in self._marks or (not self._marks and not self._texts):
            return True
        if question is None:
            return not self._is_complete
        return question in self._texts and question not in self._whole

    def _read(self, tree: ast.AST) -> None:
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                self._texts.add(node.value)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _ASKING:
                marks = list(_marks_of(node, node.func.attr))
                self._marks.update(marks)
                self._is_complete &= bool(marks)
                if marks and isinstance(node.args[0] if node.args else None, ast.Constant):
                    self._whole.add(ast.literal_eval(node.args[0]))


_ASKING = ("ask", "confirm")


def _marks_of(call: ast.Call, method: str) -> Iterator[str]:
    """Yield the mark of a question that is a literal in the source; nothing if part of it is computed."""
    options = {keyword.arg: keyword.value for keyword in call.keywords}
    try:
        question = ast.literal_eval(call.args[0] if call.args else options["question"])
        if method == "confirm":
            if not options.keys() & {"yes", "no"}:
                yield journal.mark_of(f"{question} (yes / no)")
            return
        choices = ast.literal_eval(options["choices"]) if "choices" in options else ()
    except (ValueError, KeyError, TypeError):
        return
    if isinstance(question, str):
        yield journal.mark_of(f"{question} ({' / '.join(choices)})" if choices else question)


def _sources(function: Any) -> Iterator[ast.AST]:
    """Yield the source of a dialog's module and of the modules whose dialog functions it imports."""
    names = {function.__module__}
    for value in getattr(function, "__globals__", {}).values():
        if inspect.isfunction(value) and any("Dialog" in str(one) for one in value.__annotations__.values()):
            names.add(value.__module__)
    for name in sorted(names):
        module = sys.modules.get(name)
        try:
            # The file, not inspect's cache: it is read right after the module was loaded, perhaps for the second time.
            file = inspect.getsourcefile(module) if module is not None else None
            if file is not None:
                with open(file, "rb") as source:
                    yield ast.parse(source.read())
        except (OSError, TypeError, SyntaxError, ValueError):
            continue


def _compare_letters(groups: _Groups, registry: HandlerRegistry, letters: Iterable[DeadLetter]) -> None:
    for letter in letters:
        if isinstance(letter.event, ActionFailed):
            continue
        name = function_called_by(letter.event) or letter.handler
        known: Collection[str] = registry.timed if function_called_by(letter.event) else registry.by_name
        if name and not name.startswith("chatbot.") and name not in known:
            thread = getattr(letter.event, "thread", None)
            groups.add("dead letter", "is for", "are for", f"{name}, which is gone", thread=thread)


def _states_of(registry: HandlerRegistry) -> list[StateType]:
    """Return all states that handlers use, each once."""
    return list(
        {state.id: state for handler in registry.by_name.values() for state in handler.states.values()}.values()
    )


def _compare_states(groups: _Groups, state: StateType, stored: Iterable[tuple[StateKey, StoredState]]) -> None:
    handle, name = state.handle, f"{state.handle.__name__}[{state.cls.__name__}]"
    for key, found in stored:
        # A class may be held by several handles, which are told apart by whose state it is.
        if (handle.per_thread, handle.per_user) != (key.thread is not None, key.user is not None):
            continue
        if state.is_newer(found.value):
            what = f"as a newer version of {name} than the class has"
            groups.add("state", "is stored", "are stored", what, thread=key.thread)
        elif not _can_load(state, found.value):
            what = f"be read as {name}: write a @migration(from_version={state.version}) in {state.name}"
            groups.add("state", "cannot", "cannot", what, thread=key.thread)


def _can_load(state: StateType, stored: str) -> bool:
    try:
        state.load(stored)
    except BaseException:  # a migration, or a validator of a model, is an author's: whatever it raises
        return False
    return True
