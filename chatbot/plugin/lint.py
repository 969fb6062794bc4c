"""Mistakes of handlers that load and run, and do not do what their author meant. `chatbot check` shows them.

It reads the source, and lets pass what it does not know.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any, Final, get_args

from chatbot.conversation.replayable import calls_of
from chatbot.conversation.syntax import Syntax, syntax_of
from chatbot.dispatch.handler import Handler
from chatbot.dispatch.reply import PASS, Pass
from chatbot.dispatch.signature import hints_of, name_of

IN_A_THREAD: Final = (
    "every other thread waits meanwhile; write `await anyio.to_thread.run_sync(…)`, or use an async library"
)
ASYNC_SLEEP: Final = "every other thread waits meanwhile; write `await anyio.sleep(…)`, or set a timer with later()"

BLOCKING: Final[Mapping[str, str]] = {
    "time.sleep": ASYNC_SLEEP,
    **dict.fromkeys(("requests", "urllib.request", "urllib3", "http.client", "smtplib", "ftplib"), IN_A_THREAD),
    **dict.fromkeys(
        (f"httpx.{name}" for name in ("get", "post", "put", "patch", "delete", "head", "request")), IN_A_THREAD
    ),
    **dict.fromkeys((f"subprocess.{name}" for name in ("run", "call", "check_call", "check_output")), IN_A_THREAD),
    **dict.fromkeys(("subprocess.getoutput", "subprocess.getstatusoutput", "os.system", "posix.system"), IN_A_THREAD),
    **dict.fromkeys(("builtins.input", "socket.create_connection", "socket.getaddrinfo"), IN_A_THREAD),
    **dict.fromkeys(("socket.gethostbyname", "sqlite3.connect", "_sqlite3.connect", "psycopg2.connect"), IN_A_THREAD),
    **dict.fromkeys(("shutil.copytree", "shutil.rmtree", "shutil.copyfile", "shutil.make_archive"), IN_A_THREAD),
}
"""Calls that keep the event loop from running, by full name or its beginning; and what to do instead."""

IN_LOOPS: Final[Mapping[str, str]] = dict.fromkeys(
    ("builtins.open", "_io.open", "io.open", "pathlib.Path.read_text", "pathlib.Path.read_bytes", "pathlib.Path.open"),
    IN_A_THREAD,
)
"""Calls that do so when they are repeated: one file is read quickly."""

_ACTIONS: Final = frozenset(
    {
        "reply", "later", "cancel", "edit", "delete", "add_participants", "remove_participant", "leave", "update_topic",
        "stream", "acknowledge", "say", "ask", "confirm",
    }
)  # fmt: skip
"""What waits for the commit, or is a step of a dialog."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """A mistake in an author's source.

    Args:
        file: where.
        line: likewise.
        text: one sentence, with what to do.
    """

    file: str
    line: int
    text: str


def mistakes(handlers: Sequence[Handler]) -> Iterator[Mistake]:
    """The mistakes in the handlers of one bot, in their order."""
    for handler in handlers:
        if not handler.is_dialog:  # of dialogs, everything outside is found as what a replay would do again
            yield from blocking(handler.registration.function)
        yield from lost_actions(handler.registration.function)
    yield from unreachable(handlers)


def blocking(function: Callable[..., Any]) -> Iterator[Mistake]:
    """The calls of a handler, and of functions of its module that it calls, that block the event loop."""
    for call in calls_of(function, {**BLOCKING, **IN_LOOPS}):
        if call.is_in_loop or call.suspect in BLOCKING:
            remedy = BLOCKING.get(call.suspect) or IN_LOOPS[call.suspect]
            yield Mistake(call.file, call.line, f"{call.call} blocks the event loop: {remedy}")


# ── handlers that are never asked ────────────────────────────────────────────────────────────────────────────────


def unreachable(handlers: Sequence[Handler]) -> Iterator[Mistake]:
    """The handlers before which another one takes every event, and hands none on."""
    asked = [one for one in handlers if one.info is None and not one.registration.is_called_by_name]
    for index, handler in enumerate(asked):
        first = next((one for one in asked[:index] if _takes_all_of(one, handler) and not _may_pass(one)), None)
        if first is not None:
            file, _, line = handler.place.rpartition(":")
            text = (
                f"{name_of(handler.registration.function)} is never called: {name_of(first.registration.function)}"
                f" ({first.place}) comes before it and takes all that it would; register it before that one, give that"
                " one a filter, or let it `return PASS`"
            )
            yield Mistake(file, int(line) if line.isdecimal() else 0, text)


def _takes_all_of(first: Handler, second: Handler) -> bool:
    one, other = first.registration, second.registration
    return (
        issubclass(other.event, one.event)
        and (one.filter is None or one.filter is other.filter)
        and (other.needs_text or not one.needs_text)
        and (one.options.from_bots or not other.options.from_bots)
    )


def _may_pass(handler: Handler) -> bool:
    """Whether it may hand an event on; what is not known may."""
    if handler.layers:  # a middleware may do so for it
        return True
    function = handler.registration.function
    hint = hints_of(function).get("return", inspect.Parameter.empty)
    if hint is not inspect.Parameter.empty:
        return hint in (Any, Pass, PASS) or any(one in (Pass, PASS, Any) or _is_pass(one) for one in get_args(hint))
    syntax = syntax_of(inspect.unwrap(function))
    if syntax is None:
        return True
    returned = [node.value for node in ast.walk(syntax.tree) if isinstance(node, ast.Return) and node.value]
    return not all(isinstance(value, ast.Constant | ast.JoinedStr) for value in returned)


def _is_pass(hint: object) -> bool:
    return any(isinstance(one, Pass) for one in get_args(hint)) or isinstance(hint, Pass)


# ── what is lost inside of what is called once ───────────────────────────────────────────────────────────────────


def lost_actions(function: Callable[..., Any]) -> Iterator[Mistake]:
    """The actions that a handler asks for inside of `talk.run` or `ctx.once`."""
    plain = inspect.unwrap(function)
    syntax = syntax_of(plain)
    parameter = next(iter(inspect.signature(plain).parameters), None)
    if syntax is None or parameter is None:
        return
    holders = {parameter, "ctx", "talk"}
    nested = {
        node.name: node for node in ast.walk(syntax.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    for node in ast.walk(syntax.tree):
        match node:
            case ast.Call(ast.Attribute(ast.Name(owner), "run" | "once" as method), args) if owner == parameter:
                for argument in args:
                    for action, line in _actions_in(argument, holders, nested, plain, syntax):
                        text = (
                            f"{action} inside {owner}.{method}(…) is lost when an attempt fails after it; return what"
                            f" it needs, and write `await {owner}.{action.rpartition('.')[2]}(…)` behind that"
                        )
                        yield Mistake(syntax.file, line, text)
            case _:
                pass


def _actions_in(
    argument: ast.expr,
    holders: set[str],
    nested: Mapping[str, ast.FunctionDef | ast.AsyncFunctionDef],
    function: Any,
    syntax: Syntax,
) -> Iterator[tuple[str, int]]:
    """The actions that something given to `run` or `once` asks for, each with its line."""
    line = syntax.first_line + argument.lineno - 1
    if isinstance(argument, ast.Attribute):
        if _is_action(argument, holders):
            yield ast.unparse(argument), line
    elif isinstance(argument, ast.Lambda):
        for action, number in _calls_in(argument.body, holders):
            yield action, syntax.first_line + number - 1
    elif isinstance(argument, ast.Name) and argument.id in nested:
        for action, number in _calls_in(nested[argument.id], holders):
            yield action, syntax.first_line + number - 1
    elif isinstance(argument, ast.Name):
        other = getattr(function, "__globals__", {}).get(argument.id)
        if isinstance(other, FunctionType) and other.__module__ == function.__module__:
            found = syntax_of(other)
            own = {
                name for name, hint in other.__annotations__.items() if "Context" in str(hint) or "Dialog" in str(hint)
            }
            for action, _ in _calls_in(found.tree, own) if found is not None else ():
                yield action, line


def _calls_in(tree: ast.AST, holders: set[str]) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _is_action(node.func, holders):
            yield ast.unparse(node.func), node.lineno


def _is_action(node: ast.Attribute, holders: set[str]) -> bool:
    owner = node.value
    name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
    return node.attr in _ACTIONS and name in holders
