"""What a store on PostgreSQL needs, and what it says if that is missing: one sentence, a remedy, no secrets."""

from __future__ import annotations

import gc
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
import trustme

from chatbot.errors import StoreError, StoreTooNew
from chatbot.stores import postgres_dialect
from chatbot.stores.memory import MemoryStore
from chatbot.stores.postgres import PostgresStore
from chatbot.stores.postgres_server import LoopThread, Server, migrate
from chatbot.stores.postgres_url import PostgresUrl
from chatbot.stores.probe import probe_store
from chatbot.stores.schema import MIGRATIONS
from chatbot.stores.writes import MarkSeen
from tests.contracts.records import BOT, HALL, begin, only_thread
from tests.support.postgres import PostgresServer, running_server

pytestmark = pytest.mark.postgres


async def refusal(url: str) -> str:
    with pytest.raises(StoreError) as refused:
        await PostgresStore(url).__aenter__()
    assert "swordfish" not in str(refused.value)
    assert "\n" not in str(refused.value)
    probe = await anyio.to_thread.run_sync(lambda: probe_store(url, base_dir=Path()))
    assert probe.problem is not None
    assert "swordfish" not in probe.problem
    return str(refused.value)


async def run(server: PostgresServer, sql: str, database: str = "bots") -> str:
    return await anyio.to_thread.run_sync(server.psql, sql, database)


async def test_a_wrong_password_is_refused(postgres_server: PostgresServer) -> None:
    said = await refusal(postgres_server.url.replace(":swordfish@", ":wrong@"))

    assert "refuses this user or password: correct them" in said


async def test_a_database_that_is_not_there_is_named(postgres_server: PostgresServer) -> None:
    assert "create it (createdb NAME)" in await refusal(postgres_server.url + "x")


async def test_a_server_that_does_not_run_is_named() -> None:
    said = await refusal("postgresql://bots:swordfish@127.0.0.1:1/bots")

    assert said.startswith("cannot connect to the store postgresql://127.0.0.1:1/bots: ")
    assert "check that the server runs" in said


async def test_a_server_that_is_too_old_is_refused(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_dialect, "OLDEST_SERVER", 99)

    assert "chatbot needs 99 or newer" in await refusal(postgres_url)


async def test_a_database_of_another_encoding_is_refused(postgres_server: PostgresServer) -> None:
    await run(postgres_server, "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")

    said = await refusal(postgres_server.url.removesuffix("bots") + "latin")

    assert "has the encoding LATIN1: create one with ENCODING 'UTF8'" in said


@pytest.mark.parametrize("missing", ["CREATE", "TEMPORARY"])
async def test_a_user_without_a_right_is_told_which(
    postgres_server: PostgresServer, postgres_url: str, missing: str
) -> None:
    name = f"clerk_{missing.lower()}"
    rights = [right for right in ("CONNECT", "CREATE", "TEMPORARY") if right != missing]
    await run(postgres_server, f"CREATE ROLE {name} LOGIN PASSWORD 'swordfish'")
    await run(
        postgres_server,
        f"REVOKE ALL ON DATABASE bots FROM PUBLIC; GRANT {', '.join(rights)} ON DATABASE bots TO {name}",
    )
    try:
        said = await refusal(postgres_url.replace("//bots:", f"//{name}:"))
        assert "GRANT CREATE, TEMPORARY ON DATABASE" in said
    finally:
        await run(
            postgres_server,
            f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}; GRANT CONNECT, TEMPORARY ON DATABASE bots TO PUBLIC",
        )


async def test_a_user_who_may_only_use_a_prepared_schema_needs_no_other_right(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    schema = postgres_url.rpartition("=")[2]
    await run(
        postgres_server, f"CREATE ROLE tenant LOGIN PASSWORD 'swordfish'; CREATE SCHEMA {schema} AUTHORIZATION tenant"
    )
    try:
        async with PostgresStore(postgres_url.replace("//bots:", "//tenant:")) as store:
            await store.commit(BOT, [begin()])
    finally:
        await run(postgres_server, "DROP OWNED BY tenant CASCADE; DROP ROLE tenant")


async def test_tables_of_another_program_are_left_alone(postgres_server: PostgresServer, postgres_url: str) -> None:
    schema = postgres_url.rpartition("=")[2]
    await run(postgres_server, f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.bot (id integer)")

    assert "has tables of another program" in await refusal(postgres_url)


async def test_a_store_of_a_newer_chatbot_is_refused(postgres_server: PostgresServer, postgres_url: str) -> None:
    schema = postgres_url.rpartition("=")[2]
    async with PostgresStore(postgres_url):
        pass
    await run(postgres_server, f"UPDATE {schema}.store_version SET version = version + 1")

    with pytest.raises(StoreTooNew, match="run a newer chatbot"):
        await PostgresStore(postgres_url).__aenter__()


async def tables_of(version: int, url: str) -> None:
    """Create the tables as an older chatbot had them."""
    place = PostgresUrl.parse(url, Path())
    everything = postgres_dialect.migrations()
    with pytest.MonkeyPatch.context() as past:
        past.setattr(postgres_dialect, "migrations", lambda: everything[:version])
        thread = LoopThread()
        thread.start()

        async def create() -> None:
            connection = await Server(place).connect()
            await migrate(connection, place)
            await connection.close()

        await thread.run(create())
        await anyio.to_thread.run_sync(thread.stop)


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
async def test_a_store_of_an_older_version_is_migrated(
    postgres_server: PostgresServer, postgres_url: str, version: int
) -> None:
    """The fixture of upgrades: tables of an older version, with data, which a newer chatbot brings up to date."""
    schema = postgres_url.rpartition("=")[2]
    await tables_of(version, postgres_url)
    await run(
        postgres_server,
        f"INSERT INTO {schema}.owner (user_id) VALUES ('{BOT}');"
        f"INSERT INTO {schema}.thread (owner, id, floor, base, is_left) VALUES (1, '{HALL}', 5, 10, 0);"
        f"INSERT INTO {schema}.seen VALUES (1, 6, 6)",
    )

    async with PostgresStore(postgres_url) as store:
        await store.commit(BOT, [MarkSeen(HALL, {7: 7})])
        assert (await only_thread(store)).seen == {6: 6, 7: 7}
    assert await run(postgres_server, f"SELECT version FROM {schema}.store_version") == str(len(MIGRATIONS))


async def test_both_databases_have_the_same_tables_and_columns(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    import sqlite3

    schema = postgres_url.rpartition("=")[2]
    async with PostgresStore(postgres_url):
        pass
    memory = MemoryStore()
    async with memory:
        file = sqlite3.connect(":memory:")
        file.deserialize(memory.snapshot())
    tables = [name for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    ours = [f"{table}.{column[1]}" for table in tables for column in file.execute(f"PRAGMA table_info({table})")]
    file.close()

    theirs = await run(
        postgres_server,
        "SELECT table_name || '.' || column_name FROM information_schema.columns"
        f" WHERE table_schema = '{schema}' AND table_name NOT IN ('replica', 'shard', 'store_version')"
        ' ORDER BY table_name COLLATE "C", ordinal_position',
    )

    assert theirs.split() == ours
    assert sorted(postgres_dialect.TABLES) == tables


async def test_people_s_words_reach_no_log_of_the_server(postgres_url: str) -> None:
    """Not even with a commit that fails, which PostgreSQL logs with its statement."""
    from chatbot.errors import StoreConflict
    from chatbot.stores.records import StateKey
    from chatbot.stores.writes import SaveState

    with running_server() as server:
        async with PostgresStore(server.url) as store:
            with pytest.raises(StoreConflict):
                await store.commit(BOT, [SaveState(StateKey("secretly"), '"my words"', 7, 8)])
        log = server.log()

    assert "chatbot_commit" in log
    assert "my words" not in log
    assert "secretly" not in log


# ── how it is reached ─────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def pooler(server: PostgresServer, mode: str) -> Iterator[str]:
    """PgBouncer in front of a server."""
    program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
    directory = server.directory / f"pooler-{mode}"
    directory.mkdir(mode=0o755)
    port = server.port + 1 if server.port < 65_000 else server.port - 1
    users = directory / "users.txt"
    users.write_text('"bots" "swordfish"\n')
    settings = directory / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\nbots = host=127.0.0.1 port={server.port} dbname=bots user=bots password=swordfish\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = plain\nauth_file = {users}\n"
        f"pool_mode = {mode}\nunix_socket_dir =\n"
    )
    for file in (users, settings):
        file.chmod(0o644)
    process = subprocess.Popen([program, str(settings)], stderr=subprocess.PIPE, text=True, **server.as_user())
    try:
        assert process.stderr is not None
        while "process up" not in (line := process.stderr.readline()):
            assert line, "pgbouncer did not start"
        yield f"postgresql://bots:swordfish@127.0.0.1:{port}/bots"
    finally:
        process.kill()
        with process:
            pass


@pytest.mark.parametrize("mode", ["transaction", "session"])
async def test_a_pooler_is_refused(postgres_server: PostgresServer, mode: str) -> None:
    with pooler(postgres_server, mode) as url:
        assert "is a connection pooler" in await refusal(url)


@pytest.fixture(scope="module")
def tls_server() -> Iterator[tuple[PostgresServer, Path]]:
    """A server that demands TLS and certificates of its users, and proves that it is `localhost`."""
    authority = trustme.CA()
    with running_server() as server:
        folder = server.directory
        authority.cert_pem.write_to_path(folder / "ca.pem")
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
        client = authority.issue_cert("bots@example.com", common_name="bots")
        client.private_key_and_cert_chain_pem.write_to_path(folder / "bots.pem")
        server.own(folder / "server.pem")
        server.stop()
        rules = server.data / "pg_hba.conf"
        rules.write_text("hostssl all bots 127.0.0.1/32 cert\nlocal all all trust\n")
        server.start("ssl=on", f"ssl_cert_file={folder / 'server.pem'}", f"ssl_key_file={folder / 'server.pem'}",
                     f"ssl_ca_file={folder / 'ca.pem'}")  # fmt: skip
        yield server, folder


async def test_a_client_certificate_and_a_verified_server(tls_server: tuple[PostgresServer, Path]) -> None:
    server, folder = tls_server
    where = f"postgresql://bots@localhost:{server.port}/bots"

    async with PostgresStore(
        f"{where}?sslmode=verify-full&sslrootcert=ca.pem&sslcert=bots.pem", base_dir=folder
    ) as store:
        await store.commit(BOT, [begin()])


async def test_an_unknown_authority_is_refused(tls_server: tuple[PostgresServer, Path]) -> None:
    server, folder = tls_server

    said = await refusal(
        f"postgresql://bots@localhost:{server.port}/bots?sslmode=verify-full&sslcert={folder}/bots.pem"
    )

    assert "name the authority of the server's certificate with sslrootcert=FILE" in said


async def test_another_host_s_certificate_is_refused(tls_server: tuple[PostgresServer, Path]) -> None:
    server, folder = tls_server
    options = f"sslmode=verify-full&sslcert={folder}/bots.pem&sslrootcert={folder}/ca.pem"

    said = await refusal(f"postgresql://bots@127.0.0.1:{server.port}/bots?{options}")

    assert "TLS fails (IP address mismatch" in said


async def test_a_file_of_certificates_that_is_missing_is_named(tls_server: tuple[PostgresServer, Path]) -> None:
    server, _ = tls_server

    said = await refusal(f"postgresql://bots@localhost:{server.port}/bots?sslmode=verify-full&sslrootcert=missing.pem")

    assert "a file of certificates or keys cannot be used: No such file or directory" in said


async def test_the_password_may_stand_in_a_passfile(
    postgres_server: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    passfile = tmp_path / "passwords"
    passfile.write_text(f"127.0.0.1:{postgres_server.port}:bots:bots:swordfish\n")
    passfile.chmod(0o600)

    async with PostgresStore(
        postgres_url.replace(":swordfish", "") + "&passfile=passwords", base_dir=tmp_path
    ) as store:
        assert await store.bots() == []


def test_without_the_extra_the_command_that_installs_it_is_named(postgres_url: str) -> None:
    code = (
        "import sys, anyio\nsys.modules['asyncpg'] = None\n"
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'asyncpg' else find(name, *rest)\n"
        "from chatbot.stores.postgres import PostgresStore\n"
        "try:\n    anyio.run(PostgresStore(sys.argv[1]).__aenter__)\nexcept Exception as error:\n    print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", code, postgres_url], capture_output=True, text=True, check=True)

    assert "needs the package asyncpg: pip install 'chatbot-acs[postgres]'" in said.stdout


async def test_a_start_that_is_cancelled_anywhere_leaves_no_connection_open(postgres_url: str) -> None:
    """What nobody closes holds its locks until the garbage collector finds it; the gate reports that as an error."""
    begun = anyio.current_time()
    async with PostgresStore(postgres_url):
        taken = anyio.current_time() - begun
    for part in range(24):
        with anyio.move_on_after(taken * part / 20):
            async with PostgresStore(postgres_url, is_shared=bool(part % 2)):
                pass
    gc.collect()

    async with PostgresStore(postgres_url):  # nobody else holds the lock
        pass
