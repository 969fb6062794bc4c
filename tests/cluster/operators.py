"""Replicas with what operators use: pauses, and the requests that each process answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import anyio

from chatbot.cluster.requests import ReplicaAnswer
from chatbot.config import Config
from chatbot.runtime.admin_api import AdminApi, answerers
from chatbot.runtime.assemble import Runtime
from chatbot.runtime.connection import Connection
from chatbot.runtime.pauses import Pauses
from chatbot.runtime.supervisor import Supervisor
from chatbot.service.acs import AcsResource
from tests.cluster.cluster import Cluster, Replica


class OperatedReplica(Replica):
    """A replica whose bot is supervised, as in a daemon."""

    pauses: Pauses
    admin: AdminApi

    async def run_bot(self, resource: AcsResource, stopping: anyio.Event) -> None:
        """Run the bot as the daemon does, until `stopping` is set."""
        supervisor = Supervisor([bot for bot in self._bots if bot.context.paused_ms is None], drain_seconds=30)
        runtime = Runtime(
            config=cast(Config, None),  # only reloads read it
            connection=Connection("https://model.invalid", "model"),
            resource=resource,
            store=self.store,
            bots=self._bots,
            ownership=self.member,
        )
        requests = self.member.requests
        self.pauses = Pauses(runtime, supervisor, self.clock, requests=requests)
        self.admin = AdminApi(self.store, self._bots, requests)
        requests.answerers = answerers(self._bots, self.pauses, None)
        async with anyio.create_task_group() as beside:
            beside.start_soon(self.pauses.watch)
            await supervisor.run(stopping)
            beside.cancel_scope.cancel()

    async def command(self, ask: str, **values: Any) -> Mapping[str, Any]:
        """Ask as a command does that is run in the directory of this replica."""
        return await self.admin.answer({"ask": ask, **values})

    @property
    def is_paused(self) -> bool:
        """Whether its bot is paused, and does not run."""
        return self.bot.context.paused_ms is not None and not self.bot.is_started


class OperatedCluster(Cluster):
    """A cluster of such replicas."""

    replica_type = OperatedReplica

    async def two(self) -> tuple[OperatedReplica, OperatedReplica]:
        """Start two replicas, and wait until each owns its half."""
        one, two = await self.join(), await self.join()
        assert isinstance(one, OperatedReplica)
        assert isinstance(two, OperatedReplica)
        await self.balanced()
        return one, two


def outcomes(replies: list[ReplicaAnswer]) -> dict[str, str | None]:
    """Return the outcome of each replica."""
    return {reply.replica.name: reply.outcome for reply in replies}
