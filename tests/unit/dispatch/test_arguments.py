import contextlib
import inspect
import time
from collections.abc import Callable
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot.dispatch.arguments import Argument, Arguments, BadArguments, Rest, Values, argument_for


def arguments_of(function: Callable[..., Any]) -> Arguments:
    read = [argument_for(parameter) for parameter in inspect.signature(function).parameters.values()]
    return Arguments("do", tuple(one for one in read if isinstance(one, Argument)))


def roll(count: int, sides: int = 6) -> None: ...
def add(item: str, *, count: int = 1, gift: bool = False, wrap: Literal["red", "blue"] = "red") -> None: ...
def total(*numbers: int) -> None: ...
def say(text: Rest) -> None: ...
def shout(to: str, text: Rest = "hey", *, is_loud: bool = True) -> None: ...
def book(*, seats: int) -> None: ...
def pair(first: str, second: str) -> None: ...


@pytest.mark.parametrize(
    ("function", "usage"),
    [
        (roll, "/do COUNT [SIDES]"),
        (add, "/do ITEM [--count COUNT] [--gift] [--wrap red|blue]"),
        (total, "/do [NUMBERS…]"),
        (say, "/do TEXT…"),
        (shout, "/do TO [TEXT…] [--is-loud]"),
        (book, "/do --seats SEATS"),
        (lambda: None, "/do"),
    ],
)
def test_the_usage_is_made_of_the_signature(function: Callable[..., Any], usage: str) -> None:
    assert arguments_of(function).usage == usage


@pytest.mark.parametrize(
    ("function", "typed", "positional", "options"),
    [
        (roll, "2", [2], {}),
        (roll, " 2  8 ", [2, 8], {}),
        (roll, "2\n8", [2, 8], {}),
        (roll, "-2", [-2], {}),
        (pair, '"two words" mum\'s', ["two words", "mum's"], {}),
        (pair, "'two words' \"\"", ["two words", ""], {}),
        (pair, "“two words” x", ["two words", "x"], {}),
        (pair, r'"say \"hi\"" \\', ['say "hi"', r"\\"], {}),
        (pair, '"a"b c', ['"a"b', "c"], {}),
        (pair, "“a b", ["“a", "b"], {}),
        (pair, "don’t l’été", ["don’t", "l’été"], {}),
        (pair, "'don't stop' x", ["don't stop", "x"], {}),
        (pair, "--a --b", ["--a", "--b"], {}),
        (add, "tea --count 3", ["tea"], {"count": 3}),
        (add, "--count=3 tea --gift", ["tea"], {"count": 3, "gift": True}),
        (add, "tea —gift", ["tea"], {"gift": True}),
        (add, "tea --no-gift --WRAP Blue", ["tea"], {"gift": False, "wrap": "blue"}),
        (add, "tea --gift=no", ["tea"], {"gift": False}),
        (add, "-- --count", ["--count"], {}),
        (add, '"--count"', ["--count"], {}),
        (total, "", [], {}),
        (total, "1 2 3", [1, 2, 3], {}),
        (say, '  as it "was"\n  typed --really ', ['as it "was"\n  typed --really'], {}),
        (shout, "Ann", ["Ann"], {}),
        (shout, "Ann --no-is-loud come  here --now", ["Ann", "come  here --now"], {"is_loud": False}),
    ],
)
def test_what_is_typed_becomes_the_values_of_the_parameters(
    function: Callable[..., Any], typed: str, positional: list[object], options: dict[str, object]
) -> None:
    names = [name for name, one in inspect.signature(function).parameters.items() if one.kind is not one.VAR_POSITIONAL]
    named = dict(zip(names, positional, strict=False)) | options
    assert arguments_of(function).parse(typed) == Values(named, [] if names else positional)


@pytest.mark.parametrize(
    ("function", "typed", "reason"),
    [
        (roll, "", "COUNT is missing."),
        (roll, "six", 'COUNT: "six" is not a whole number.'),
        (roll, "2 6 8", 'I do not know what to do with "8": I expected only COUNT and SIDES.'),
        (lambda: None, "now", 'I do not know what to do with "now": this command takes no arguments.'),
        (
            pair,
            "two words x",
            'I do not know what to do with "x": I expected only FIRST and SECOND.'
            ' Please put quotes around words that belong together ("like this").',
        ),
        (roll, '"2', 'COUNT: ""2" is not a whole number.'),
        (say, "  ", "TEXT is missing."),
        (book, "", "--seats is missing."),
        (book, "--seats", "--seats needs a value: a whole number."),
        (add, "tea --counts 3", "There is no option --counts. Did you mean --count?"),
        (add, "tea --zzz", "There is no option --zzz."),
        (add, "tea --wrap green", '--wrap: "green" is not one of red, blue.'),
    ],
)
def test_what_does_not_fit_is_explained_with_the_usage(function: Callable[..., Any], typed: str, reason: str) -> None:
    arguments = arguments_of(function)

    with pytest.raises(BadArguments) as caught:
        arguments.parse(typed)

    assert str(caught.value) == f"{reason}\nUsage: {arguments.usage}"


def test_a_refusal_quotes_a_long_argument_shortened() -> None:
    with pytest.raises(BadArguments) as caught:
        arguments_of(roll).parse("9" * 20_000)

    assert str(caught.value).startswith(f'COUNT: "{"9" * 40}…" is not a whole number.')


@pytest.mark.parametrize("piece", ["' ", '" ', "'a", '"a"b ', "“", "“a", "--", "-- ", "—a ", "\\", '"\\', "a "])
@pytest.mark.parametrize("function", [roll, add, total, say, shout])
def test_refusing_takes_no_longer_than_the_length_asks_for(function: Callable[..., Any], piece: str) -> None:
    began = time.process_time()

    with contextlib.suppress(BadArguments):
        arguments_of(function).parse(piece * (28_000 // len(piece)))

    assert time.process_time() - began < 1


@given(st.text(max_size=40))
def test_every_input_is_understood_or_refused_with_a_message(typed: str) -> None:
    for function in (roll, add, total, say, shout, book, pair):
        with contextlib.suppress(BadArguments):
            arguments_of(function).parse(typed)


@given(st.lists(st.integers(), max_size=5))
def test_many_takes_all_words(numbers: list[int]) -> None:
    assert arguments_of(total).parse(" ".join(map(str, numbers))).many == numbers


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_argument_can_be_typed_in_quotes(word: str) -> None:
    quoted = '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'

    assert arguments_of(pair).parse(f"{quoted} x").named == {"first": word, "second": "x"}


@pytest.mark.parametrize("annotation", [inspect.Parameter.empty, list[int], object])
def test_a_parameter_that_nobody_can_type_is_no_argument(annotation: object) -> None:
    parameter = inspect.Parameter("x", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=annotation)

    assert argument_for(parameter) is None
