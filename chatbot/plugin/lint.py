"""Static checks for mistakes in handlers that load and run, but do not work as intended. Used by `chatbot check`.

There are four checks. The last one compares all handlers of a bot, the others check one handler:
    - `findings`: calls that give a dialog another result when it is replayed: clocks, randomness, waiting, I/O.
    - `unawaited`: methods of the context or the dialog that have no effect because `await` is missing.
    - `blocking` and `lost_actions`: calls that block the event loop, and actions inside `talk.run` or `ctx.once`.
    - `unreachable`: handlers whose events are all handled by an earlier handler.

The checks parse the source and resolve called names in the function's module. They follow functions of the same module
and other dialogs. They avoid false positives: a name that cannot be resolved is accepted. No plugin code is executed.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any, Final, NamedTuple, Self, get_args

from chatbot.conversation.dialog import Dialog
from chatbot.dispatch.context import Context
from chatbot.dispatch.handler import Handler
from chatbot.dispatch.outcome import PASS, Pass
from chatbot.dispatch.parameters import hints_of, name_of


@dataclass(frozen=True, slots=True)
class LintFinding:
    """A call, or an assignment to a global, that should be written differently.

    Args:
        file: the source file.
        line: the line number.
        call: the call as written, or the name of the global.
        remedy: what to write instead.
    """

    file: str
    line: int
    call: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Mistake:
    """A mistake in the source of a plugin.

    Args:
        file: the source file.
        line: the line number.
        text: one sentence that includes the remedy.
    """

    file: str
    line: int
    text: str


class Syntax(NamedTuple):
    """The parsed source of a function.

    Args:
        tree: the function, including decorators.
        file: the source file.
        first_line: the line where the function begins; line numbers in the tree begin at 1.
    """

    tree: ast.Module
    file: str
    first_line: int


def syntax_of(function: Any) -> Syntax | None:
    """Return the parsed source of a function or method, or None if it is neither or has no source."""
    try:
        lines, first_line = inspect.getsourcelines(function)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, TypeError, SyntaxError):
        return None
    return Syntax(tree, function.__code__.co_filename, first_line)


CLOCK: Final = "use `await talk.now()`"
EFFECT: Final = "use `await talk.run(…)`"
WAIT: Final = "ask with a timeout=, or continue in a timer"
REMEMBERED: Final = "keep it in a State"
ORDER: Final = "do one thing after the other, or all of it within one `talk.run(…)`"

SUSPECTS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today"), CLOCK),
    **dict.fromkeys(("datetime.date.today", "anyio.current_time"), CLOCK),
    **dict.fromkeys((f"time.{name}" for name in ("time", "time_ns", "monotonic", "perf_counter", "localtime")), CLOCK),
    **dict.fromkeys(("random", "secrets", "uuid.uuid1", "uuid.uuid4", "os.urandom", "posix.urandom"), EFFECT),
    **dict.fromkeys(("numpy.random", "builtins.open", "_io.open", "io.open", "builtins.input", "os.system"), EFFECT),
    **dict.fromkeys(("requests", "httpx", "aiohttp", "urllib.request", "urllib3", "http.client", "socket"), EFFECT),
    **dict.fromkeys(("subprocess", "smtplib", "shutil", "tempfile", "sqlite3", "asyncpg", "psycopg", "redis"), EFFECT),
    **dict.fromkeys(
        (f"pathlib.Path.{kind}_{what}" for kind in ("read", "write") for what in ("text", "bytes")), EFFECT
    ),
    **dict.fromkeys((f"pathlib.Path.{name}" for name in ("open", "unlink", "mkdir", "touch", "iterdir")), EFFECT),
    **dict.fromkeys((f"os.{name}" for name in ("remove", "rename", "replace", "mkdir", "listdir", "popen")), EFFECT),
    **dict.fromkeys(("time.sleep", "asyncio.sleep", "anyio.sleep", "anyio.sleep_until"), WAIT),
    **dict.fromkeys(("asyncio.gather", "asyncio.create_task", "asyncio.TaskGroup", "anyio.create_task_group"), ORDER),
}
"""Calls that a dialog must not make directly, by full name or prefix, with the remedy."""


def findings(dialog: Callable[..., Any], provided: Collection[str] = ()) -> list[LintFinding]:
    """Return the calls that would break a replay of this dialog, in line order.

    Args:
        dialog: the dialog's function.
        provided: its parameters that providers supply; their methods may return other results in a replay.
    """
    seen: set[Callable[..., Any]] = set()
    todo: list[tuple[Callable[..., Any], Collection[str]]] = [(inspect.unwrap(dialog), provided)]
    found: set[LintFinding] = set()
    while todo:
        function, outside = todo.pop()
        if function in seen or not isinstance(function, FunctionType):
            continue
        seen.add(function)
        reading = _Pass.of(function, outside)
        if reading is not None:
            reading.read()
            found |= reading.found
            todo += [(other, ()) for other in reading.called if _must_check(other, function)]
    return sorted(found, key=lambda finding: (finding.file, finding.line, finding.call))


def _must_check(called: FunctionType, caller: FunctionType) -> bool:
    """Return whether a called function is checked too: it is in the same module, or is a dialog itself."""
    hints = getattr(called, "__annotations__", {})
    return called.__module__ == caller.__module__ or any("Dialog" in str(hint) for hint in hints.values())


class _Pass(ast.NodeVisitor):
    """A single pass over the source of a function."""

    def __init__(
        self, tree: ast.AST, known: Mapping[str, Any], *, file: str, line: int, provided: Collection[str]
    ) -> None:
        self.found: set[LintFinding] = set()
        self.called: list[FunctionType] = []
        self._tree = tree
        self._known = dict(known)
        self._file = file
        self._first_line = line
        self._provided = provided
        self._passed_to_run = set(_passed_to_run(tree))

    @classmethod
    def of(cls, function: FunctionType, provided: Collection[str]) -> Self | None:
        """Return a reading of the function's source, or None if it has none."""
        syntax = syntax_of(function)
        if syntax is None:
            return None
        closure = inspect.getclosurevars(function)
        known = {**vars(builtins), **function.__globals__, **closure.nonlocals}
        return cls(syntax.tree, known, file=syntax.file, line=syntax.first_line, provided=provided)

    def read(self) -> None:
        self.visit(self._tree)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._known[alias.asname or alias.name.partition(".")[0]] = _Named(
                alias.name if alias.asname else alias.name.partition(".")[0]
            )

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            self._known[alias.asname or alias.name] = _Named(f"{node.module}.{alias.name}")

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._visit_function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._visit_function(node)

    def _visit_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        if node.name not in self._passed_to_run:
            for statement in node.body:  # not decorators and defaults, which run only once
                self.visit(statement)

    def visit_Call(self, node: ast.Call) -> None:
        if _is_run(node) and not self._is_module(node.func):
            return
        self._check_call(node)
        self.generic_visit(node)

    def visit_Global(self, node: ast.Global) -> None:
        for name in node.names:
            self._note(node, name, REMEMBERED)

    def _is_module(self, node: ast.expr) -> bool:
        """Return whether a name is an attribute of a module: `subprocess.run` is not the dialog's `run`."""
        owner = self._resolve(node.value) if isinstance(node, ast.Attribute) else None
        return isinstance(owner, ModuleType) or (isinstance(owner, _Named) and bool(owner.name))

    def _check_call(self, node: ast.Call) -> None:
        root = node.func
        while isinstance(root, ast.Attribute | ast.Call):
            root = root.value if isinstance(root, ast.Attribute) else root.func
        if isinstance(root, ast.Name) and root.id in self._provided and isinstance(node.func, ast.Attribute):
            self._find(node, EFFECT)
            return
        suspect = self._suspect_of(node, SUSPECTS)
        if suspect is not None:
            self._find(node, SUSPECTS[suspect])

    def _suspect_of(self, node: ast.Call, suspects: Collection[str]) -> str | None:
        """Return which of the suspects is called, if any; queue a called function that must be checked too."""
        found = self._resolve(node.func)
        if isinstance(found, FunctionType):
            self.called.append(found)
        names = (_name_of(found), self._as_written(node.func))
        return next(
            (
                suspect
                for suspect in suspects
                if any(name == suspect or name.startswith(f"{suspect}.") for name in names)
            ),
            None,
        )

    def _as_written(self, node: ast.expr) -> str:
        """Return the name of a module's attribute as written, even if the module re-exports it."""
        if not isinstance(node, ast.Attribute):
            return ""
        owner = self._resolve(node.value)
        return f"{owner.__name__}.{node.attr}" if isinstance(owner, ModuleType) else ""

    def _find(self, node: ast.Call, remedy: str) -> None:
        self._note(node, f"{ast.unparse(node.func)}()", remedy)

    def _note(self, node: ast.Call | ast.Global, what: str, remedy: str) -> None:
        self.found.add(LintFinding(self._file, self._first_line + node.lineno - 1, what, remedy))

    def _resolve(self, node: ast.expr) -> Any:
        """Resolve an expression in the function's module; return `_Named` if only its name is known."""
        if isinstance(node, ast.Name):
            return self._known.get(node.id, _Named(""))
        if isinstance(node, ast.Call):
            made = self._resolve(node.func)
            return made if isinstance(made, type | _Named) else _Named("")
        if not isinstance(node, ast.Attribute):
            return _Named("")
        owner = self._resolve(node.value)
        if isinstance(owner, ModuleType):
            found = vars(owner).get(node.attr, _Named(f"{owner.__name__}.{node.attr}"))
            is_plain = isinstance(found, ModuleType | type | FunctionType)
            return found if is_plain else _Named(f"{owner.__name__}.{node.attr}")
        owner_name = _name_of(owner)
        return _Named(f"{owner_name}.{node.attr}" if owner_name else "")


@dataclass(frozen=True, slots=True)
class _Named:
    """An object of which only the full name is known."""

    name: str


def _name_of(found: Any) -> str:
    if isinstance(found, _Named):
        return found.name
    if isinstance(found, ModuleType):
        return found.__name__
    if not hasattr(found, "__qualname__"):
        found = type(found)
    # Private submodules differ between Python versions: in 3.13, `pathlib.Path` is in `pathlib._local`.
    module = re.sub(r"\._\w+", "", getattr(found, "__module__", None) or "builtins")
    return f"{module}.{found.__qualname__}"


def _is_run(node: ast.Call) -> bool:
    return isinstance(node.func, ast.Attribute) and node.func.attr == "run" and isinstance(node.func.value, ast.Name)


def _passed_to_run(tree: ast.AST) -> Iterator[str]:
    """Yield the names of functions that are passed to `talk.run` instead of being called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _is_run(node):
            yield from (argument.id for argument in node.args if isinstance(argument, ast.Name))


@dataclass(frozen=True, slots=True)
class FoundCall:
    """A call of a suspect: the call as written, the name of the suspect, and whether it is inside a loop."""

    file: str
    line: int
    call: str
    suspect: str
    is_in_loop: bool


def calls_of(function: Callable[..., Any], suspects: Collection[str]) -> list[FoundCall]:
    """Return the calls of the suspects, by full name or prefix, in a function and in functions of its module it calls.

    Lambdas and nested functions are skipped: they may run elsewhere, for example in a thread.
    """
    seen: set[Callable[..., Any]] = set()
    todo: list[Callable[..., Any]] = [inspect.unwrap(function)]
    found: set[FoundCall] = set()
    while todo:
        called = todo.pop()
        if called in seen or not isinstance(called, FunctionType):
            continue
        seen.add(called)
        reading = _CallPass.of(called, ())
        if isinstance(reading, _CallPass):
            reading.suspects = suspects
            reading.read()
            found |= reading.calls
            todo += [other for other in reading.called if other.__module__ == called.__module__]
    return sorted(found, key=lambda call: (call.file, call.line, call.call))


class _CallPass(_Pass):
    """A pass that finds calls outside of nested functions."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.suspects: Collection[str] = ()
        self.calls: set[FoundCall] = set()
        self._loops = 0
        self._depth = 0

    def visit_Lambda(self, node: ast.Lambda) -> None:
        return

    def _visit_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        if self._depth:
            return
        self._depth += 1
        for statement in node.body:
            self.visit(statement)
        self._depth -= 1

    def visit_Global(self, node: ast.Global) -> None:
        return

    def visit_Call(self, node: ast.Call) -> None:
        suspect = self._suspect_of(node, self.suspects)
        if suspect is not None:
            line = self._first_line + node.lineno - 1
            self.calls.add(FoundCall(self._file, line, f"{ast.unparse(node.func)}()", suspect, bool(self._loops)))
        self.generic_visit(node)

    def visit(self, node: ast.AST) -> None:
        is_loop = isinstance(node, _LOOPS)
        self._loops += is_loop
        super().visit(node)
        self._loops -= is_loop


_LOOPS: Final = (ast.For, ast.AsyncFor, ast.While, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def unawaited(handler: Callable[..., Any], *, is_dialog: bool) -> Iterator[LintFinding]:
    """Yield the calls in a handler that have no effect because `await` is missing, in line order.

    Args:
        handler: the function; its first parameter is a context or a dialog.
        is_dialog: whether the first parameter is a dialog.
    """
    function, kind = inspect.unwrap(handler), Dialog if is_dialog else Context
    syntax = syntax_of(function)
    if syntax is None:  # nothing can be checked without source
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
                call = f"{name}.{method}(…)"
                yield LintFinding(syntax.file, syntax.first_line + node.lineno - 1, call, f"write `await {call}`")


def _is_dropped(call: ast.Call, parents: Mapping[ast.AST, ast.AST], passed_on: Collection[str]) -> bool:
    """Return whether a call's coroutine can never be awaited, because it is used as if it were the result."""
    parent = parents.get(call)
    if isinstance(parent, ast.IfExp) and parent.test is not call:  # the call is the value of the conditional expression
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
        case _:  # an expression statement, a comparison, an f-string, the condition of an `if`, …
            return True


def _used_elsewhere(tree: ast.AST, parents: Mapping[ast.AST, ast.AST]) -> set[str]:
    """Return the names that are awaited, passed on, stored or returned: their coroutine may be awaited elsewhere."""
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
    """Return whether a call may await or keep its arguments, like `gather`, `wait_for` or `append`, unlike `int`."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return name not in _TAKES_VALUES


_TAKES_VALUES: Final = frozenset(
    {"int", "float", "str", "bool", "len", "repr", "print", "format", "say", "reply", "ask", "info", "max", "min"}
)


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
"""Calls that block the event loop, by full name or prefix, with the remedy."""

IN_LOOPS: Final[Mapping[str, str]] = dict.fromkeys(
    ("builtins.open", "_io.open", "io.open", "pathlib.Path.read_text", "pathlib.Path.read_bytes", "pathlib.Path.open"),
    IN_A_THREAD,
)
"""Calls that block the event loop only when repeated in a loop; reading a single file is fast."""

_ACTIONS: Final = frozenset(
    {
        "reply", "later", "cancel", "edit", "delete", "add_participants", "remove_participant", "leave", "update_topic",
        "stream", "acknowledge", "say", "ask", "confirm",
    }
)  # fmt: skip
"""Methods that add an action to the commit, or a step to a dialog."""


def mistakes(handlers: Sequence[Handler]) -> Iterator[Mistake]:
    """Yield the mistakes in the handlers of one bot, in order."""
    for handler in handlers:
        if not handler.is_dialog:  # in dialogs, `findings` already reports I/O
            yield from blocking(handler.registration.function)
        yield from lost_actions(handler.registration.function)
    yield from unreachable(handlers)


def blocking(function: Callable[..., Any]) -> Iterator[Mistake]:
    """Yield the calls that block the event loop, in a handler and in functions of its module that it calls."""
    for call in calls_of(function, {**BLOCKING, **IN_LOOPS}):
        if call.is_in_loop or call.suspect in BLOCKING:
            remedy = BLOCKING.get(call.suspect) or IN_LOOPS[call.suspect]
            yield Mistake(call.file, call.line, f"{call.call} blocks the event loop: {remedy}")


def unreachable(handlers: Sequence[Handler]) -> Iterator[Mistake]:
    """Yield the handlers whose events are all handled, and never passed on, by an earlier handler."""
    asked = [other for other in handlers if other.info is None and not other.registration.is_called_by_name]
    for index, handler in enumerate(asked):
        first = next(
            (earlier for earlier in asked[:index] if _takes_all_of(earlier, handler) and not _may_pass(earlier)), None
        )
        if first is not None:
            file, _, line = handler.place.rpartition(":")
            text = (
                f"{name_of(handler.registration.function)} is never called: {name_of(first.registration.function)}"
                f" ({first.place}) comes before it and takes all that it would; register it before that one, give that"
                " one a filter, or let it `return PASS`"
            )
            yield Mistake(file, int(line) if line.isdecimal() else 0, text)


def _takes_all_of(first: Handler, second: Handler) -> bool:
    earlier, later = first.registration, second.registration
    return (
        issubclass(later.event, earlier.event)
        and (earlier.filter is None or earlier.filter is later.filter)
        and (later.needs_text or not earlier.needs_text)
        and (earlier.options.from_bots or not later.options.from_bots)
    )


def _may_pass(handler: Handler) -> bool:
    """Return whether a handler may pass an event on; True if unknown."""
    if handler.layers:  # a middleware may return PASS for it
        return True
    function = handler.registration.function
    hint = hints_of(function).get("return", inspect.Parameter.empty)
    if hint is not inspect.Parameter.empty:
        return hint in (Any, Pass, PASS) or any(
            member in (Pass, PASS, Any) or _is_pass(member) for member in get_args(hint)
        )
    syntax = syntax_of(inspect.unwrap(function))
    if syntax is None:
        return True
    returned = [node.value for node in ast.walk(syntax.tree) if isinstance(node, ast.Return) and node.value]
    return not all(isinstance(value, ast.Constant | ast.JoinedStr) for value in returned)


def _is_pass(hint: object) -> bool:
    return any(isinstance(member, Pass) for member in get_args(hint)) or isinstance(hint, Pass)


def lost_actions(function: Callable[..., Any]) -> Iterator[Mistake]:
    """Yield the actions that a handler requests inside `talk.run` or `ctx.once`, where they are lost."""
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


def _actions_in(
    argument: ast.expr,
    holders: set[str],
    nested: Mapping[str, ast.FunctionDef | ast.AsyncFunctionDef],
    function: Any,
    syntax: Syntax,
) -> Iterator[tuple[str, int]]:
    """Yield the actions requested by an argument of `run` or `once`, each with its line."""
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
