"""Typed command arguments: the parameters of a handler define what may follow a command. Performs no I/O.

Parsing rules:
    1. Words are separated by white space; quotes around a phrase ("…", '…', “…”, «…», „…“, 「…」) make it one word. An
       unpaired quotation mark, or one inside a word (`don’t`), is an ordinary character.
    2. Positional parameters take one word each, in order; `*many` takes the remaining words; `Rest` takes the rest of
       the message verbatim.
    3. Keyword-only parameters are options: `--name value`, `--name=value`; a bool is `--name` or `--no-name`.
       They may appear anywhere before a `Rest`; `--` ends them; a dash that a phone substituted for `--` is accepted.
    4. Invalid input raises `BadArguments`, whose text is shown to the user who typed it.

A parameter of type `Participant` is resolved among the participants of the thread.

Participant rules:
    1. The full display name matches, ignoring case, with or without @. Its first words match if they are unambiguous.
    2. A user id of the service always matches, even for a user who is not in the thread.

The arguments of `ctx.later` are no text: `TimerPayload` validates and stores them until the timer is due.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Annotated, Any, Final, get_args, get_origin

from chatbot.dispatch.argument_types import ArgumentType, NamedParticipant, conversion_for, plain_type
from chatbot.durations import TooLong
from chatbot.errors import CannotStore, ChatbotError, StateError
from chatbot.model import Participant, UserId, Value
from chatbot.normalization import DASHES, INVISIBLE, fold_name, is_blank, most_similar
from chatbot.stores.serialization import Form, check_size, check_utf8, from_json, to_json


class BadArguments(ChatbotError):
    """The text after a command is invalid; the message tells the user what is expected."""


class _Tail:
    """Marker of the parameter that takes the rest of a command."""


Rest = Annotated[str, _Tail()]
"""The type of a last parameter that takes the rest of the message verbatim: `text: Rest`."""

_PAIRS: Final = {
    '"': '"', "“": "”“", "”": "”", "„": "“”", "‟": "”", "«": "»", "»": "«»", "〝": "〞〟", "＂": "＂",
    "'": "'", "‘": "’", "’": "’", "‚": "‘’", "‹": "›", "›": "‹›", "＇": "＇", "「": "」", "『": "』",
}  # fmt: skip
"""Opening quotation marks, each with the marks that may close it, as keyboards of different languages pair them."""

_BARE: Final = re.compile(r"\S+")
_SHOWN: Final = 40
"""The maximum number of characters of an invalid word that an error message repeats."""

_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_OPTION: Final = re.compile(
    rf"(?:[{re.escape(DASHES)}]{{2}}|[–—―])(?P<name>[^\W\d][^=＝]*)(?:[=＝](?P<value>.*))?\Z", re.DOTALL
)
"""`--name` or `--name=value`; phones and Word replace `--` with an en dash, an em dash or a similar character."""


@cache
def _end_of(opening: str) -> re.Pattern[str]:
    """Return what ends a phrase; compiled when somebody types one, because few of the marks are ever used."""
    return re.compile(rf"[{_PAIRS[opening]}](?!\S)" if opening != '"' else r'(?<!\\)(?:\\\\)*"(?!\S)')


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Argument(Value):
    """One parameter of a command.

    Args:
        name: the parameter's name.
        conversion: converts a word to the value.
        is_required: whether the parameter has no default.
        is_option: whether the parameter is keyword-only.
        is_many: whether the parameter is `*many`.
        is_rest: whether the parameter takes the rest of the message.
        is_flag: whether the parameter is an option of type bool.
    """

    name: str
    conversion: ArgumentType
    is_required: bool = True
    is_option: bool = False
    is_many: bool = False
    is_rest: bool = False
    is_flag: bool = False

    @property
    def label(self) -> str:
        """Return the name shown in usage texts and error messages."""
        return f"--{self.name.replace('_', '-')}" if self.is_option else self.name.upper()

    @property
    def usage(self) -> str:
        """Return its part of the usage text: `COUNT`, `[SIDES]`, `TEXT…`, `[--loud]`, `[--color red|blue]`."""
        shown = self.label
        if self.is_option and not self.is_flag:
            shown += " " + ("|".join(self.conversion.choices) or self.name.upper())
        elif self.conversion.choices and not self.is_option:
            shown = "|".join(self.conversion.choices)
        if self.is_rest or self.is_many:
            shown += "…"
        return shown if self.is_required else f"[{shown}]"

    def read(self, word: str) -> object:
        """Convert a word to the value of this argument."""
        try:
            return self.conversion.parse(word)
        except TooLong as error:
            msg = f"{self.label}: {error}."
            raise BadArguments(msg) from None
        except ValueError:
            msg = f'{self.label}: "{_shown(word)}" is not {self.conversion.expects}.'
            raise BadArguments(msg) from None


def argument_for(parameter: inspect.Parameter) -> Argument | None:
    """Return the argument of a parameter, or None if its type cannot be read from text."""
    conversion = conversion_for(parameter.annotation)
    if conversion is None or parameter.kind is inspect.Parameter.VAR_KEYWORD:
        return None
    is_option = parameter.kind is inspect.Parameter.KEYWORD_ONLY
    is_many = parameter.kind is inspect.Parameter.VAR_POSITIONAL
    return Argument(
        name=parameter.name,
        conversion=conversion,
        is_required=parameter.default is inspect.Parameter.empty and not is_many,
        is_option=is_option,
        is_many=is_many,
        is_rest=is_rest(parameter.annotation),
        is_flag=is_option and plain_type(parameter.annotation) is bool,
    )


def is_rest(annotation: object) -> bool:
    """Return whether an annotation is `Rest` or `Rest | None`."""
    if get_origin(annotation) is Annotated:
        return any(isinstance(mark, _Tail) for mark in get_args(annotation)[1:])
    return any(is_rest(part) for part in get_args(annotation) if part is not annotation)


@dataclass(slots=True)
class Values:
    """Parsed values by parameter name; parameters that keep their default are absent.

    Args:
        named: the value of each parameter except `*many`.
        many: the values of the parameter `*many`.
    """

    named: dict[str, Any] = field(default_factory=dict)
    many: list[Any] = field(default_factory=list)


NO_VALUES: Final = Values()
"""The values of a handler that takes only its context. Shared by all such calls, so it is never changed."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Arguments(Value):
    """All arguments of one command, in the order of the handler's parameters."""

    command: str
    arguments: tuple[Argument, ...] = ()

    @property
    def usage(self) -> str:
        """Return the usage text, such as `/roll COUNT [SIDES] [--loud]`."""
        return " ".join((f"/{self.command}", *(argument.usage for argument in self.arguments)))

    def parse(self, typed: str) -> Values:
        """Parse the text after the command.

        Raises:
            BadArguments: the text is invalid; the message gives the reason and the usage.
        """
        if not typed and not self.arguments:
            return NO_VALUES
        try:
            return _Parser(self.arguments, typed).values()
        except BadArguments as error:
            msg = f"{error}\nUsage: {self.usage}"
            raise BadArguments(msg) from None


class _Parser:
    """A single pass over the text after a command."""

    def __init__(self, arguments: Sequence[Argument], typed: str) -> None:
        self._positional = [argument for argument in arguments if not argument.is_option]
        self._options: Mapping[str, Argument] = {
            fold_name(argument.label): argument for argument in arguments if argument.is_option
        }
        self._typed = typed
        self._at = 0
        self._is_past_options = not self._options
        self._unpaired: set[str] = set()
        self._is_quoted = False
        self._values = Values()

    def values(self) -> Values:
        for argument in self._positional:
            if argument.is_rest:
                self._take_rest(argument)
            elif argument.is_many:
                self._values.many = [argument.read(word) for word in self._words()]
            elif not self._take_one(argument):
                break
        self._check_end()
        for option in self._options.values():
            if option.is_required and option.name not in self._values.named:
                msg = f"{option.label} is missing."
                raise BadArguments(msg)
        return self._values

    def _take_one(self, argument: Argument) -> bool:
        word = next(self._words(), None)
        if word is not None:
            self._values.named[argument.name] = argument.read(word)
        elif argument.is_required:
            msg = f"{argument.label} is missing."
            raise BadArguments(msg)
        return word is not None

    def _take_rest(self, argument: Argument) -> None:
        self._skip_options()
        rest = self._typed[self._at :].strip()
        self._at = len(self._typed)
        if not is_blank(rest):
            self._values.named[argument.name] = argument.read(rest)
        elif argument.is_required:
            msg = f"{argument.label} is missing."
            raise BadArguments(msg)

    def _check_end(self) -> None:
        for word in self._words():
            raise BadArguments(self._unexpected_word(word))

    def _unexpected_word(self, word: str) -> str:
        taken = [argument.label for argument in self._positional]
        if not taken:
            return f'I do not know what to do with "{_shown(word)}": this command takes no arguments.'
        if any(argument.conversion.parse is str for argument in self._positional):
            hint = ' Please put quotes around words that belong together ("like this").'
        else:
            hint = ""
        return f'I do not know what to do with "{_shown(word)}": I expected only {_listed(taken)}.{hint}'

    def _words(self) -> Iterator[str]:
        """Yield the remaining positional words, and consume the options between them."""
        while True:
            self._skip_options()
            word = self._next_word()
            if word is None:
                return
            yield word

    def _skip_options(self) -> None:
        while not self._is_past_options:
            before = self._at
            word = self._next_word()
            is_quoted = self._is_quoted
            if not is_quoted and word == "--":
                self._is_past_options = True
            elif word is None or is_quoted or not self._take_option(word):
                self._at = before
                return

    def _take_option(self, word: str) -> bool:
        found = _OPTION.match(word.lstrip(INVISIBLE))
        if found is None:
            return False
        label, value = f"--{fold_name(found['name']).replace('_', '-')}", found["value"]
        if label not in self._options and self._take_negation(label, value):
            return True
        option = self._options.get(label)
        if option is None:
            raise BadArguments(_no_such_option(label, self._options))
        if value is None and not option.is_flag:
            value = self._next_word()
            if value is None:
                msg = f"{label} needs a value: {option.conversion.expects}."
                raise BadArguments(msg)
        self._values.named[option.name] = True if value is None else option.read(value)
        return True

    def _take_negation(self, label: str, value: str | None) -> bool:
        option = self._options.get("--" + label.removeprefix("--no-"))
        if not label.startswith("--no-") or option is None or not option.is_flag or value is not None:
            return False
        self._values.named[option.name] = False
        return True

    def _next_word(self) -> str | None:
        """Return the next word without its quotation marks; set `_is_quoted` to whether it had any."""
        typed = self._typed
        while found := _BARE.search(typed, self._at):
            word, start = found[0], found.start()
            start += len(word) - len(word.lstrip(INVISIBLE))
            end = self._closing_quote(start)
            self._is_quoted = end is not None
            if end is not None:
                self._at = end.end()
                inner = typed[start + 1 : end.end() - 1]
                if typed[start] == '"':
                    return _ESCAPED.sub(r"\1", inner)
                return inner.strip() if typed[start] in "«»‹›" else inner  # French typography puts spaces inside
            self._at = found.end()
            if not is_blank(word):
                return word
        self._at = len(typed)
        return None

    def _closing_quote(self, start: int) -> re.Match[str] | None:
        """Find the closing mark of the quotation that opens at `start`.

        A kind of mark that has no partner is searched for once, so that parsing takes linear time.
        """
        opening = self._typed[start : start + 1]
        if opening not in _PAIRS or opening in self._unpaired:
            return None
        found = _end_of(opening).search(self._typed, start + 1)
        if found is None:
            self._unpaired.add(opening)
        return found


def _shown(word: str) -> str:
    return word if len(word) <= _SHOWN else f"{word[:_SHOWN]}…"


def _listed(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _no_such_option(label: str, options: Mapping[str, Argument]) -> str:
    near = most_similar(label, options)
    return f"There is no option {_shown(label)}." + (f" Did you mean {near}?" if near else "")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ParticipantResolver(Value):
    """Resolve typed names to the participants of a thread."""

    everyone: Sequence[Participant]

    def fill(self, values: Values) -> Values:
        """Replace the typed names in the values with participants.

        Raises:
            BadArguments: a name matches no participant, or more than one.
        """
        named = {name: self._found(value) for name, value in values.named.items()}
        return replace(values, named=named, many=[self._found(value) for value in values.many])

    def _found(self, value: object) -> object:
        return self.called(value.name) if isinstance(value, NamedParticipant) else value

    def called(self, name: str) -> Participant:
        """Return the participant with this name or user id.

        Raises:
            BadArguments: a name matches no participant, or more than one.
        """
        wanted = _folded(name)
        exact = [person for person in self.everyone if wanted in (_name(person), person.user.casefold())]
        found = exact or [person for person in self.everyone if (_name(person) or "").startswith(f"{wanted} ")]
        if len(found) == 1:
            return found[0]
        if found:
            msg = f'Several are called "{name}": {_participants_listed(found)}. Type the whole name in quotes.'
            raise BadArguments(msg)
        if name.startswith(("8:", "4:", "28:")):
            return Participant(UserId(name))
        msg = f'Nobody here is called "{name[:40]}". There are: {_participants_listed(self.everyone)}.'
        raise BadArguments(msg)


def names_in(values: Values) -> Iterator[str]:
    """Yield the typed names that are not resolved to participants yet."""
    return (value.name for value in (*values.named.values(), *values.many) if isinstance(value, NamedParticipant))


def _name(person: Participant) -> str | None:
    return _folded(person.display_name) if person.display_name else None


def _folded(name: str) -> str:
    return fold_name(name).removeprefix("@").strip()


def _participants_listed(people: Sequence[Participant]) -> str:
    names = sorted(person.display_name for person in people if person.display_name)
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TimerPayload(Value):
    """The arguments of a timer's function.

    Args:
        function: the function's name.
        forms: the stored form of each parameter.
        required: the parameters without a default.
    """

    function: str
    forms: Mapping[str, Form]
    required: frozenset[str]

    def encode(self, values: Mapping[str, Any]) -> str:
        """Convert arguments to their stored form.

        Raises:
            TypeError: the arguments do not fit the function's parameters.
            CannotStore: an argument is not of its declared type, or has half of a surrogate pair; the text names it.
        """
        if values.keys() - self.forms.keys() or self.required - values.keys():
            takes = ", ".join(self.forms) or "nothing"
            msg = f"timer {self.function} takes {takes}, but is to be called with {', '.join(values) or 'nothing'}"
            raise TypeError(msg)
        encoded = {name: self.forms[name].encode(value, f"{self.function}.{name}") for name, value in values.items()}
        for name, form in encoded.items():
            check_utf8(form, f"{self.function}.{name}")
        return check_size(to_json(encoded), f"what timer {self.function} is to be called with")

    def decode(self, stored: str) -> Values:
        """Read arguments from their stored form.

        Raises:
            StateError: the function was changed and no longer accepts the stored arguments.
        """
        values = from_json(stored)
        try:
            if values.keys() - self.forms.keys() or self.required - values.keys():
                problem = f"{', '.join(values) or 'nothing'}"
                raise CannotStore(problem)
            return Values({name: self.forms[name].decode(value, name) for name, value in values.items()})
        except CannotStore as error:
            msg = f"timer {self.function} was set to be called with other arguments than it takes now: {error}"
            raise StateError(msg) from error
