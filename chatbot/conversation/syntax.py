"""The source of an author's function, parsed."""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any, NamedTuple


class Syntax(NamedTuple):
    """What stands in a file.

    Args:
        tree: the function, decorators included.
        file: where it stands.
        first_line: likewise; the tree's own lines begin at 1.
    """

    tree: ast.Module
    file: str
    first_line: int


def syntax_of(function: Any) -> Syntax | None:
    """The syntax of a function or method; None of what is neither, or has no source."""
    try:
        lines, first_line = inspect.getsourcelines(function)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, TypeError, SyntaxError):
        return None
    return Syntax(tree, function.__code__.co_filename, first_line)
