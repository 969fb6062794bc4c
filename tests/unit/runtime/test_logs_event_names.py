"""What is logged is named alike everywhere: `noun.verb_past`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[3] / "chatbot"
METHODS = {"debug", "info", "warning", "error", "exception", "critical"}
IRREGULAR = {"began", "broken", "cut", "done", "forgotten", "held", "kept", "left", "lost", "read", "sent", "withheld"}


@cache
def names() -> tuple[tuple[str, str], ...]:
    """Every event that chatbot logs, with the place where it does."""
    return tuple(logged())


def logged() -> Iterator[tuple[str, str]]:
    for file in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
                continue
            (first, *_) = node.args
            is_log = node.func.attr in METHODS and "log" in ast.unparse(node.func.value).lower()
            if is_log and isinstance(first, ast.Constant):
                yield str(first.value).partition(":")[0], f"{file.name}:{node.lineno}"


def test_every_event_is_named_by_a_noun_and_a_verb_in_the_past() -> None:
    found = names()
    wrong = [
        f"{place}: {name}"
        for name, place in found
        if not re.fullmatch(r"[a-z]+(_[a-z]+)*\.[a-z]+(_[a-z]+)*", name)
        or not any(word.endswith("ed") or word in IRREGULAR for word in name.partition(".")[2].split("_"))
    ]

    assert len(found) > 50
    assert not wrong


def test_the_page_of_log_events_names_only_events_that_there_are() -> None:
    page = (ROOT.parent / "docs" / "reference" / "log-events.md").read_text("utf-8")
    table = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    named = {name for cell in table for name in re.findall(r"`([\w.]+)`", cell)}
    composed = {f"trouble.{verb}" for verb in ("began", "ended")}  # of a noun and a verb, or logged by a callable

    assert len(named) > 15
    assert named - {name for name, _ in names()} - composed == set()
