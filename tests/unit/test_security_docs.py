"""Every threat in docs/concepts/security.md names tests, and all of them exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


@cache
def names_in(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in functions)


def test_every_threat_names_tests_that_exist() -> None:
    lines = [
        line for line in (ROOT / "docs/concepts/security.md").read_text("utf-8").splitlines() if line.startswith("| ")
    ]
    threats = [line for line in lines if not line.startswith("| Threat |")]
    unshown = [line for line in threats if not NAMED.search(line.split(" | ")[-1])]
    missing = [
        f"{file}::{name}" for line in threats for file, name in NAMED.findall(line) if name not in names_in(file)
    ]

    assert len(threats) > 30
    assert unshown == []
    assert missing == []
