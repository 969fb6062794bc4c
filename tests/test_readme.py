"""What the README and the documentation show is what happens: all Python runs, the bots.yaml is accepted."""

from __future__ import annotations

import builtins
import os
import re
import subprocess
import symtable
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.author import author_environment

pytestmark = pytest.mark.timeout(180)
"""These start several processes each, which a busy machine does slowly."""

README = Path(__file__).parent.parent / "README.md"
DOCS = README.parent / "docs"
GUIDES = (README, *sorted(DOCS.rglob("*.md")))


def blocks(language: str, page: Path = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def undefined_names(source: str) -> set[str]:
    """Return the names that the source uses, and neither it nor Python defines."""

    def scopes(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
        yield table
        for child in table.get_children():
            yield from scopes(child)

    module = symtable.symtable(source, "<page>", "exec")
    defined = {symbol.get_name() for symbol in module.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    symbols = [symbol for scope in scopes(module) for symbol in scope.get_symbols()]
    used = {symbol.get_name() for symbol in symbols if symbol.is_referenced() and symbol.is_global()}
    return used - defined - {*dir(builtins), "__file__"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's directory, with the files in it that the README and all pages of the documentation show."""
    for block in [block for page in GUIDES for language in ("python", "text") for block in blocks(language, page)]:
        named = re.match(r"# (\S+\.(?:py|chat))\n", block)
        if named is None:
            continue
        path = tmp_path / named.group(1)
        path.parent.mkdir(exist_ok=True)
        path.write_text(block, encoding="utf-8")
    # An editable install of chatbot also offers this repository's own `plugins`; the user's comes first.
    (tmp_path / "plugins" / "__init__.py").touch()
    (tmp_path / "bots.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    return tmp_path


def run(project: Path, *command: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, *command)
    return subprocess.run(
        command, cwd=project, env=author_environment(), capture_output=True, text=True, timeout=150, check=False
    )


def test_the_tests_that_are_shown_pass_in_a_project_with_one_line_of_configuration(project: Path) -> None:
    finished = run(project, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto", "tests")

    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "12 passed" in finished.stdout


def test_the_configuration_of_the_readme_is_accepted(project: Path) -> None:
    run(project, "-m", "chatbot", "new", "dice", "--config", "other.yaml")

    finished = run(project, "-m", "chatbot", "check")

    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_every_plugin_that_is_shown_can_be_loaded(project: Path) -> None:
    names = [path.stem for path in sorted((project / "plugins").glob("[a-z]*.py"))]
    (project / "bots.yaml").write_text(
        "version: 1\nservice: emulator\nbots:\n"
        + "".join(f"  {name}:\n    plugins: [plugins.{name}]\n" for name in names)
    )

    finished = run(project, "-m", "chatbot", "check")

    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert names == ["cart", "counter", "desk", "greeter", "news", "shop", "shopping", "story", "survey", "tea"]


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.relative_to(README.parent).as_posix())
def test_whole_files_that_are_shown_use_no_undefined_names(page: Path) -> None:
    files = [block for block in blocks("python", page) if re.match(r"# \S+\.py\n", block)]

    assert {name for block in files for name in undefined_names(block)} == set()


def test_the_example_has_a_bot_and_its_test_in_25_lines() -> None:
    example = blocks("python")[0]

    assert all(word in example for word in ("plugin.message", "plugin.command", "Dialog", "async def test_bot"))
    assert len(example.splitlines()) <= 25


def test_the_page_about_the_tests_names_files_that_are_there() -> None:
    page = (README.parent / "tests" / "README.md").read_text(encoding="utf-8")

    paths = re.findall(r"`((?:tests|chatbot|plugins|docs)/[^`*: ]*)`", page)
    assert len(paths) > 15
    assert [path for path in paths if not (README.parent / path).exists()] == []
    support = {path.name for path in (README.parent / "tests" / "support").glob("*.py")}
    assert support | {"conftest.py"} == set(re.findall(r"`(\w+\.py)`", page))


def test_unit_tests_lie_in_the_packages_of_the_code_that_they_test() -> None:
    root = README.parent / "tests" / "unit"

    packages = {path.parent.relative_to(root) for path in root.rglob("test_*.py")}
    assert [str(path) for path in packages if not (README.parent / "chatbot" / path).is_dir()] == []


def test_the_tutorial_leads_from_nothing_to_a_bot_that_is_tested(tmp_path: Path) -> None:
    """Its files are written and its commands run, in the order in which they are read."""
    tutorial = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    steps = re.findall(r"^```(sh|python|text)\n(.*?)^```$", tutorial, re.MULTILINE | re.DOTALL)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    shown = []
    for language, block in steps:
        if language == "sh":
            command = ["sh", "-euc", block]
            finished = subprocess.run(
                command,
                cwd=tmp_path,
                env=author_environment() | {"PATH": path},
                capture_output=True,
                text=True,
                timeout=150,
                check=False,
            )
            assert finished.returncode == 0, finished.stdout + finished.stderr
            shown.append(finished.stdout)
        else:
            (tmp_path / block.split()[1]).write_text(block, encoding="utf-8")

    assert "1 passed" in shown[0]
    assert "2 passed" in shown[1]
    assert "bots.yaml: no problems found, 1 bot" in shown[1]
