"""`chatbot new`: what it makes is green at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from chatbot.cli import main
from chatbot.cli.new import plugin_templates
from chatbot.config import load_config
from tests.cli.conftest import copy_of_the_clone
from tests.support.author import author_environment


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory, to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def python(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a module of Python's as a person would, in that directory."""
    command = (sys.executable, *command)
    return subprocess.run(
        command, cwd=folder, env=author_environment(), capture_output=True, text=True, timeout=60, check=False
    )


def everything_in(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)): path.read_text() for path in files}


# `pytest` itself, whose directory is not on the path, as it is with `python -m pytest`.
PYTEST = ("-c", "import sys, pytest; sys.path.remove(''); sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider']))")


def test_in_an_empty_directory_the_new_bot_loads_and_its_test_passes(folder: Path) -> None:
    assert main(["new", "dice"]) == 0
    assert main(["new", "lost-and-found"]) == 0

    tested = python(folder, *PYTEST)
    checked = python(folder, "-m", "chatbot", "check")
    assert "2 passed" in tested.stdout, tested.stdout + tested.stderr
    assert "Warning" not in tested.stdout + tested.stderr
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "bots.yaml: no problems found, 2 bots" in checked.stdout
    assert "/lost-and-found [NAME]" in checked.stdout
    assert sorted(everything_in(folder)) == [
        "bots.yaml",
        "plugins/__init__.py",
        "plugins/dice.py",
        "plugins/lost_and_found.py",
        "pytest.ini",
        "tests/test_dice.py",
        "tests/test_lost_and_found.py",
    ]


def test_in_a_directory_with_bots_everything_that_was_there_stays(folder: Path) -> None:
    before = everything_in(copy_of_the_clone(folder))

    assert main(["new", "dice"]) == 0

    after = everything_in(folder)
    assert all(after[name] == text for name, text in before.items() if name != "bots.yaml")
    assert [line for line in after["bots.yaml"].splitlines() if line not in before["bots.yaml"].splitlines()] == [
        "  dice:",
        "    display_name: Dice",
        "    plugins: [plugins.dice]",
    ]
    checked = python(folder, "-m", "chatbot", "check")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_new_plugin_does_not_change_the_pytest_configuration_of_a_project(folder: Path) -> None:
    (folder / "pyproject.toml").write_text("[tool.pytest.ini_options]\naddopts = ['-ra']\n")
    (folder / "site").mkdir()

    assert main(["new", "dice", "--config", "site/bots.yaml"]) == 0

    assert (folder / "site" / "conftest.py").exists()
    assert not (folder / "site" / "pytest.ini").exists()
    assert "1 passed" in python(folder, *PYTEST).stdout


def test_a_project_that_configures_pytests_path_gets_no_conftest(folder: Path) -> None:
    (folder / "pyproject.toml").write_text('[tool.pytest.ini_options]\npythonpath = ["."]\n')

    assert main(["new", "dice"]) == 0

    assert not (folder / "conftest.py").exists()
    assert "1 passed" in python(folder, *PYTEST).stdout


def test_plugins_are_created_next_to_the_given_configuration(folder: Path) -> None:
    (folder / "site").mkdir()

    assert main(["new", "dice", "--config", "site/bots.yaml"]) == 0

    assert "site/plugins/dice.py" in everything_in(folder)
    assert python(folder, "-m", "chatbot", "check", "site/bots.yaml").returncode == 0


@pytest.mark.parametrize("name", ["2fast", "a b", "../up", "class", "null", "True", "ü", "x" * 65, "a.b"])
def test_what_cannot_name_a_plugin_is_78_and_nothing_is_made(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", name]) == 78

    assert "cannot name a plugin" in capsys.readouterr().err
    assert everything_in(folder) == {}


def test_a_name_that_is_taken_is_78_and_nothing_is_changed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["new", "dice"])
    before = everything_in(folder)

    assert main(["new", "dice"]) == 78
    assert "plugins/dice.py: this file already exists" in capsys.readouterr().err
    (folder / "plugins" / "dice.py").rename(folder / "plugins" / "other.py")
    (folder / "tests" / "test_dice.py").unlink()
    assert main(["new", "dice"]) == 78
    assert "a bot of this name already exists" in capsys.readouterr().err

    (folder / "plugins" / "other.py").rename(folder / "plugins" / "dice.py")
    assert {name: text for name, text in before.items() if name != "tests/test_dice.py"} == everything_in(folder)


def test_a_configuration_with_mistakes_is_not_touched(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bots.yaml").write_text("version: 1\nbotz: {}\n")

    assert main(["new", "dice"]) == 78

    assert "bots.yaml:2" in capsys.readouterr().err
    assert everything_in(folder) == {"bots.yaml": "version: 1\nbotz: {}\n"}


def test_a_place_that_cannot_be_written_to_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "plugins").write_text("not a directory")

    assert main(["new", "dice"]) == 78

    assert ": cannot be written: " in capsys.readouterr().err


def test_a_bot_of_a_file_that_is_included_has_its_name_and_the_new_one_comes_into_the_file_itself(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", "dice"]) == 0
    start, bots = (folder / "bots.yaml").read_text().split("bots:\n")
    (folder / "more.yaml").write_text(f"bots:\n{bots}")
    (folder / "bots.yaml").write_text(f"{start}include: more.yaml\n")
    (folder / "plugins" / "dice.py").rename(folder / "plugins" / "dice2.py")
    (folder / "tests" / "test_dice.py").unlink()

    assert main(["new", "dice"]) == 78
    assert "more.yaml:3:5: bots.dice: a bot of this name already exists" in capsys.readouterr().err
    assert main(["new", "coin"]) == 0

    assert list(load_config(folder / "bots.yaml", {}).bots) == ["dice", "coin"]
    assert (folder / "more.yaml").read_text() == f"bots:\n{bots}"


def test_every_ready_made_plugin_can_be_started_from(tmp_path: Path) -> None:
    """All beside each other, and checked by one process."""
    for source in plugin_templates():
        assert main(["new", f"my-{source}", "--from", source]) == 0

    checked = python(tmp_path, "-m", "chatbot", "check")
    assert checked.returncode == 0, checked.stderr
    for source in plugin_templates():
        assert f"my-{source}  plugins/my_{source.replace('-', '_')}.py" in checked.stdout


def test_ready_made_plugins_are_listed_and_an_unknown_one_is_refused_with_their_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", "--list"]) == 0
    assert main(["new", "x", "--from", "nope"]) == 2
    assert main(["new"]) == 2

    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == sorted(plugin_templates())
    assert "there is no ready-made plugin 'nope'; choose one of echo, faq" in err
    assert list(tmp_path.iterdir()) == []
