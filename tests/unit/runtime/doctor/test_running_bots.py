"""What the doctor says of running bots, from what their daemon tells of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chatbot.runtime.doctor.running_bots import check_running_bots
from chatbot.runtime.run_directory import ControlDirectory
from chatbot.service.budget import SERVICE_QUOTAS

PLENTY = {label: min(window.limit for window in windows) for label, windows in SERVICE_QUOTAS.items()}


def told(tmp_path: Path, subject: str, **facts: Any) -> list[str]:
    """What is said of one bot."""
    bot = {"name": "echo", "troubles": {}, "dead_letters": 0, "missed": {}, "quota_left": PLENTY, **facts}
    status = {"uptime_seconds": 9.0, "pid": 1, "version": "1", "unready": [], "bots": [bot]}
    return [found.text for found in check_running_bots(status, ControlDirectory(tmp_path)) if found.subject == subject]


def test_of_a_quota_that_nobody_has_used_nothing_is_said(tmp_path: Path) -> None:
    assert told(tmp_path, "quota") == ["echo: no quota is short, and no call was throttled"]


def test_a_quota_that_a_bot_only_assumes_to_be_used_is_not_named(tmp_path: Path) -> None:
    assert told(tmp_path, "quota", quota_left={**PLENTY, "list_threads": 0}, quota_assumed_seconds=8.0) == [
        "echo: no quota is short, and no call was throttled"
    ]


@pytest.mark.parametrize("label", SERVICE_QUOTAS)
def test_a_quota_that_is_nearly_used_up_is_named(label: str, tmp_path: Path) -> None:
    assert told(tmp_path, "quota", quota_left={**PLENTY, label: 0}) == [f"echo: quotas are nearly used up: {label}"]


def test_calls_that_were_refused_are_counted(tmp_path: Path) -> None:
    (text,) = told(tmp_path, "quota", throttled=3)

    assert "3 calls were throttled (429)" in text
