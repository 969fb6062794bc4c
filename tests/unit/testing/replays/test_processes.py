"""The processes of replays end without a trace."""

from __future__ import annotations

import signal
import subprocess

import anyio
import pytest

from chatbot.testing.replays.processes import end_process


async def test_processes_are_ended_without_a_warning_about_unknown_ones(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(20):  # which of two takes the exit code is a matter of chance
        process = await anyio.open_process(
            ("sleep", "60"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        await end_process(process)
        assert process.returncode == -signal.SIGKILL

    assert caplog.messages == []
