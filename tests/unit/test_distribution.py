"""What pip installs is called chatbot-acs everywhere: `chatbot` on the public index is somebody else's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from chatbot.cli import main
from chatbot.distribution import (
    DISTRIBUTION,
    conflicting_distributions,
    install_command,
    repair,
    shadowing_path,
    version,
)
from chatbot.runtime.doctor.finding import FindingState
from chatbot.runtime.doctor.packages import check_packages

ROOT = Path(__file__).parents[2]
TEXTS = {".py", ".md", ".toml", ".yaml", ".yml", ".cfg", ".service", ".conf", ".json", ".svg", ".sh", ".txt", ""}
APART = {".git", ".venv", "node_modules", "recordings", "spec", ".benchmarks", "site", ".cache", "__pycache__", "dist"}

WRONG = (
    re.compile(r"(?<![\w./-])chatbot\[(?!\[)(?!['\"])[a-z]"),  # an extra of the other distribution
    re.compile(
        r"\b(?:pip|pipx|uv|uvx)\b[^\n|`]*\b(?:install|add|run|download|wheel)\b[^\n|`&;]*\s['\"]?chatbot(?![\w/.-])"
    ),
    re.compile(r"\b(?:version|requires|distribution|metadata|files)\(\s*['\"]chatbot['\"]\s*\)"),
    re.compile(r"^\s*['\"]?chatbot\s*(?:==|>=|~=|<=)", re.MULTILINE),
)


def texts() -> list[Path]:
    found = []
    for directory, names, files in os.walk(ROOT):
        names[:] = [name for name in names if name not in APART]
        found += [Path(directory, file) for file in files if Path(file).suffix in TEXTS]
    return [path for path in found if path != Path(__file__) and path.stat().st_size < 1_000_000]


def is_warning(line: str) -> bool:
    """Whether a line says what not to do, or how to get rid of it."""
    return any(word in line for word in ("uninstall", "unrelated", "belongs to somebody else"))


def test_no_file_names_another_distribution() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in texts()
        for line in path.read_text("utf-8", errors="replace").splitlines()
        if "chatbot" in line and any(pattern.search(line) for pattern in WRONG) and not is_warning(line)
    ]

    assert wrong == []


@pytest.mark.parametrize(
    "line",
    [
        "pip install chatbot",
        "RUN pip install --no-cache-dir chatbot",
        "/opt/chatbot/bin/pip install chatbot",
        "pip install 'chatbot[test]'",
        "uv add chatbot",
        'version("chatbot")',
        'dev = ["chatbot[entra,otel]"]',
        "chatbot>=0.1",
    ],
)
def test_the_search_finds_each_way_to_name_the_other_package(line: str) -> None:
    assert any(pattern.search(line) for pattern in WRONG)


@pytest.mark.parametrize(
    "line",
    [
        "pip install chatbot-acs",
        "pip install 'chatbot-acs[test]'",
        "pip install ./chatbot_acs-0.1.0.whl",
        "chatbot run",
    ],
)
def test_the_search_lets_our_own_name_pass(line: str) -> None:
    assert not any(pattern.search(line) for pattern in WRONG)


def test_the_constant_is_what_the_project_is_called_and_every_extra_that_is_named_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    named = {
        extra.strip()
        for path in texts()
        for found in re.findall(rf"{DISTRIBUTION}\[([\w, -]+)\]", path.read_text("utf-8", errors="replace"))
        for extra in found.split(",")
    }
    called = {
        extra
        for path in (ROOT / "chatbot").rglob("*.py")
        for found in re.findall(r"install_command\(([^)]*)\)", path.read_text("utf-8"))
        for extra in re.findall(r"['\"](\w+)['\"]", found)
    }

    assert project["name"] == DISTRIBUTION
    assert named | called <= set(extras)
    assert {"entra", "test", "otel", "uvloop"} <= named | called
    assert install_command("entra") == "pip install 'chatbot-acs[entra]'"


def test_its_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert version() == project["version"]


def test_a_second_distribution_that_owns_the_package_is_noticed(tmp_path: Path) -> None:
    for name in (
        "chatbot_acs-0.1.0.dist-info",
        "chatbot-0.0.1.dist-info",
        "chatbot-1.5.2b-py3.11.egg-info",
        "chatbotter-1.dist-info",
    ):
        (tmp_path / name).mkdir()
    (tmp_path / "chatbot").mkdir()

    assert conflicting_distributions(tmp_path) == ["chatbot 0.0.1", "chatbot 1.5.2b"]
    assert conflicting_distributions(tmp_path / "nowhere") == []
    assert conflicting_distributions() == []


def test_the_doctor_says_how_to_repair_two_distributions() -> None:
    found = list(check_packages(asked=(), owners=["chatbot 0.0.1"], installed=lambda name: "1"))

    (wrong,) = [one for one in found if one.state is FindingState.FAILED]
    assert "chatbot 0.0.1" in wrong.text
    assert f"pip uninstall chatbot {DISTRIBUTION}" in wrong.text


def test_every_command_says_that_there_are_two(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("chatbot.distribution.conflicting_distributions", lambda: ["chatbot 0.0.1"])

    assert main(["--version"]) == 0

    assert repair(["chatbot 0.0.1"]) in capsys.readouterr().err


@pytest.mark.parametrize("name", ["chatbot.py", "chatbot/__init__.py"])
def test_a_file_of_the_project_that_hides_the_package_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path)
    main(["new", "dice"])
    file.touch()

    assert main(["new", "other"]) == 78
    assert main(["check"]) == 0

    out, err = capsys.readouterr()
    for text in (out, err):
        assert f"{name.partition('/')[0]}: Python imports this instead of the bot framework" in text
        assert "rename it" in text


def test_a_directory_of_that_name_without_code_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "chatbot").mkdir()

    assert shadowing_path(tmp_path) is None
    assert shadowing_path(ROOT) is None


@pytest.mark.parametrize("name", ["chatbot.py", "chatbot/__init__.py"])
def test_pytest_names_what_hides_the_package_instead_of_a_traceback(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.touch()
    (tmp_path / "conftest.py").write_text("import chatbot.testing\n")
    (tmp_path / "test_nothing.py").write_text("def test_nothing() -> None: ...\n")

    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=100
    )

    assert finished.returncode == 4
    assert finished.stderr.startswith("ERROR: ")
    assert "because it is called chatbot, too" in finished.stderr
    assert "Traceback" not in finished.stdout + finished.stderr


def test_a_missing_dependency_is_a_sentence(tmp_path: Path) -> None:
    """As in an environment from which somebody has removed a package."""
    program = (
        "import sys; sys.modules['cyclopts'] = None; sys.argv = ['chatbot', '--version']; "
        "import runpy; runpy.run_module('chatbot', run_name='__main__', alter_sys=False)"
    )

    finished = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=100
    )

    assert finished.returncode == 78, finished.stderr
    assert "the module cyclopts, which chatbot-acs requires, is missing" in finished.stderr
    assert "pip install chatbot-acs" in finished.stderr
    assert "Traceback" not in finished.stderr
