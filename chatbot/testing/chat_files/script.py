"""Scripts: conversations in readable text files (`.chat`), which are tests of the bots in them.

A script has steps: what a person or a bot did, or that time passed. The same notation is read from `.chat` files,
written by recordings, and shown where a bot replied differently.

::

    plugins: plugins.echo, plugins.help
    # The bot is called after its first plugin, unless a line `bot: Name` above says otherwise.

    Ann: hello
    Echo: hello
    * Ann edits: hello you
    (1 day later)
    Ann: a message
      of two lines

Rules: headers come first; `Name: text` is a message, `* ` an action, `( )` the time that passes; further lines of a
text begin with two spaces; `#` at the beginning of a line is a comment. All errors are reported at once, with file
and line.

A header `compare: replies` is for recordings, in which people did not wait for the bots as they do in a test: each bot
must give the same replies in the same order; their position between people's lines is not compared.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

from chatbot.errors import ConfigError

UNITS: Final[Mapping[str, timedelta]] = {
    "week": timedelta(weeks=1),
    "day": timedelta(days=1),
    "hour": timedelta(hours=1),
    "minute": timedelta(minutes=1),
    "second": timedelta(seconds=1),
}


class Verb(StrEnum):
    """What can happen in a conversation; the values are the words in `.chat` files."""

    SAYS = "says"
    EDITS = "edits"
    DELETES = "deletes"
    JOINS = "joins"
    LEAVES = "leaves"
    ADDS = "adds"
    REMOVES = "removes"
    RENAMES = "sets the topic"
    WAITS = "later"
    RESTARTS = "restart"


@dataclass(frozen=True, slots=True)
class ScriptStep:
    """One step.

    Args:
        verb: what happened.
        who: the person or bot; empty if time passes or the bots are restarted.
        text: the message; the new text or topic; or the names of those who are added or removed.
        target: of an edit or deletion: the first line of the old text; None is the last message.
        duration: how much time passed.
        number: the line of the file; 0 if there is no file.
    """

    verb: Verb
    who: str = ""
    text: str = ""
    target: str | None = None
    duration: timedelta = timedelta(0)
    number: int = 0

    @property
    def key(self) -> tuple[object, ...]:
        """The properties that two equal steps have in common."""
        return self.verb, self.who, as_written(self.text), self.duration

    @property
    def others(self) -> list[str]:
        """The names of those who are added or removed."""
        return [name.strip() for name in self.text.split(",")]

    def __str__(self) -> str:
        if self.verb is Verb.RESTARTS:
            return "(restart)"
        if self.verb is Verb.WAITS:
            return f"({_written_duration(self.duration)} later)"
        if self.verb is Verb.SAYS:
            return _with_text(f"{self.who}:", self.text)
        target = "" if self.target is None else f' "{self.target}"'
        act = f"* {self.who} {self.verb}{target}"
        if self.verb in (Verb.EDITS, Verb.RENAMES):
            return _with_text(f"{act}:", self.text)
        return f"{act} {self.text}".rstrip()


def as_written(text: str) -> str:
    """Return the text as a file can hold it, without white space around the text and at the ends of lines."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(line.rstrip() for line in lines).strip()


def with_final_texts(steps: Iterable[ScriptStep], bots: Container[str]) -> list[ScriptStep]:
    """Return the steps with the final texts of these bots' messages, at the places of the original messages."""
    read: list[ScriptStep] = []
    for step in steps:
        if step.who not in bots or step.verb not in (Verb.EDITS, Verb.DELETES):
            read.append(step)
            continue
        places = [place for place, other in enumerate(read) if other.who == step.who and other.verb is Verb.SAYS]
        found = find_target([read[place] for place in places], step)
        if found is not None and step.verb is Verb.EDITS:
            read[places[found]] = replace(read[places[found]], text=step.text)
        elif found is not None:
            del read[places[found]]
    return read


def final_replies(steps: Iterable[ScriptStep], who: str) -> list[ScriptStep]:
    """Return the final texts of somebody's messages, in order, without deleted ones."""
    own = with_final_texts((step for step in steps if step.who == who), {who})
    return [step for step in own if step.verb is Verb.SAYS]


def find_target(said: list[ScriptStep], step: ScriptStep) -> int | None:
    """Return which message an edit or deletion refers to; None if it refers to none."""
    fitting = [
        place
        for place, other in enumerate(said)
        if step.target is None or first_line(other.text) == step.target.strip()
    ]
    return fitting[-1] if fitting else None


def first_line(text: str) -> str:
    """Return the line that identifies a message in an edit or deletion."""
    return as_written(text).partition("\n")[0].strip()


def _with_text(head: str, text: str) -> str:
    first, *more = as_written(text).split("\n")
    return "\n".join([f"{head} {first}", *(f"  {line}" if line else "" for line in more)])


def _written_duration(duration: timedelta) -> str:
    parts, rest = [], duration
    for unit, size in UNITS.items():
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {unit}{'s' * (count != 1)}")
    return ", ".join(parts) or "0 seconds"


HEADERS: Final = ("plugins", "bot", "settings", "compare")
REPLIES: Final = "replies"

EXPECTED: Final = (
    'expected "Ann: hello", "* Ann joins", "(1 day later)", or "# …" for a comment; further lines of a message begin '
    "with two spaces"
)
ACTS: Final = (
    'expected "* NAME" and one of: joins, leaves, adds NAME, removes NAME, edits: TEXT, edits "OLD TEXT": TEXT, '
    'deletes, deletes "OLD TEXT", sets the topic: TEXT'
)
PASSING: Final = 'expected "(restart)", or a time as in "(1 day later)" and "(2 hours, 30 minutes later)"'

_SAID: Final = re.compile(r"([^\s:*(#][^:]*?)\s*:(?:\s+(.*))?")
_CAME: Final = re.compile(r"\*\s+(.+?)\s+(joins|leaves)")
_LISTED: Final = re.compile(r"\*\s+(.+?)\s+(adds|removes)\s+(.+)")
_DELETED: Final = re.compile(r'\*\s+(.+?)\s+(deletes)(?:\s+"(.*)")?')
_WRITTEN: Final = re.compile(r'\*\s+(.+?)\s+(edits|sets the topic)(?:\s+"(.*)")?\s*:\s*(.*)')
_PART: Final = re.compile(rf"(\d+) ({'|'.join(UNITS)})s?")
_SETTINGS: Final = re.compile(r"([\w.]+)\s+(\{.*\})")


@dataclass(frozen=True, slots=True)
class Role:
    """A bot of the conversation.

    Args:
        name: what the lines call it.
        plugins: the references of its plugins, as in bots.yaml.
        settings: settings by plugin, for plugins that have any.
        number: the line of the file.
    """

    name: str
    plugins: tuple[str, ...]
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    number: int = 0


@dataclass(frozen=True, slots=True)
class Script:
    """A conversation.

    Args:
        file: its name, for error messages.
        roles: its bots.
        steps: people's steps are performed, the bots' steps are expected.
        has_loose_order: do not compare the position of the bots' replies between people's messages.
    """

    file: str
    roles: tuple[Role, ...]
    steps: tuple[ScriptStep, ...]
    has_loose_order: bool = False

    @property
    def bots(self) -> list[str]:
        """The bots' names."""
        return [role.name for role in self.roles]

    def __str__(self) -> str:
        heads = [f"bot: {role.name}\nplugins: {', '.join(role.plugins)}\n" for role in self.roles]
        order = [f"compare: {REPLIES}\n"] if self.has_loose_order else []
        return "".join([*heads, *order, "\n", *(f"{step}\n" for step in self.steps)])


def parse_script(text: str, file: str) -> Script:
    """Parse a conversation.

    Args:
        text: of the file.
        file: its name, for error messages.

    Raises:
        ConfigError: some lines are not valid; lists each with its number and what is expected.
    """
    return _Reader(file).read(text)


class _Reader:
    """Parses one file, line by line."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._problems: list[str] = []
        self._roles: list[Role] = []
        self._steps: list[ScriptStep] = []
        self._blanks = 0
        self._has_loose_order = False

    def read(self, text: str) -> Script:
        for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
            self._line(number, line.rstrip())
        self._check()
        if self._problems:
            raise ConfigError(*self._problems)
        roles = tuple(self._named(role) for role in self._roles)
        return Script(self._file, roles, tuple(self._steps), self._has_loose_order)

    def _refuse(self, number: int, what: str) -> None:
        self._problems.append(f"{self._file}:{number}: {what}")

    def _line(self, number: int, line: str) -> None:
        if not line:
            self._blanks += 1
        elif line.startswith(("  ", "\t")):
            self._continue(number, line.removeprefix("\t") if line.startswith("\t") else line[2:])
        elif not line.startswith("#"):
            self._blanks = 0
            self._begin(number, line)

    def _continue(self, number: int, line: str) -> None:
        last = self._steps[-1] if self._steps else None
        if last is None or last.verb not in (Verb.SAYS, Verb.EDITS):
            self._refuse(number, f"{line.strip()!r} continues a message, but there is none above; {EXPECTED}")
            return
        self._steps[-1] = replace(last, text=last.text + "\n" * (self._blanks + 1) + line)
        self._blanks = 0

    def _begin(self, number: int, line: str) -> None:
        if line.startswith("("):
            self._passes(number, line)
        elif line.startswith("*"):
            self._does(number, line)
        elif (said := _SAID.fullmatch(line)) is None:
            self._refuse(number, f"{line!r} is not a line of a conversation; {EXPECTED}")
        elif said[1] in HEADERS:
            self._header(number, said[1], (said[2] or "").strip())
        else:
            self._steps.append(ScriptStep(Verb.SAYS, said[1], said[2] or "", number=number))

    # ── steps ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _passes(self, number: int, line: str) -> None:
        inner = line.strip("()").strip()
        if inner == Verb.RESTARTS:
            self._steps.append(ScriptStep(Verb.RESTARTS, number=number))
            return
        parts = [_PART.fullmatch(part) for part in re.split(r",\s*(?:and\s+)?|\s+and\s+", inner.removesuffix(" later"))]
        if not inner.endswith(" later") or not line.endswith(")") or not all(parts):
            self._refuse(number, f"{line!r} is not a time that passes; {PASSING}")
            return
        try:
            duration = sum((int(part[1]) * UNITS[part[2]] for part in parts if part), timedelta(0))
        except OverflowError:
            self._refuse(number, f"{line!r} is too long; {PASSING}")
            return
        self._steps.append(ScriptStep(Verb.WAITS, duration=duration, number=number))

    def _does(self, number: int, line: str) -> None:
        if came := _CAME.fullmatch(line):
            step = ScriptStep(Verb(came[2]), came[1], number=number)
        elif written := _WRITTEN.fullmatch(line):
            step = ScriptStep(Verb(written[2]), written[1], written[4], written[3], number=number)
        elif deleted := _DELETED.fullmatch(line):
            step = ScriptStep(Verb(deleted[2]), deleted[1], target=deleted[3], number=number)
        elif listed := _LISTED.fullmatch(line):
            step = ScriptStep(Verb(listed[2]), listed[1], listed[3], number=number)
        else:
            self._refuse(number, f"{line!r} is not an action; {ACTS}")
            return
        self._steps.append(step)

    # ── headers ───────────────────────────────────────────────────────────────────────────────────────────────

    def _header(self, number: int, name: str, value: str) -> None:
        if self._steps:
            self._refuse(number, f"`{name}:` comes too late: headers must precede the conversation")
        elif name == "bot":
            self._roles.append(Role(value, (), number=number))
        elif name == "compare" and value == REPLIES:
            self._has_loose_order = True
        elif name == "compare":
            self._refuse(number, f"{value!r} is not a way to compare; expected compare: {REPLIES}")
        elif name == "plugins":
            self._plugins(number, tuple(name.strip() for name in value.split(",") if name.strip()))
        else:
            self._settings(number, value)

    def _plugins(self, number: int, references: tuple[str, ...]) -> None:
        if not self._roles:
            self._roles.append(Role("", (), number=number))
        role = self._roles[-1]
        self._roles[-1] = replace(role, plugins=(*role.plugins, *references), number=number)

    def _settings(self, number: int, value: str) -> None:
        import yaml  # imported here: few files have settings, and pytest imports this module for each file

        given = _SETTINGS.fullmatch(value)
        try:
            settings = yaml.safe_load(given[2]) if given else None
        except yaml.YAMLError:
            settings = None
        role = self._roles[-1] if self._roles else Role("", ())
        if given is None or settings is None or given[1] not in role.plugins:
            expected = "settings: plugins.faq {language: fr}, below the `plugins:` that names plugins.faq"
            self._refuse(number, f"{value!r} are not valid settings of a plugin; expected {expected}")
            return
        self._roles[-1] = replace(role, settings={**role.settings, given[1]: settings})

    def _named(self, role: Role) -> Role:
        """Name a bot after its first plugin if it has no name."""
        return role if role.name else replace(role, name=role.plugins[0].rpartition(".")[2].capitalize())

    # ── the whole ─────────────────────────────────────────────────────────────────────────────────────────────

    def _check(self) -> None:
        if not self._roles:
            self._refuse(1, "there is no bot; name its plugins first, as in plugins: plugins.echo, plugins.help")
        for role in self._roles:
            if not role.plugins:
                self._refuse(role.number, "this bot has no plugins; add a line, as in plugins: plugins.echo")
        for place, step in enumerate(self._steps):
            self._check_step(step, self._steps[:place])

    def _check_step(self, step: ScriptStep, before: Sequence[ScriptStep]) -> None:
        if step.verb is Verb.SAYS and not as_written(step.text):
            self._refuse(step.number, f"{step.who} says nothing; write the text after the colon, or below it")
        elif step.verb in (Verb.EDITS, Verb.DELETES) and find_target(final_replies(before, step.who), step) is None:
            what = "nothing yet" if step.target is None else f"nothing that begins with the line {step.target!r}"
            self._refuse(step.number, f"{step.who} has said {what} that could be changed; write the message above it")
