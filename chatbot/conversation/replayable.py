"""Whether a dialog does the same every time it is run: looks in its source for clocks, chance, waiting and I/O.

Pure but for reading the source. It knows what a called name stands for in the function's module, follows functions of
the same module and other dialogs, and leaves alone whatever goes through `talk.run(…)`. It finds what people usually
overlook; what it does not know it lets pass.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any, Final, Self

from chatbot.conversation.syntax import syntax_of

CLOCK: Final = "use `await talk.now()`"
EFFECT: Final = "use `await talk.run(…)`"
WAIT: Final = "ask with a timeout=, or go on in a timer"
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
"""What a dialog must not call by itself, by its full name or the beginning of it; and what to do instead."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that may come out differently when a dialog is run again.

    Args:
        file: where.
        line: likewise.
        call: what is called or changed there, as it is written.
        remedy: what to do instead.
    """

    file: str
    line: int
    call: str
    remedy: str


def findings(dialog: Callable[..., Any], provided: Collection[str] = ()) -> list[Finding]:
    """What would break a replay of this dialog, in the order of its lines.

    Args:
        dialog: the author's function.
        provided: its parameters that are filled by providers: what they are asked is not known to be the same again.
    """
    seen: set[Callable[..., Any]] = set()
    todo: list[tuple[Callable[..., Any], Collection[str]]] = [(inspect.unwrap(dialog), provided)]
    found: set[Finding] = set()
    while todo:
        function, outside = todo.pop()
        if function in seen or not isinstance(function, FunctionType):
            continue
        seen.add(function)
        reading = _Reading.of(function, outside)
        if reading is not None:
            reading.read()
            found |= reading.found
            todo += [(other, ()) for other in reading.called if _is_followed(other, function)]
    return sorted(found, key=lambda one: (one.file, one.line, one.call))


@dataclass(frozen=True, slots=True)
class FoundCall:
    """A call of something that was looked for.

    Args:
        file: where.
        line: likewise.
        call: what is called there, as it is written.
        suspect: what it was found as.
        is_in_loop: it stands in a loop.
    """

    file: str
    line: int
    call: str
    suspect: str
    is_in_loop: bool


def calls_of(function: Callable[..., Any], suspects: Collection[str]) -> list[FoundCall]:
    """The calls of these, by full name or its beginning, in a function and in those of its module that it calls.

    What stands in a lambda or in a nested function is left out: it may be called elsewhere, such as in a thread.
    """
    seen: set[Callable[..., Any]] = set()
    todo: list[Callable[..., Any]] = [inspect.unwrap(function)]
    found: set[FoundCall] = set()
    while todo:
        one = todo.pop()
        if one in seen or not isinstance(one, FunctionType):
            continue
        seen.add(one)
        reading = _CallReading.of(one, ())
        if isinstance(reading, _CallReading):
            reading.suspects = suspects
            reading.read()
            found |= reading.calls
            todo += [other for other in reading.called if other.__module__ == one.__module__]
    return sorted(found, key=lambda call: (call.file, call.line, call.call))


def _is_followed(called: FunctionType, caller: FunctionType) -> bool:
    """Whether what a dialog calls is the same author's: of its module, or a dialog itself."""
    hints = getattr(called, "__annotations__", {})
    return called.__module__ == caller.__module__ or any("Dialog" in str(hint) for hint in hints.values())


class _Reading(ast.NodeVisitor):
    """One pass over a function."""

    def __init__(
        self, tree: ast.AST, known: Mapping[str, Any], *, file: str, line: int, provided: Collection[str]
    ) -> None:
        self.found: set[Finding] = set()
        self.called: list[FunctionType] = []
        self._tree = tree
        self._known = dict(known)
        self._file = file
        self._first_line = line
        self._provided = provided
        self._given_away = set(_given_to_run(tree))

    @classmethod
    def of(cls, function: FunctionType, provided: Collection[str]) -> Self | None:
        """A reading of its source; None if it has none."""
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
        if node.name not in self._given_away:
            for statement in node.body:  # and not its decorators or defaults, which run once
                self.visit(statement)

    def visit_Call(self, node: ast.Call) -> None:
        if _is_run(node) and not self._is_module(node.func):
            return
        self._judge(node)
        self.generic_visit(node)

    def visit_Global(self, node: ast.Global) -> None:
        for name in node.names:
            self._note(node, name, REMEMBERED)

    def _is_module(self, node: ast.expr) -> bool:
        """Whether it is an attribute of a module: `subprocess.run` is not what a dialog runs things with."""
        owner = self._resolve(node.value) if isinstance(node, ast.Attribute) else None
        return isinstance(owner, ModuleType) or (isinstance(owner, _Named) and bool(owner.name))

    def _judge(self, node: ast.Call) -> None:
        root = node.func
        while isinstance(root, ast.Attribute | ast.Call):
            root = root.value if isinstance(root, ast.Attribute) else root.func
        if isinstance(root, ast.Name) and root.id in self._provided and isinstance(node.func, ast.Attribute):
            self._find(node, EFFECT)
            return
        found = self._resolve(node.func)
        if isinstance(found, FunctionType):
            self.called.append(found)
        names = (_name_of(found), self._as_written(node.func))
        for suspect, remedy in SUSPECTS.items():
            if any(name == suspect or name.startswith(f"{suspect}.") for name in names):
                self._find(node, remedy)
                return

    def _as_written(self, node: ast.expr) -> str:
        """The name of a module's attribute, wherever the module has it from."""
        if not isinstance(node, ast.Attribute):
            return ""
        owner = self._resolve(node.value)
        return f"{owner.__name__}.{node.attr}" if isinstance(owner, ModuleType) else ""

    def _find(self, node: ast.Call, remedy: str) -> None:
        self._note(node, f"{ast.unparse(node.func)}()", remedy)

    def _note(self, node: ast.Call | ast.Global, what: str, remedy: str) -> None:
        self.found.add(Finding(self._file, self._first_line + node.lineno - 1, what, remedy))

    def _resolve(self, node: ast.expr) -> Any:
        """What an expression stands for, as far as the module tells; `_Named` where only its name is known."""
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


class _CallReading(_Reading):
    """A pass that looks for calls, wherever they are not within another function."""

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
        found = self._resolve(node.func)
        if isinstance(found, FunctionType):
            self.called.append(found)
        names = (_name_of(found), self._as_written(node.func))
        for suspect in self.suspects:
            if any(name == suspect or name.startswith(f"{suspect}.") for name in names):
                line = self._first_line + node.lineno - 1
                call = f"{ast.unparse(node.func)}()"
                self.calls.add(FoundCall(self._file, line, call, suspect, bool(self._loops)))
                break
        self.generic_visit(node)

    def visit(self, node: ast.AST) -> None:
        is_loop = isinstance(node, _LOOPS)
        self._loops += is_loop
        super().visit(node)
        self._loops -= is_loop


_LOOPS: Final = (ast.For, ast.AsyncFor, ast.While, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass(frozen=True, slots=True)
class _Named:
    """Something of which only the full name is known."""

    name: str


def _name_of(found: Any) -> str:
    if isinstance(found, _Named):
        return found.name
    if isinstance(found, ModuleType):
        return found.__name__
    if not hasattr(found, "__qualname__"):
        found = type(found)
    # Where Python itself keeps it is another matter in each version: in 3.13 `pathlib.Path` is of `pathlib._local`.
    module = re.sub(r"\._\w+", "", getattr(found, "__module__", None) or "builtins")
    return f"{module}.{found.__qualname__}"


def _is_run(node: ast.Call) -> bool:
    return isinstance(node.func, ast.Attribute) and node.func.attr == "run" and isinstance(node.func.value, ast.Name)


def _given_to_run(tree: ast.AST) -> Iterator[str]:
    """The names of functions that are not called here, but given to `talk.run`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _is_run(node):
            yield from (one.id for one in node.args if isinstance(one, ast.Name))
