"""The session by which a process uses a store on PostgreSQL, alone or with others. The server decides, not a clock.

* **Exclusion**: session advisory locks, held on a connection of its own. Who uses the store alone holds it exclusively,
  who shares it holds it shared, and each shard that it owns exclusively. They end with the session: when the process
  dies, when the connection breaks, or when the server ends a session that was silent (`idle_session_timeout`).
* **Liveness**: a beat every second keeps the session. Without an answer, the process stops polling and sending before
  the server can have given its locks to another (`is_held`).
* **Fence**: whoever uses the store alone, or is the first to share it again, begins an era; whoever takes a shard
  raises its epoch. Every commit requires its own: what a paused predecessor writes later is refused by the server.

A process whose session broke locks again what nobody has taken in between, and goes on. If an era has ended, or the
server has lost commits, what it has in memory is not what the store has: it must end.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Final

import structlog

from chatbot.errors import StoreError, StoreInUse
from chatbot.stores import postgres_dialect as dialect
from chatbot.stores.postgres_members import Shards
from chatbot.stores.postgres_registry import Standing, StoreUser, Use, leave, move, register, renew, users
from chatbot.stores.postgres_server import SILENT_SECONDS, Connection, Server, close, migrate, standbys
from chatbot.stores.postgres_url import PostgresUrl

BEAT_SECONDS: Final = 1.0
"""The interval of beats."""

AGAIN_SECONDS: Final = 0.1
"""How soon to try again what could not be done, such as to lock what a session that is ending still holds."""

RECONNECT_SECONDS: Final = 0.3
"""The interval of attempts to replace a session that broke; the first one is made at once."""

HELD_SECONDS: Final = 0.9 * SILENT_SECONDS
"""How long after the beginning of an answered beat the locks are certainly ours."""

PATIENCE_SECONDS: Final = 2.5
"""How long to wait for a lock whose owner shows that it is alive; one that has just died is silent for longer."""

SETTLING_SECONDS: Final = 1.5
"""How long after a lost session was replaced no free shards are claimed: after a restart of the server, all sessions
are lost, and their shards are free until each process has locked its own again."""

LEAVING_SECONDS: Final = 5.0
"""How long recording a regular end may take."""

MIGRATING_SECONDS: Final = 60.0
"""How long to wait for another process that migrates, and for locks of the tables."""

_WAITED: Final = frozenset(("55P03", "40P01"))
"""The errors of a lock that others held for too long."""

_PLACEMENT: Final = "~"
_NOTE: Final = "="
"""What notes begin with: those that say that it is worth looking who owns what, and those of bots."""

_HOLDERS: Final = f"""
    SELECT extract(epoch FROM clock_timestamp() - activity.state_change)::float8
    FROM ({dialect.HELD}) AS held JOIN pg_stat_activity AS activity USING (pid) WHERE is_user"""  # noqa: S608
_ENDING: Final = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE pid = $1 AND application_name = 'chatbot' AND usename = current_user AND backend_start <= $2"""

_log = structlog.get_logger(__name__)


def _now() -> float:
    """A clock that goes on while the machine is suspended, as that of the server does."""
    return time.clock_gettime(_CLOCK) if _CLOCK is not None else time.monotonic()


_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", None)


def channel(schema: str) -> str:
    """Return the channel of a schema's notes; a name for it that is never too long."""
    return f"chatbot_{hashlib.sha256(schema.encode()).hexdigest()[:24]}"


class StoreSession:
    """The use of a store by this process. Runs on the loop of the store's thread; properties may be read in any thread.

    Args:
        server: the server.
        user: how this process uses the store.
        on_lost: called once, in the store's thread, if the store is lost for good.
        on_note: called there with each note of another process.
        shards: what this process owns; None unless it is a member.
    """

    def __init__(
        self,
        server: Server,
        user: StoreUser,
        *,
        on_lost: Callable[[StoreError], None],
        on_note: Callable[[str], None],
        shards: Shards | None,
    ) -> None:
        self.user = user
        self.channel = channel(server.url.schema)
        self.acknowledged = 0
        self._standing = Standing(0, 0, 0)
        self.server = server
        self._schema = server.url.schema
        self._on_lost = on_lost
        self._on_note = on_note
        self._shards = shards
        self._connection: Connection | None = None
        self._backend: tuple[int, object] = (0, None)
        self._speaking = asyncio.Lock()
        self._held_until = 0.0
        self._claims_from = 0.0
        self._beating: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._is_stopping = False
        self._lost: StoreError | None = None
        self._committing: Connection | None = None
        self._types: dict[str, list[str]] = {}

    @property
    def is_held(self) -> bool:
        """Whether no other process can have what this one owns now."""
        return self._lost is None and _now() < self._held_until

    @property
    def lost(self) -> StoreError | None:
        """Why the store is lost for good, or that it is closed; None while it can be used."""
        return self._lost

    @property
    def fence(self) -> dialect.Fence:
        """What a commit requires."""
        return dialect.Fence(self.user.id, self._standing.epoch, self._standing.era)

    # ── beginning and end ─────────────────────────────────────────────────────────────────────────────────────────

    async def open(self) -> Connection:
        """Take the lock, migrate the tables and register; return the connection for commits.

        The caller must call `close` even if this fails or is cancelled.

        Raises:
            StoreInUse: other processes use the store, and not in a way that can be shared.
            StoreError: the store cannot be used.
        """
        try:
            self._adopt(await self._connect(), _now())
            await self._acquire(self._session())
            await self._check_standbys(self._session(), is_first=True)
            self._beating = asyncio.create_task(self._beat(), name="store beat")
            connection = await self._begin(is_first=True)
            await self._announce(connection)
        except StoreError:
            raise
        except Exception as error:
            raise self.server.explain(error, "open") from error
        self._wake.set()
        return connection

    async def close(self, *, is_orderly: bool, untouched: list[int]) -> None:
        """Give up everything that this process owns.

        Args:
            is_orderly: otherwise, others find what a killed process leaves.
            untouched: see `leave`.
        """
        await self._stop_beating()
        if is_orderly and self._committing is not None and self._lost is None:
            with suppress(Exception):  # without it, others find a process that was killed
                async with asyncio.timeout(LEAVING_SECONDS):
                    await leave(self._committing, self._schema, self.user, untouched)
        if self._lost is None:
            # What was cancelled, and fails while it ends, must not connect again.
            self._lost = StoreError(f"the store {self.server.url} is closed")
        try:
            await close(self._committing)
            self._committing = None
        finally:
            await self._close_session()

    async def _stop_beating(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
            with suppress(asyncio.CancelledError):
                await self._beating
            self._beating = None
        self._held_until = 0.0

    async def _close_session(self) -> None:
        session, self._connection = self._connection, None
        if session is None:
            return
        try:
            with suppress(Exception):  # it is given up either way
                await session.execute("SELECT pg_advisory_unlock_all()", timeout=2)
                await self._announce(session)
        finally:
            await close(session)

    async def _announce(self, connection: Connection) -> None:
        """Let the other members look at once who owns what."""
        if self._shards is not None:
            await connection.execute("SELECT pg_notify($1, $2)", self.channel, self._addressed(_PLACEMENT))

    def _addressed(self, text: str) -> str:
        return f"{self.user.id} {text}"

    def notes(self, notes: tuple[str, ...]) -> list[str]:
        """Return notes as they are sent."""
        return [self._addressed(_NOTE + note) for note in notes]

    def _heard(self, _connection: Connection, _backend: int, _channel: str, payload: str) -> None:
        sender, _, text = payload.partition(" ")
        if sender == self.user.id:
            return
        if text.startswith(_NOTE):
            self._on_note(text.removeprefix(_NOTE))
        else:
            self._wake.set()

    def lose(self, problem: str) -> StoreError:
        """Give up the store for good; return the error."""
        if self._lost is None:
            self._lost = StoreInUse(problem)
            self._held_until = 0.0
            self._abort()
            if self._shards is not None:
                self._shards.lose_all()
            self._on_lost(self._lost)
        return self._lost

    def _abort(self) -> None:
        """End the connection for commits, so that a commit on it does not wait for a server that is silent."""
        if self._committing is not None:
            self._committing.terminate()

    def _taken_over(self) -> StoreError:
        return self.lose(
            f"another chatbot has taken over the store {self.server.url} while this process was silent or "
            "disconnected: this process must end"
        )

    def _lost_commits(self) -> StoreError:
        return self.lose(
            f"the server of {self.server.url} has lost commits that it had confirmed (it was restored, or failed over "
            "to a standby that was behind): this process must end"
        )

    def _check_lost(self) -> None:
        if self._lost is not None:
            raise type(self._lost)(str(self._lost))

    def _check_era(self, era: int | None) -> None:
        if era is None or era > self._standing.era:
            raise self._taken_over()
        if era < self._standing.era:
            raise self._lost_commits()

    # ── the connection for commits ────────────────────────────────────────────────────────────────────────────────

    async def reconnect(self) -> tuple[Connection, int]:
        """Open a new connection for commits, under a new epoch: no commit of an older connection can follow.

        Returns:
            The connection, and the number of the last commit that the server has.

        Raises:
            StoreError: there is none, or the store is lost.
        """
        self._check_lost()
        connection = await self._begin(is_first=False)
        return connection, self._standing.commits

    async def _begin(self, *, is_first: bool) -> Connection:
        connection = await self.server.connect()
        with self.server.terminated_on_error(connection, "open"):
            if is_first:
                self._standing = await self._register(connection)
            else:
                self._renewed(await renew(connection, self.user.id))
            await self._create_function(connection)
            self._check_lost()
        self._abort()
        self._committing = connection
        return connection

    def _renewed(self, standing: Standing | None) -> None:
        if standing is None:
            raise self._taken_over()
        self._check_era(standing.era)
        if standing.epoch <= self._standing.epoch or standing.commits < self.acknowledged:
            raise self._lost_commits()
        self._standing = standing

    async def _register(self, connection: Connection) -> Standing:
        """Migrate and register, one process after the other. Others may commit meanwhile."""
        lock = f"SELECT pg_advisory_lock({dialect.LOCK_CLASS}, $2)"
        unlock = f"SELECT pg_advisory_unlock({dialect.LOCK_CLASS}, $2)"
        end = _now() + MIGRATING_SECONDS
        while True:
            try:
                await connection.execute(lock, self._schema, dialect.MIGRATION)
                try:
                    # A change of a table waits for those who use it, and everybody else for it: so not for long.
                    await connection.execute("SET lock_timeout = '1s'")
                    await migrate(connection, self.server.url)
                    await connection.execute("RESET lock_timeout")
                    return await register(connection, self._schema, self.user, self._backend[0])
                finally:
                    if not connection.is_closed():
                        await connection.execute(unlock, self._schema, dialect.MIGRATION)
            except Exception as error:
                if getattr(error, "sqlstate", None) not in _WAITED or _now() > end:
                    raise
                await asyncio.sleep(0.5)

    async def _create_function(self, connection: Connection) -> None:
        if not self._types:
            for text in dialect.TEXTS:
                statement = await connection.prepare(dialect.translated(text))
                self._types[text] = [type.name for type in statement.get_parameters()]
        await connection.execute(dialect.function(self._types))

    # ── the session ───────────────────────────────────────────────────────────────────────────────────────────────

    def _session(self) -> Connection:
        if self._connection is None:
            msg = f"the session with the store {self.server.url} is broken"
            raise StoreError(msg)
        return self._connection

    async def _connect(self) -> Connection:
        session = await self.server.connect(is_owner=True)
        try:
            if self._shards is not None:
                await session.add_listener(self.channel, self._heard)
            started = await session.fetchval("SELECT clock_timestamp()")
            self._backend, before = (session.get_server_pid(), started), self._backend
            if before[1] is not None:
                # It may have been our side alone that lost the session before; until it ends, it holds what is ours.
                with suppress(Exception):
                    await session.execute(_ENDING, *before)
        except BaseException:
            session.terminate()
            raise
        return session

    def _adopt(self, session: Connection, asked: float) -> None:
        session.add_termination_listener(self._ended)
        self._connection = session
        self._held_until = asked + HELD_SECONDS if self._standing.era else 0.0

    def _ended(self, connection: Connection) -> None:
        """The connection broke: the server gives the locks to others now, not only after the deadline."""
        if connection is self._connection:
            self._held_until = 0.0
            self._wake.set()

    async def _acquire(self, session: Connection) -> None:
        """Lock the store; wait for an owner that is silent, until the server has ended its session."""
        begun = _now()
        while True:
            asked = _now()
            if await self._try_lock(session):
                self._held_until = asked + HELD_SECONDS
                return
            found = [silence for (silence,) in await session.fetch(_HOLDERS, self._schema)]
            # Without a holder, its session is just ending. Another user's holder does not show its silence.
            is_silent = all(silence is not None and silence > 2 * BEAT_SECONDS for silence in found)
            if _now() - begun > (SILENT_SECONDS + 2 if is_silent else PATIENCE_SECONDS):
                raise StoreInUse(await _in_use(session, self.server.url))
            await asyncio.sleep(0.1)

    async def _try_lock(self, session: Connection) -> bool:
        suffix = "" if self.user.use is Use.ALONE else "_shared"
        lock = f"SELECT pg_try_advisory_lock{suffix}({dialect.LOCK_CLASS}, $2)"
        return bool(await session.fetchval(lock, self._schema, dialect.WHOLE, timeout=HELD_SECONDS))

    async def _beat(self) -> None:
        """Keep the session; replace it whenever it breaks."""
        while self._lost is None:
            self._wake.clear()
            asked, is_complete = _now(), True
            try:
                async with self._speaking:
                    is_complete = await self._hold(asked)
            except Exception as error:  # of the driver or the network: tried again
                self._break(error)
            pause = BEAT_SECONDS if is_complete else AGAIN_SECONDS
            if self._connection is None:
                pause = RECONNECT_SECONDS
            with suppress(TimeoutError):
                # Not `wait_for`: in Python 3.11, it drops a cancellation that comes with what is waited for.
                async with asyncio.timeout(max(0.02, asked + pause - _now())):
                    await self._wake.wait()

    def _break(self, error: Exception) -> None:
        if self._connection is not None:
            session, self._connection = self._connection, None
            session.terminate()
            self._held_until = 0.0
            self._abort()
            _log.warning("store.session_lost", store=str(self.server.url), reason=type(error).__name__)

    async def _hold(self, asked: float) -> bool:
        """Beat once, or replace the session; return whether there is nothing left to do until the next beat."""
        session = self._connection
        if session is None:
            return await self._restore()
        if not self._standing.era:  # there may be no tables yet
            await session.fetchval("SELECT 1", timeout=HELD_SECONDS)
            self._held_until = asked + HELD_SECONDS
            return True
        if self._shards is None:
            query = "SELECT epoch FROM shard WHERE id = $1"
            self._check_era(await session.fetchval(query, dialect.WHOLE, timeout=HELD_SECONDS))
            self._held_until = asked + HELD_SECONDS
            return True
        facts = await self._shards.read(session)
        self._check_era(facts.era)
        self._held_until = asked + HELD_SECONDS
        return await self._shards.act(session, facts, may_claim=asked >= self._claims_from)

    async def _restore(self) -> bool:
        session = await self._connect()
        try:
            asked = _now()
            # Without the lock, it may be held by our own old session, whose end the server has not noticed yet.
            is_ours = await self._try_lock(session)
            await self._check_place(session)
            if is_ours and self._shards is not None:
                is_ours = await self._retake(session, self._shards)
        except BaseException:
            session.terminate()
            raise
        if not is_ours:
            await close(session)
            return False
        self._adopt(session, asked)
        self._claims_from = _now() + SETTLING_SECONDS
        if self._shards is not None:
            self._shards.note_silence()
        _log.info("store.session_restored", store=str(self.server.url))
        await self._check_standbys(session, is_first=False)
        return True

    async def _check_standbys(self, session: Connection, *, is_first: bool) -> None:
        """Refuse to begin where a failover may lose commits; where bots run already, only log it."""
        if self.user.use is Use.VISITOR:
            return
        found = await standbys(session, self.server.url)
        if found.problem is not None:
            if is_first:
                raise StoreError(found.problem)
            _log.error("store.async_standby_detected", reason=found.problem)
        elif found.notice is not None:
            _log.warning("store.standby_unchecked", reason=found.notice)

    async def _check_place(self, session: Connection) -> None:
        if self._standing.era:
            self._check_era(await move(session, self.user.id, session.get_server_pid()))

    async def _retake(self, session: Connection, shards: Shards) -> bool:
        for _ in range(10):
            try:
                if await shards.retake(session):
                    return True
            except LookupError:
                raise self._lost_commits() from None
            await asyncio.sleep(0.1)
        return False

    def stop_claiming(self) -> None:
        """Take no shards any more. Callable in any thread."""
        if self._shards is not None:
            self._shards.limit = 0
            self._is_stopping = True

    async def limit_to(self, share: float | None) -> None:
        """Take no more than this share of all shards, and let the others look who owns what now."""
        if self._shards is not None and not self._is_stopping:
            self._shards.limit = share
            await self.look()

    async def accept(self, shards: Collection[int]) -> None:
        """Claim shards that were offered."""
        if self._shards is not None:
            self._shards.accept(shards)
            self._wake.set()

    async def look(self) -> None:
        """Look now who owns what, here and in the other members."""
        self._wake.set()
        async with self._speaking:
            if self._connection is not None:
                with suppress(Exception):  # the next beat finds that the session is broken
                    await self._announce(self._connection)

    async def release(self, tenures: Mapping[int, int]) -> None:
        """Give up shards in order; see `Shards.release`."""
        left = dict(tenures)
        while left and self._lost is None and self._shards is not None:
            async with self._speaking:
                if self._connection is not None:
                    try:
                        left = await self._shards.release(self._connection, left)
                        await self._announce(self._connection)
                    except Exception as error:
                        self._break(error)
            if left:
                await asyncio.sleep(0.05)
        self._wake.set()


async def sole_user(connection: Connection, url: PostgresUrl) -> str | None:
    """Return which process uses a store alone; None if none does."""
    query = f"SELECT 1 FROM ({dialect.HELD}) AS held WHERE is_alone"  # noqa: S608
    return await _in_use(connection, url) if await connection.fetch(query, url.schema) else None


async def _in_use(connection: Connection, url: PostgresUrl) -> str:
    found = ""
    with suppress(Exception):  # without the names, the sentence says enough
        found = await users(connection, url.schema)
    if "; " in found:
        return f"the store {url} is in use by other processes ({found}): stop them first, or name another store"
    who = f"another process ({found})" if found else "another process"
    return f"the store {url} is in use by {who}: stop that one first, or name another database or schema"
