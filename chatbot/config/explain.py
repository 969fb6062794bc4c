"""Convert errors of pydantic to sentences for the author of bots.yaml: what is wrong and what to write instead."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final, get_args

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from chatbot.config.document import Document
from chatbot.config.schema import Config
from chatbot.config.source_location import DataPath, Problem, printable

_KINDS: Final = {
    "string_type": "{value} is not text{quoted}",
    "int_type": "{value} is not a whole number",
    "int_parsing": "{value} is not a whole number",
    "int_from_float": "{value} is not a whole number",
    "model_type": "{value} is not a mapping; write its keys below it, indented",
    "dict_type": "{value} is not a mapping; write its keys below it, indented",
    "tuple_type": "{value} is not a list; write each item on its own line, after a dash",
    "too_short": "this is empty; it needs at least one",
    "string_too_short": "this is empty",
    "string_too_long": "this is longer than {max_length} characters",
    "string_pattern_mismatch": "{value} is not an import path (like plugins.echo for plugins/echo.py)",
    "greater_than_equal": "{value} is too small; at least {ge}",
    "less_than_equal": "{value} is too large; at most {le}",
}


def explain_errors(error: ValidationError, document: Document, data: Any) -> list[Problem]:
    """Convert pydantic's errors to problems.

    Errors that follow from a known problem are left out: those of values with a problem of their own, and of keys that
    are missing because they are misspelled or may be in a file that could not be read.

    Args:
        document: the content of the file.
        data: the validated part of it.
    """
    findings = error.errors(include_url=False)
    misspelt = {_misspelled_at(one, data) for one in findings}
    problems = []
    for one in findings:
        path, kind = _path(one["loc"], data), one["type"]
        is_told = any(_is_known(path, kind, known.path) for known in document.problems)
        is_elsewhere = kind == "missing" and (path in misspelt or (len(path) == 1 and not document.is_complete))
        is_short_of_wrong_ones = (
            kind == "too_short" and one["input"]
        )  # pydantic counts valid items only; the invalid ones are reported themselves
        if not (is_told or is_elsewhere or is_short_of_wrong_ones):
            problems.append(_problem(one, document, path))
    return problems


def _problem(details: ErrorDetails, document: Document, path: DataPath) -> Problem:
    if details["type"] == "extra_forbidden":
        return document.problem(path, _unknown(path), of_key=True)
    if details["type"] == "missing":
        return document.problem(path, "this is missing")
    is_key = details["loc"][-1:] == ("[key]",)
    return document.problem(path, _sentence(details), of_key=is_key)


def _misspelled_at(details: ErrorDetails, data: Any) -> DataPath | None:
    """Return the path of the known key that an unknown one was probably meant to be."""
    if details["type"] != "extra_forbidden":
        return None
    *above, key = _path(details["loc"], data)
    near = _nearest(str(key), _keys_at(tuple(above)))
    return (*above, near) if near else None


def _is_known(path: DataPath, kind: str, known: DataPath) -> bool:
    """Return whether an error follows from a known problem of the value, of its container, or of a part of it."""
    if not known:
        return False
    return known == path[: len(known)] or (kind == "value_error" and path == known[: len(path)])


def _path(loc: tuple[int | str, ...], data: Any) -> DataPath:
    """Return the path in the data, with a missing key at the end, without pydantic's own markers."""
    path: list[str | int] = []
    for index, step in enumerate(loc):
        if str(step).startswith("<"):  # the tag of one kind of `service`
            continue
        if isinstance(data, dict) and (step in data or index == len(loc) - 1) and step != "[key]":
            path.append(step)
            data = data.get(step)
        elif isinstance(data, list) and isinstance(step, int):
            path.append(step)
            data = data[step]
    return tuple(path)


def _sentence(details: ErrorDetails) -> str:
    context = details.get("ctx", {})
    kind = details["type"]
    if kind == "value_error":
        return str(context["error"])
    value = details["input"]
    if kind == "literal_error":
        expected = [word.strip("'") for word in str(context["expected"]).replace(" or ", ", ").split(", ")]
        return f"{_quoted(value)} is not {_one_of(expected)}{_suggestion(str(value), expected)}"
    if isinstance(value, SecretStr):
        return "a secret is not allowed here, because this value is shown to people"
    quoted = f' (put it in quotes: "{value}")' if isinstance(value, int | float) else ""
    sentence = _KINDS.get(kind, details["msg"])
    return sentence.format(value=_quoted(value), quoted=quoted, **context)


def _unknown(path: DataPath) -> str:
    known = _keys_at(path[:-1])
    hint = _suggestion(str(path[-1]), known) or f" (known keys: {', '.join(known)})"
    return f"unknown key{hint}"


def _keys_at(path: DataPath) -> list[str]:
    """Return the keys of the model at this path."""
    annotation: Any = Config
    for step in path:
        model = _model_in(annotation)
        is_model = annotation is model  # otherwise it holds models, and the step only chooses one of them
        annotation = model.model_fields[str(step)].annotation if is_model else model
    return list(_model_in(annotation).model_fields)


def _model_in(annotation: Any) -> Any:
    """Return the model in an annotation: `dict[str, M]`, `tuple[M, ...]`, `M | None`, or `M`."""
    for part in get_args(annotation):
        if (found := _model_in(part)) is not None:
            return found
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _suggestion(word: str, known: Iterable[str]) -> str:
    near = _nearest(word, known)
    return f" (did you mean {near}?)" if near else ""


def _nearest(word: str, known: Iterable[str]) -> str | None:
    import difflib  # here: nearly no daemon needs it

    return next(iter(difflib.get_close_matches(word.lower(), known, n=1)), None)


def _one_of(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"one of {', '.join(words)}"


def _quoted(value: object) -> str:
    if isinstance(value, SecretStr):
        return "a secret"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, dict):
        return "a mapping"
    if value is None:
        return "nothing"
    text = printable(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= 60 else text[:60] + "…"
