"""Probes of an emulator in this process, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from chatbot.calibration.calibrate import ProbeResult, chosen, clean_up, probe
from chatbot.calibration.intents import IntentJournal
from chatbot.calibration.scene import MAX_REQUESTS, Meter
from chatbot.emulator import Emulator, Quirks, World
from chatbot.service.acs import AcsResource
from chatbot.service.raw_requests import MeteredTransport
from chatbot.testing import VirtualClock
from chatbot.testing.transport import AsgiApp, AsgiTransport
from chatbot.testing.virtual_time import VirtualTimeLoop


def emulator(*quirks: str, **options: bool) -> Emulator:
    """An emulator on virtual time."""
    clock = VirtualClock(cast(VirtualTimeLoop, asyncio.get_running_loop()))
    return Emulator(World(seed=7, quirks=Quirks.parse(quirks)), clock=clock, **options)


def resource(service: Emulator, before: Callable[[], None], app: AsgiApp | None = None) -> AcsResource:
    """The emulator's resource, reached through a meter."""
    transport = MeteredTransport(AsgiTransport(app or service), before)
    return AcsResource.from_connection_string(service.connection_string, transport=transport, clock=service.clock)


async def run(
    service: Emulator, journal: Path, only: Sequence[str] = (), *, app: AsgiApp | None = None, requests: int = 0
) -> ProbeResult:
    """Probe it."""
    loop = asyncio.get_running_loop()
    meter = Meter(loop.time, requests) if requests else Meter(loop.time)
    async with resource(service, meter.take, app) as it:
        result = await probe(it, IntentJournal(journal), meter, chosen(only), clock=service.clock)
    assert result.requests <= MAX_REQUESTS
    return result


async def clean(service: Emulator, journal: Path, app: AsgiApp | None = None) -> list[str]:
    """Clean up after a probe that was killed."""
    async with resource(service, lambda: None, app) as it:
        return await clean_up(it, IntentJournal(journal))


def remains(service: Emulator) -> list[str]:
    """Users and threads that were not deleted."""
    state = service.world.state
    users = [user.id for user in state.users.values() if user.deleted is None]
    return users + [room.head.id for room in state.rooms.values() if room.head.deleted is None]
