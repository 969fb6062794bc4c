"""Places in the code, as documentation names them: `bot/lane.py:Lane.run`, relative to chatbot/."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final

import chatbot

ROOT: Final = Path(chatbot.__file__).parent
DOCS: Final = ROOT.parent / "docs"

_PLACE: Final = re.compile(r"`([\w/]+\.py)(?::([\w.]+))?`")


def places_in(text: str) -> list[tuple[str, str]]:
    """Return file and qualified name of every place that a text names; the name is "" where only a file is named."""
    return [(match[1], match[2] or "") for match in _PLACE.finditer(text)]


def exists(file: str, name: str) -> bool:
    """Return whether a file of chatbot/ defines a name."""
    return (ROOT / file).is_file() and (not name or name in _names_of(file))


def modules() -> Iterator[Path]:
    """Yield all modules of chatbot/, relative to it, without `__init__` and `__main__`."""
    for path in sorted(ROOT.rglob("*.py")):
        if not path.stem.startswith("__"):
            yield path.relative_to(ROOT)


@lru_cache
def _names_of(file: str) -> frozenset[str]:
    return frozenset(_defined(ast.parse((ROOT / file).read_text("utf-8")), ""))


def _defined(scope: ast.AST, prefix: str) -> Iterator[str]:
    for node in ast.iter_child_nodes(scope):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name
            yield from _defined(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield prefix + node.target.id
        elif isinstance(node, ast.Assign):
            yield from (prefix + target.id for target in node.targets if isinstance(target, ast.Name))


__all__ = ["DOCS", "ROOT", "exists", "modules", "places_in"]
