"""What people read who do not know what to type, or typed it wrong."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from chatbot.cli import main


def test_the_commands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0

    shown = capsys.readouterr().out
    assert all(command in shown for command in ("run", "check", "chat", "emulator", "--version", "Exit codes"))


@pytest.mark.parametrize("command", ["new", "run", "check", "chat", "emulator"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0

    assert f"Usage: chatbot {command}" in capsys.readouterr().out


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0

    assert capsys.readouterr().out.startswith("chatbot 0.")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["runn"], 'Unknown command "runn". Did you mean "run"?'),
        (["run", "--log-fromat", "json"], "chatbot run: "),
        (["run", "--log-format", "yaml"], "chatbot run: "),
        (["chat", "--new", "x", "--list"], "chatbot chat: give only one of --thread, --new and --list"),
        (["chat", "--wait", "5 sec"], '"5 sec" is not a duration (try 5s)'),
    ],
)
def test_wrong_words_are_2_with_a_sentence(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2

    written = capsys.readouterr().err
    assert sentence in written
    assert "Traceback" not in written


def test_help_loads_nothing_that_only_commands_need() -> None:
    script = """
import sys
from pathlib import Path
from chatbot.cli import main
main(["--help"])
heavy = {"azure", "aiohttp", "yaml", "pydantic", "structlog", "uvicorn", "anyio"} & set(sys.modules)
sys.exit(", ".join(sorted(heavy)))
"""
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert loaded.stderr.strip() == ""


def test_a_daemon_loads_no_emulator_unless_it_runs_on_it() -> None:
    script = """
import sys
from pathlib import Path
import chatbot.cli.running
needless = {"chatbot.emulator", "trustme", "cryptography"} & set(sys.modules)
sys.exit(", ".join(sorted(needless)))
"""
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert loaded.stderr.strip() == ""


def test_a_reader_who_has_enough_is_no_error() -> None:
    piped = subprocess.run(
        f"{sys.executable} -m chatbot --help | true", shell=True, capture_output=True, text=True, check=False
    )

    assert piped.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands_and_options(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0

    script = capsys.readouterr().out
    assert all(word in script for word in ("chatbot", "dead-letters", "resume", "cancel-timer", "without-secrets"))
    if shutil.which(shell):
        assert subprocess.run([shell, "-n"], input=script, text=True, check=False).returncode == 0


@pytest.mark.parametrize("missing", ["cyclopts", "structlog", "anyio", "yaml", "pydantic", "msgspec"])
def test_a_package_that_is_missing_is_named_with_the_command_that_installs_it(missing: str, tmp_path: Path) -> None:
    (tmp_path / f"{missing}.py").write_text(
        f"raise ModuleNotFoundError(\"No module named '{missing}'\", name='{missing}')"
    )
    found = subprocess.run(
        [sys.executable, "-m", "chatbot", "check"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert found.returncode == 78
    assert f"the module {missing}, which chatbot-acs requires, is missing; install it: " in found.stderr
    assert "Traceback" not in found.stderr
