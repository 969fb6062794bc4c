"""The glossary against the tree: its places exist, and module names that stand twice are explained."""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from typing import Final

import pytest

from tests.places import DOCS, ROOT, exists, modules, places_in

PAGE: Final = DOCS / "concepts" / "glossary.md"

QUESTIONS: Final = (
    "Where is a retry decided?",
    "Where is a quota counted?",
    "Where does a timer fire?",
    "Where is a reply's key made?",
    "Where is a bot's health computed?",
    "Where does a reload begin?",
)

DISTINCT: Final = frozenset({"bot", "dispatch", "conversation", "outbox", "stores"})
"""The packages that a message passes one after the other: between these, a module name has one meaning."""


def section(heading: str) -> str:
    """Return the text of a section of the page."""
    match = re.search(rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)", PAGE.read_text("utf-8"), re.S | re.M)
    assert match, f"the glossary has no section {heading!r}"
    return match[1]


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the table of a section, without its head."""
    lines = [line for line in section(heading).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_is_answered_with_one_place_in_the_code(question: str) -> None:
    answers = [cells[1] for cells in rows("Where is it?") if cells[0] == question]

    assert len(answers) == 1
    places = places_in(answers[0])
    assert len(places) == 1
    assert all(name for _file, name in places)
    assert exists(*places[0])


@pytest.mark.parametrize("term", rows("Terms"), ids=lambda cells: cells[0])
def test_a_term_names_code_that_exists(term: list[str]) -> None:
    places = places_in(term[2])

    assert places
    assert [place for place in places if not exists(*place)] == []


def test_terms_are_sorted_and_explained_once() -> None:
    terms = [cells[0].casefold() for cells in rows("Terms")]

    assert terms == sorted(set(terms))


def test_the_module_names_of_several_packages_are_those_of_the_glossary() -> None:
    files = defaultdict(set)
    for path in modules():
        files[path.stem].add(path.as_posix())
    explained = {cells[0].strip("`"): {file for file, _name in places_in(cells[1])} for cells in rows("Module names")}

    assert explained == {name: paths for name, paths in files.items() if len(paths) > 1}


def test_the_packages_on_the_way_of_a_message_share_no_module_name() -> None:
    names = Counter(path.stem for path in modules() if path.parts[0] in DISTINCT)

    assert [name for name, count in names.items() if count > 1] == []


def test_a_public_class_name_means_one_thing() -> None:
    files = defaultdict(list)
    for path in modules():
        for node in ast.parse((ROOT / path).read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                files[node.name].append(path.as_posix())

    assert {name: paths for name, paths in files.items() if len(paths) > 1} == {}
