"""A short soak of a cluster, for the gate; `python -m tests.soak --replicas 4` runs longer ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatbot.model import UserId
from tests.chaos.processes import Daemon, running_service
from tests.soak.replicas import ReplicaSoak, set_up
from tests.soak.soak import Plan
from tests.support.postgres import running_server


@pytest.mark.postgres
@pytest.mark.timeout(600)
async def test_replicas_that_are_killed_paused_and_cut_off_lose_and_double_nothing(tmp_path: Path) -> None:
    plan = Plan(seconds=25, threads=16, kills=3, seed=3, pause=6)

    def configure(here: Path, connection_string: str, store: str, user: UserId) -> Daemon:
        return Daemon.set_up(here, connection_string, interval="1s", idle="20s", store=store, user=user)

    with running_server() as server:
        async with (
            running_service(seed=plan.seed) as service,
            set_up(3, tmp_path, service, server.url, configure) as replicas,
        ):
            soak = ReplicaSoak(plan, service, replicas, server.url, server)
            findings = await soak.run()

    assert findings.is_clean, findings
    assert soak.kills == plan.kills
    assert findings.verdict.sent > plan.threads
    assert soak.takeovers.joins
    assert soak.disturbances["restart of the server"] == 2
