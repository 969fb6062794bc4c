"""A disk that is full for a while, in a process of its own, whose files may not grow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.chaos
def test_a_full_disk_is_logged_once_and_everything_is_answered_when_there_is_space_again(tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, Path(__file__).with_name("full_disk.py"), tmp_path / "bot.db"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert finished.returncode == 0, finished.stderr
    result = json.loads(finished.stdout)
    during, said = ([line for line in result[part] if line.get("work") == "store"] for part in ("during", "said"))
    assert [line["event"] for line in during] == ["trouble.began"]
    assert "disk" in during[0]["error"]
    assert [line["event"] for line in said] == ["trouble.began", "trouble.ended"]
    assert result["replies_during"] == ["one"]
    assert result["replies"] == ["one", *("x" * 3000 + str(number) for number in range(30)), "after"]
