"""The password of a database is a token of Microsoft Entra ID, which expires: every new connection has a valid one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.to_thread
import asyncpg  # noqa: F401 here, so that `imports_restored` does not have it loaded twice, which it does not survive
import pytest

from chatbot.cli import main
from chatbot.errors import StoreError
from chatbot.stores.postgres import PostgresStore
from chatbot.stores.writes import MarkSeen
from tests.contracts.records import BOT, HALL, begin, only_thread
from tests.postgres.test_ownership import ENDING_SESSIONS
from tests.support.loopback import Answered, Asked, site
from tests.support.machine import needs_azure_identity
from tests.support.postgres import PostgresServer

pytestmark = [pytest.mark.postgres, needs_azure_identity]

RESOURCE = "https://ossrdbms-aad.database.windows.net"


class Machine:
    """The metadata of an Azure machine: issues a token, or refuses."""

    def __init__(self) -> None:
        self.token = "token-1"
        self.lifetime = 60
        self.count = 0

    def __call__(self, asked: Asked) -> Answered:
        assert asked.query["resource"] == RESOURCE
        self.count += 1
        if not self.token:
            return Answered(400, {"error": "invalid_request", "error_description": "Identity not found"})
        times = {"expires_in": str(self.lifetime), "expires_on": str(int(time.time()) + self.lifetime)}
        return Answered(200, {"access_token": self.token, **times, "resource": RESOURCE, "token_type": "Bearer"})


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    machine = Machine()
    with site(machine) as endpoint:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{endpoint.url}/msi/token")
        monkeypatch.setenv("IDENTITY_HEADER", "the machine's own secret")
        main(["--version"])  # names the source of tokens
        yield machine


@pytest.fixture
def url(postgres_server: PostgresServer, postgres_url: str, postgres_schema: str) -> Iterator[str]:
    postgres_server.psql(
        f"CREATE ROLE azure LOGIN PASSWORD 'token-1'; CREATE SCHEMA {postgres_schema} AUTHORIZATION azure"
    )
    yield postgres_url.replace("bots:swordfish@", "azure@") + "&auth=entra&credential=managed-identity"
    postgres_server.psql("DROP OWNED BY azure CASCADE; DROP ROLE azure")


async def test_every_new_connection_has_a_token_that_is_valid(
    postgres_server: PostgresServer, url: str, machine: Machine
) -> None:
    async with PostgresStore(url, is_shared=True) as store:
        await store.commit(BOT, [begin()])
        machine.token = "token-2"
        change = f"ALTER ROLE azure PASSWORD 'token-2'; {ENDING_SESSIONS}"
        await anyio.to_thread.run_sync(postgres_server.psql, change)
        await store.commit(BOT, [MarkSeen(HALL, {6: 6})])
        assert (await only_thread(store)).seen == {6: 6}


async def test_a_token_is_used_until_it_is_about_to_expire(url: str, machine: Machine) -> None:
    machine.lifetime = 86_400
    async with PostgresStore(url, is_shared=True) as store:
        await store.commit(BOT, [begin()])
        assert await store.bots() == []

    assert machine.count == 1


async def test_an_identity_that_gets_no_token_is_told_so(url: str, machine: Machine) -> None:
    machine.token = ""

    with pytest.raises(StoreError, match=r"Microsoft Entra ID issues no token \(managed-identity\)") as refused:
        await PostgresStore(url, is_shared=True).__aenter__()
    assert "check that this machine has a managed identity" in str(refused.value)


@pytest.mark.usefixtures("imports_restored")
def test_commands_get_a_token_too(
    url: str, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STORE", url)
    (tmp_path / "bots.yaml").write_text(
        "version: 1\nservice: emulator\nstore: !secret env:STORE\nbots:\n  desk: {plugins: [plugin]}\n"
    )

    assert main(["store", "info", "--config", str(tmp_path / "bots.yaml")]) == 69
    assert "there is no such store yet" in capsys.readouterr().err
    assert machine.count == 1
