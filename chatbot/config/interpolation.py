"""Replace `${VARIABLE}` in the values of bots.yaml, with the syntax of Compose. Pure: the environment is an argument.

    ${V}            its value; an error if it is not set
    ${V:-default}   `default` if V is unset or empty         ${V-default}   if it is unset
    ${V:?message}   an error if V is unset or empty          ${V?message}   if it is unset
    ${V:+other}     `other` if V is set and not empty        ${V+other}     if it is set
    $V              the same as ${V}                         $$             a dollar sign

Defaults may contain variables. Unlike in Compose, an unset variable without a default is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_OPERATOR: Final = re.compile(r":?[-?+]")
_MAX_DEPTH: Final = 20


class InterpolationError(ValueError):
    """A variable cannot be replaced; the message says why and what to write."""


class UnsetVariableError(InterpolationError):
    """A variable is not set, or is empty where it must not be."""


def interpolate(text: str, environ: Mapping[str, str]) -> str:
    """Replace every variable in a value.

    Raises:
        InterpolationError: a variable is not set, or a `$` begins no variable.
    """
    return _replace(text, environ, depth=0)


def _replace(text: str, environ: Mapping[str, str], depth: int) -> str:
    if depth > _MAX_DEPTH:
        message = f"variables are nested more than {_MAX_DEPTH} deep"
        raise InterpolationError(message)
    done, at = [], 0
    while (dollar := text.find("$", at)) >= 0:
        done.append(text[at:dollar])
        value, at = _variable(text, dollar, environ, depth)
        done.append(value)
    return "".join([*done, text[at:]])


def _variable(text: str, dollar: int, environ: Mapping[str, str], depth: int) -> tuple[str, int]:
    """Return the value of the variable that begins at this `$`, and the position after it."""
    if text.startswith("$$", dollar):
        return "$", dollar + 2
    braced = text.startswith("${", dollar)
    name = _NAME.match(text, dollar + 1 + braced)
    if name is None:
        message = "a $ must be followed by {NAME}; for a plain dollar sign write $$"
        raise InterpolationError(message)
    if not braced:
        return _value(name[0], "", "", environ, depth), name.end()
    end = _closing_brace(text, name.end())
    operator = _OPERATOR.match(text, name.end())
    if operator is None and end != name.end():
        message = f"${{{text[dollar + 2 : end]}}} is not valid (try ${{{name[0]}}} or ${{{name[0]}:-default}})"
        raise InterpolationError(message)
    mark = operator[0] if operator else ""
    return _value(name[0], mark, text[name.end() + len(mark) : end], environ, depth), end + 1


def _closing_brace(text: str, at: int) -> int:
    depth = 1
    for match in re.finditer(r"\$\$|\$\{|\}", text[at:]):
        depth += {"${": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return at + match.start()
    message = "a ${ is not closed by }"
    raise InterpolationError(message)


def _value(name: str, operator: str, word: str, environ: Mapping[str, str], depth: int) -> str:
    value = environ.get(name)
    counts = value is not None and (value != "" or not operator.startswith(":"))
    if operator.endswith("+"):
        return _replace(word, environ, depth + 1) if counts else ""
    if value is not None and counts:
        return value
    if operator.endswith("-"):
        return _replace(word, environ, depth + 1)
    state = "is not set" if value is None else "is empty"
    if operator.endswith("?"):
        reason = _replace(word, environ, depth + 1)
        message = f"the environment variable {name} {state}" + (f": {reason}" if reason else "")
    else:
        message = f"the environment variable {name} {state} (set it, or give a default: ${{{name}:-default}})"
    raise UnsetVariableError(message)
