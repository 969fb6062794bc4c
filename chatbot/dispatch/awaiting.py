"""Whether a handler forgets to await: calls of its context, or of its dialog, whose coroutine nobody awaits.

Such a call does nothing; its "result" is a coroutine, which people would read as `<coroutine object Dialog.ask …>`.

Pure but for reading the source. Python itself only warns, when the call is thrown away; type checkers find it too.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

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
    parents = {child: node for node in ast.walk(syntax.tree) for child in ast.iter_child_nodes(node)}
    passed_on = _used_elsewhere(syntax.tree, parents)
    for node in ast.walk(syntax.tree):
        match node:
            case ast.Call(ast.Attribute(ast.Name(name), method)) if (
                name == parameter
                and inspect.iscoroutinefunction(getattr(kind, method, None))
                and _is_dropped(node, parents, passed_on)
            ):
                yield Unawaited(syntax.file, syntax.first_line + node.lineno - 1, f"{name}.{method}(…)")


def _is_dropped(call: ast.Call, parents: Mapping[ast.AST, ast.AST], passed_on: Collection[str]) -> bool:
    """Whether nobody can await a call's coroutine: its value is used as if it were the result."""
    parent = parents.get(call)
    if isinstance(parent, ast.IfExp) and parent.test is not call:  # the value of the whole expression
        parent = parents.get(parent)
    match parent:
        case (
            ast.Assign(targets=[ast.Name(name)]) | ast.AnnAssign(target=ast.Name(name)) | ast.NamedExpr(ast.Name(name))
        ):
            return name not in passed_on
        case ast.Assign():
            return all(isinstance(target, ast.Tuple | ast.List) for target in parent.targets)
        case ast.Await() | ast.Call() | ast.keyword() | ast.Starred() | ast.Lambda() | ast.Yield():
            return False
        case ast.List() | ast.Tuple() | ast.Set() | ast.Dict() | ast.comprehension() | ast.Return() | ast.AnnAssign():
            return False
        case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp() | ast.IfExp():
            return False
        case _:  # an expression that stands alone, a comparison, an f-string, the condition of an `if`, …
            return True


def _used_elsewhere(tree: ast.AST, parents: Mapping[ast.AST, ast.AST]) -> set[str]:
    """The names that are awaited, given to a function, kept or returned somewhere: such a coroutine may be awaited."""
    uses = (ast.Await, ast.keyword, ast.List, ast.Tuple, ast.Set, ast.Dict, ast.Starred, ast.Return)
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            parent = parents.get(node)
            is_argument = isinstance(parent, ast.Call) and node in parent.args and _takes_coroutines(parent)
            if is_argument or isinstance(parent, uses):
                found.add(node.id)
    return found


def _takes_coroutines(call: ast.Call) -> bool:
    """Whether it may await what it is given: `gather`, `create_task`, `wait_for`, `append`, …; not `int` or `str`."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return name not in _TAKES_VALUES


_TAKES_VALUES: Final = frozenset(
    {"int", "float", "str", "bool", "len", "repr", "print", "format", "say", "reply", "ask", "info", "max", "min"}
)
