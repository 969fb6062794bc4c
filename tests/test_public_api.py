"""What `import chatbot` offers, and what it costs."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import chatbot
import chatbot.testing

TYPING = Path(__file__).parent / "typing"
"""What mypy and pyright check, and nobody runs."""


def promised() -> dict[str, str]:
    """Every name that type checkers see, with its module."""
    tree = ast.parse(Path(chatbot.__file__).read_text("utf-8"))
    return {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("chatbot.")
        for alias in node.names
    }


def test_type_checkers_and_programs_see_the_same_names() -> None:
    assert sorted(promised()) == sorted(chatbot.__all__)


@pytest.mark.parametrize(("name", "room"), promised().items())
def test_every_name_is_what_its_room_says(name: str, room: str) -> None:
    assert getattr(chatbot, name) is getattr(import_module(room), name)


def imported_by(tree: ast.AST, package: str) -> set[str]:
    """What a module takes from a package; ruff sees to it that it is used."""
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == package]
    return {alias.name for node in froms for alias in node.names}


@pytest.mark.parametrize("package", [chatbot, chatbot.testing], ids=lambda package: package.__name__)
def test_type_checkers_see_every_public_name_in_use(package: Any) -> None:
    trees = [ast.parse(path.read_text("utf-8")) for path in TYPING.glob("*.py")]
    seen = set().union(*(imported_by(tree, package.__name__) for tree in trees))

    assert sorted(set(package.__all__) - seen) == []


def test_type_checkers_see_a_mistake_with_everything_that_a_plugin_offers() -> None:
    flagged = "\n".join(
        line for path in TYPING.glob("*.py") for line in path.read_text("utf-8").splitlines() if "type: ignore" in line
    )
    offered = {name for name in vars(chatbot.Plugin) if not name.startswith("_")} - {"handlers", "includes"}

    assert sorted(name for name in offered if f"plugin.{name}" not in flagged) == []


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'chatbot' has no attribute 'Plugn'"):
        chatbot.Plugn  # noqa: B018


@pytest.mark.parametrize("statement", ["import chatbot", "from chatbot import *"])
def test_importing_chatbot_loads_nothing_that_a_plugin_does_not_need(statement: str) -> None:
    script = f"""
import sys
{statement}
heavy = {{"azure", "aiohttp", "yaml", "pydantic", "structlog", "starlette", "uvicorn", "cyclopts", "rich"}}
sys.exit(", ".join(sorted(heavy & set(sys.modules))))
"""
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert loaded.stderr.strip() == ""
