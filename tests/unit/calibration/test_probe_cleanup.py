"""A probe that is killed after any request leaves nothing behind that `--cleanup` does not find."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from chatbot.calibration.intents import IntentJournal
from chatbot.emulator import Emulator
from chatbot.errors import StateError
from tests.unit.calibration.probing import clean, emulator, remains, run

GROUPS: Final = ("identities", "repeatability", "deletion")
"""Groups that create users and threads in every way that there is."""

REQUESTS: Final = 50
"""More than a probe with these groups sends, its own cleanup included."""


class Killed(BaseException):
    """The process is gone: nothing of it runs any more."""


class Deadly:
    """An emulator whose client dies at one request: before the service sees it, or before the response arrives.

    From then on, the client sends nothing: cleanup code of a process that is gone does not run.
    """

    def __init__(self, service: Emulator, request: int, *, is_done: bool) -> None:
        self._service = service
        self._request = request
        self._is_done = is_done
        self.count = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.count += 1
        if self.count > self._request or (self.count == self._request and not self._is_done):
            raise Killed
        if self.count < self._request:
            await self._service(scope, receive, send)
            return
        with anyio.CancelScope(shield=True):
            await self._service(scope, receive, _ignore)
        raise Killed


async def _ignore(_message: Any) -> None:
    """The response does not arrive."""


async def killed_at(service: Emulator, journal: Path, request: int, *, is_done: bool) -> bool:
    """Run a probe that dies at a request; whether it got there."""
    app = Deadly(service, request, is_done=is_done)
    try:
        await run(service, journal, GROUPS, app=app)
    except BaseException as error:
        if not _is_kill(error):
            raise
        return True
    return False


def _is_kill(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_is_kill(inner) for inner in error.exceptions)
    return isinstance(error, Killed)


def kills() -> list[Any]:
    """Before and after each request; the default suite takes some of them."""
    return [
        pytest.param(
            request,
            is_done,
            id=f"{'after' if is_done else 'before'} request {request}",
            marks=() if request % 12 == 1 and is_done else (pytest.mark.calibration,),
        )
        for request in range(1, REQUESTS)
        for is_done in (False, True)
    ]


@pytest.mark.virtual_time
@pytest.mark.parametrize(("request_number", "is_done"), kills())
async def test_a_killed_probe_is_cleaned_up(request_number: int, is_done: bool, tmp_path: Path) -> None:
    service, journal = emulator(), tmp_path / "journal"
    bystander = service.create_user()
    thread = service.create_thread(bystander, "not the probe's")

    await killed_at(service, journal, request_number, is_done=is_done)

    assert await clean(service, journal) == []
    assert remains(service) == [bystander, thread]
    assert not journal.exists()


@pytest.mark.virtual_time
async def test_the_kills_reach_into_the_probes_own_cleanup(tmp_path: Path) -> None:
    assert not await killed_at(emulator(), tmp_path / "journal", REQUESTS, is_done=True)
    service = emulator()
    assert await killed_at(service, tmp_path / "other", REQUESTS - 10, is_done=True)
    assert 0 < len(remains(service)) < 8


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    "killed", [33, *(pytest.param(request, marks=pytest.mark.calibration) for request in (20, 30, 36, 37, 38, 39, 40))]
)
async def test_a_cleanup_that_is_killed_at_any_request_is_repeated(killed: int, tmp_path: Path) -> None:
    kills = 0
    for request in range(1, 16):
        service, journal = emulator("repeatability-seconds=2"), tmp_path / f"journal {request}"
        assert await killed_at(service, journal, killed, is_done=True)
        try:
            await clean(service, journal, Deadly(service, request, is_done=True))
        except Killed:
            kills += 1

        assert await clean(service, journal) == []
        assert remains(service) == []
    assert kills > 3


@pytest.mark.virtual_time
async def test_a_forgotten_repeatability_id_does_not_leave_a_thread_behind(tmp_path: Path) -> None:
    service, journal = emulator("repeatability-seconds=0"), tmp_path / "journal"
    assert await killed_at(service, journal, 9, is_done=True)
    await anyio.sleep(3600)

    assert await clean(service, journal) == []
    assert remains(service) == []


@pytest.mark.virtual_time
@pytest.mark.parametrize("killed", [1, 2, 14, 20])
@pytest.mark.parametrize("cut", [1, 10, 40])
async def test_a_journal_that_was_cut_in_its_last_line_is_read(killed: int, cut: int, tmp_path: Path) -> None:
    service, journal = emulator(), tmp_path / "journal"
    assert await killed_at(service, journal, killed, is_done=False)
    path = anyio.Path(journal)
    content = await path.read_bytes()
    await path.write_bytes(content[:-cut])

    assert await clean(service, journal) == []
    assert remains(service) == []


@pytest.mark.virtual_time
async def test_a_journal_of_another_resource_is_refused(tmp_path: Path) -> None:
    service, journal = emulator(), tmp_path / "journal"
    assert await killed_at(service, journal, 14, is_done=True)

    with pytest.raises(StateError, match="clean up there first"):
        await IntentJournal(journal).begin("https://another.communication.azure.com")


@pytest.mark.virtual_time
async def test_a_file_that_is_no_journal_is_refused_and_kept(tmp_path: Path) -> None:
    path = anyio.Path(tmp_path / "notes.txt")
    await path.write_text("my notes\nof today\nand more\n")

    with pytest.raises(StateError, match="not a journal"):
        await IntentJournal(tmp_path / "notes.txt").begin("https://emulator.invalid")

    assert await path.read_text() == "my notes\nof today\nand more\n"


class Older:
    """A service of 2024: without customId, and without the latest version of chat."""

    def __init__(self, service: Emulator) -> None:
        self._service = service

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if b"api-version=2025" in scope["query_string"]:
            scope = {**scope, "query_string": b"api-version=2020-01-01", "path": "/chat/threads"}
        await self._service(scope, receive, send)


@pytest.mark.virtual_time
async def test_a_service_without_custom_ids_is_probed_with_its_latest_version(tmp_path: Path) -> None:
    service = emulator()

    result = await run(service, tmp_path / "journal", ("answers", "deletion"), app=Older(service))

    assert result.version == "2024-03-07"
    assert result.findings.missing["retention_none"] == "this resource does not have api-version 2025-03-15"
    assert result.findings.found["deleted_thread"].value == "not-found"
    assert (result.left, remains(service)) == ([], [])


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    "limit",
    [1, 8, 75, 145, *(pytest.param(limit, marks=pytest.mark.calibration) for limit in (2, 3, 40, 110, 170))],
)
async def test_a_probe_that_reaches_its_limit_says_what_is_missing_and_cleans_up(limit: int, tmp_path: Path) -> None:
    service = emulator()

    result = await run(service, tmp_path / "journal", requests=limit)

    assert any("the limit of" in why for why in result.findings.missing.values())
    assert result.findings.differences == {}
    assert (result.left, remains(service)) == ([], [])


@pytest.mark.virtual_time
@pytest.mark.parametrize("seconds", [pytest.param(1, marks=pytest.mark.calibration), 3])
async def test_a_probe_of_a_slow_service_ends_in_time(seconds: int, tmp_path: Path) -> None:
    service = emulator()
    service.faults.add(f"*:latency={seconds}")

    result = await run(service, tmp_path / "journal")

    assert result.seconds <= 180
    assert any("the limit of 180 s" in why for why in result.findings.missing.values())
    assert (result.left, remains(service)) == ([], [])
