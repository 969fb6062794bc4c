"""`chatbot run` of the command line library, and the short way to it, which loads less."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from chatbot.cli import app, main, run, running


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["my bots.yaml"],
        ["--log-format", "json", "other.yaml"],
        ["--log-format=json", "--log-level=debug"],
        ["--once", "--require-azure", "--reload", "--playground", "--allow-new-users"],
        ["--no-playground"],
        ["--once", "--once"],
        ["--once=true"],
        ["--log-level", "debug", "--log-level", "info"],
        ["--for", "5m"],
        ["--canary", "5%"],
        ["--canary=0.5%"],
        ["--canary", "5"],
        ["--canary", "0%"],
        ["--canary", "100%"],
        ["--config", "other.yaml"],
        ["--", "other.yaml"],
        ["--no-such"],
        ["--log-format", "xml"],
        ["--log-format"],
        ["--log-format=", "json"],
        ["a.yaml", "b.yaml"],
        [""],
        ["--help"],
    ],
)
def test_the_short_way_to_run_means_what_the_command_line_library_would(
    words: Sequence[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[Path, dict[str, Any]]] = []

    def run_bots(config: Path, **options: Any) -> int:
        asked.append((config, {name: value for name, value in options.items() if value not in (None, False)}))
        return 7

    monkeypatch.setattr(running, "run_bots", run_bots)
    monkeypatch.setattr(run, "run_bots", run_bots)

    codes = [main(["run", *words]), app.run_command(["run", *words])]

    assert codes[0] == codes[1]
    assert asked[:1] == asked[1:]
    printed = capsys.readouterr()
    for text in (printed.out, printed.err):
        assert text[: len(text) // 2] * 2 == text


def test_the_short_way_to_run_loads_neither_the_command_line_library_nor_what_it_loads(tmp_path: Path) -> None:
    code = """if True:
        import sys
        from chatbot.cli import main
        assert main(["run"]) == 78
        needless = {"cyclopts", "rich", "pygments", "starlette", "uvicorn", "prometheus_client", "chatbot.cli.run"}
        assert not needless & set(sys.modules), needless & set(sys.modules)
        import rich
        """

    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
