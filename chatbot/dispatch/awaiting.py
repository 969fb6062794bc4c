"""Whether a handler forgets to await: calls of its context, or of its dialog, that stand alone and so do nothing.

Pure but for reading the source. Python itself only warns, when the call is thrown away; type checkers find it too.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from chatbot.conversation.dialog import Dialog
from chatbot.conversation.syntax import syntax_of
from chatbot.dispatch.context import Context


@dataclass(frozen=True, slots=True)
class Unawaited:
    """A call that nobody awaits.

    Args:
        file: where.
        line: likewise.
        call: what is called there, as it is written.
    """

    file: str
    line: int
    call: str


def unawaited(handler: Callable[..., Any], *, is_dialog: bool) -> Iterator[Unawaited]:
    """The calls of an author's function that do nothing because `await` is missing, in the order of its lines.

    Args:
        handler: the author's function; its first parameter is a context, or a dialog.
        is_dialog: which of both.
    """
    function, kind = inspect.unwrap(handler), Dialog if is_dialog else Context
    syntax = syntax_of(function)
    if syntax is None:  # without its source nothing is known of it
        return
    parameter = next(iter(inspect.signature(function).parameters), None)
    for node in ast.walk(syntax.tree):
        match node:
            case ast.Expr(ast.Call(ast.Attribute(ast.Name(name), method))) if (
                name == parameter and inspect.iscoroutinefunction(getattr(kind, method, None))
            ):
                yield Unawaited(syntax.file, syntax.first_line + node.lineno - 1, f"{name}.{method}(…)")
