"""PostgreSQL's dialect of the statements: tables, placeholders, the function of a commit, and errors with a remedy.

Pure: it knows no driver and no connection. The statements and migrations are those of SQLite; they are translated, so
that a change of either reaches both databases.

A commit is one call of a function, and one round trip. The function exists for one session only (`pg_temp`), so that
it always belongs to the code that calls it. All values are parameters: PostgreSQL logs no people's words, not even with
the text of a statement that failed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from chatbot.stores import statements
from chatbot.stores.queries import MARK_CLOSED, MARK_STOPPING
from chatbot.stores.schema import MIGRATIONS
from chatbot.stores.shards import SHARDS
from chatbot.stores.sql import JSON_LIST, NEXT_POSITION, Statement

OLDEST_SERVER: Final = 14
"""The first PostgreSQL whose servers end silent sessions (`idle_session_timeout`)."""

UNCHANGED: Final = "CB001"
"""The error code of a statement that had to change a row and did not; the message is its number in the call."""

FENCED: Final = "CB002"
"""The error code of a commit on a connection that was replaced, or of a process that has lost the store."""

NOT_OWNED: Final = "CB003"
"""The error code of a commit for shards of another process; the message is a list of SHARD:EPOCH."""

WHOLE: Final = 0
"""The row of `shard`, and the place of the lock, that stand for the whole store. Shard n has the id n + 1."""

LOCK_CLASS: Final = "hashtext('chatbot ' || $1::text)"
"""The class of a schema's advisory locks."""

MIGRATION: Final = -1
"""The place of the lock of migrations, and of changes of who uses the store."""

HELD: Final = f"""
    SELECT pid, bool_or(objid = {WHOLE}) AS is_user,
        bool_or(objid = {WHOLE} AND mode = 'ExclusiveLock') AS is_alone,
        array_agg(objid::bigint - 1) FILTER (WHERE objid::bigint BETWEEN 1 AND {SHARDS}) AS shards
    FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND classid = ({LOCK_CLASS}::bigint & 4294967295)::oid
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    GROUP BY pid"""  # noqa: S608
"""The query of the sessions that hold locks of a schema: of the whole store, alone or not, and of which shards."""

SHARED: Final = "several processes, run shared"
"""The owner of the whole store while processes share it. A chatbot that knows of no sharing shows it to people."""

UNKNOWN: Final = "unknown"
"""The owner of a shard whose last owner was killed, and is known no more."""

BEGAN_STOPPING: Final = "UPDATE replica SET is_stopping = 1, share = 0 WHERE id = ?"
"""Record that a process was asked to stop: it takes no shards any more."""

TEXTS: Final = (*statements.TEXTS, MARK_STOPPING.sql, MARK_CLOSED.sql, BEGAN_STOPPING)
"""The statements that commits consist of; their places here are their numbers."""

_NUMBERS: Final = {text: number for number, text in enumerate(TEXTS)}

_REPLACED: Final = {
    JSON_LIST: "SELECT json_array_elements_text(CAST(? AS json))",
    NEXT_POSITION: "nextval(pg_get_serial_sequence('outbox', 'position'))",
}

FOUNDATION: Final = (
    """CREATE TABLE store_version (
        application TEXT NOT NULL,
        version INTEGER NOT NULL
    )""",
    # The fence: whoever takes a shard raises its epoch. Free space in its pages keeps updates from growing the table.
    """CREATE TABLE shard (
        id INTEGER PRIMARY KEY,
        epoch BIGINT NOT NULL,
        owner TEXT NOT NULL,
        commits BIGINT NOT NULL
    ) WITH (fillfactor = 10)""",
    "INSERT INTO shard (id, epoch, owner, commits) VALUES (0, 0, '', 0)",
    "INSERT INTO store_version (application, version) VALUES ('chatbot', 0)",
)
"""What the store on PostgreSQL has beside the tables of `MIGRATIONS`, and had before `SHARING`."""

SHARING: Final = (
    (
        f"INSERT INTO shard (id, epoch, owner, commits) SELECT number, 0, '', 0 FROM generate_series(1, {SHARDS})"  # noqa: S608
        " AS number ON CONFLICT DO NOTHING",
        # Each process changes its row with every commit. What is its own alone needs no lock of others.
        """CREATE TABLE replica (
            id TEXT COLLATE "C" PRIMARY KEY,
            host TEXT NOT NULL,
            pid BIGINT NOT NULL,
            version TEXT NOT NULL,
            started_ms BIGINT NOT NULL,
            is_member BOOLEAN NOT NULL,
            share DOUBLE PRECISION,
            backend BIGINT NOT NULL,
            is_stopping SMALLINT NOT NULL DEFAULT 0,
            gone_ms BIGINT,
            epoch BIGINT NOT NULL DEFAULT 0,
            commits BIGINT NOT NULL DEFAULT 0
        ) WITH (fillfactor = 10)""",
    ),
    ("ALTER TABLE replica ADD COLUMN report TEXT NOT NULL DEFAULT ''",),
)
"""What processes need to share a store. Like `MIGRATIONS`, it is only appended to; it is counted by itself, because a
store in a file does not have it."""

OLDEST_USER: Final = 8
"""The oldest version of the tables whose chatbots can use those of this version beside newer ones. Raised when an entry
of `MIGRATIONS` contracts what they use."""

TABLES: Final = (
    "bot", "owner", "thread", "seen", "outbox", "dead_letter", "attempt", "state", "dialog", "timer", "result",
    "holder",
)  # fmt: skip
"""The tables of `MIGRATIONS`."""

NUMBERED: Final = {"owner": "key", "thread": "key", "outbox": "position"}
"""The tables whose rows the database numbers, and the column of the number."""


def translated(sql: str) -> str:
    """Return a statement with PostgreSQL's placeholders."""
    for ours, theirs in _REPLACED.items():
        sql = sql.replace(ours, theirs)
    first, *rest = sql.split("?")
    return first + "".join(f"${number}{part}" for number, part in enumerate(rest, start=1))


def migrations() -> list[list[str]]:
    """Return the migrations of the tables, see `MIGRATIONS`."""
    return [[_table(text) for text in migration] for migration in MIGRATIONS]


def _table(text: str) -> str:
    """Return a statement that creates or changes a table. Texts are compared by their bytes, as in SQLite."""
    text = re.sub(r"\bTEXT\b", 'TEXT COLLATE "C"', text).replace("WITHOUT ROWID", "")
    return text.replace("INTEGER PRIMARY KEY", "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY")


class CommitArguments(NamedTuple):
    """The arguments of the function of a commit.

    Args:
        numbers: the statements, by their places in `TEXTS`.
        values: the values of all their placeholders, as texts.
        musts: which of them must change a row.
    """

    numbers: list[int]
    values: list[str | None]
    musts: list[bool]


def call(commands: Sequence[Statement]) -> CommitArguments:
    """Return the arguments that carry out these statements."""
    return CommitArguments(
        [_NUMBERS[sql] for sql, _, _ in commands],
        [None if value is None else str(value) for _, values, _ in commands for value in values],
        [unless is not None for _, _, unless in commands],
    )


class Fence(NamedTuple):
    """What must still hold when a commit is made; otherwise it is refused.

    Args:
        replica: the id of the process.
        epoch: the number of its connection for commits.
        era: the number under which processes own the store, together or alone.
    """

    replica: str
    epoch: int
    era: int


COMMIT: Final = "SELECT pg_temp.chatbot_commit($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
"""Calls the function: a `Fence`, the number of the commit, the shards' ids and their epochs, a `CommitArguments`, the
channel of the notes, and the notes."""


def function(types: Mapping[str, Sequence[str]]) -> str:
    """Return the statement that creates the function of a commit.

    Args:
        types: the types of the placeholders of each of `TEXTS`, as the database has inferred them.
    """
    branches = "\n".join(
        f"WHEN {number} THEN {_branch(text, types[text])};\n_place := _place + {len(types[text])};"
        for number, text in enumerate(TEXTS)
    )
    return f"""
        CREATE FUNCTION pg_temp.chatbot_commit(
            _replica text, _epoch bigint, _era bigint, _commit bigint, _shards integer[], _epochs bigint[],
            _numbers integer[], _values text[], _musts boolean[], _channel text, _notes text[]
        ) RETURNS void LANGUAGE plpgsql AS $chatbot$
        #variable_conflict use_column
        DECLARE
            _place integer := 0;
            _foreign text;
        BEGIN
            UPDATE replica SET commits = _commit WHERE id = _replica AND epoch = _epoch;
            IF NOT FOUND THEN
                RAISE EXCEPTION USING ERRCODE = '{FENCED}', MESSAGE = 'this connection was replaced';
            END IF;
            -- FOR SHARE: whoever takes one of them over waits until this commit is made, or is refused.
            FOR _i IN 1 .. cardinality(_shards) LOOP
                PERFORM 1 FROM shard WHERE id = _shards[_i] AND epoch = _epochs[_i] FOR SHARE;
                IF NOT FOUND THEN
                    _foreign := concat_ws(',', _foreign, (_shards[_i] - 1) || ':' || _epochs[_i]);
                END IF;
            END LOOP;
            IF _foreign IS NOT NULL THEN
                RAISE EXCEPTION USING ERRCODE = '{NOT_OWNED}', MESSAGE = _foreign;
            END IF;
            FOR _i IN 1 .. cardinality(_numbers) LOOP
                CASE _numbers[_i]
                {branches}
                END CASE;
                IF _musts[_i] AND NOT FOUND THEN
                    RAISE EXCEPTION USING ERRCODE = '{UNCHANGED}', MESSAGE = (_i - 1)::text;
                END IF;
            END LOOP;
            PERFORM 1 FROM shard WHERE id = {WHOLE} AND epoch = _era;
            IF NOT FOUND THEN
                RAISE EXCEPTION USING ERRCODE = '{FENCED}', MESSAGE = 'another chatbot has taken over this store';
            END IF;
            PERFORM pg_notify(_channel, note) FROM unnest(_notes) WITH ORDINALITY AS note_ (note, place) ORDER BY place;
        END
        $chatbot$"""  # noqa: S608


def _branch(text: str, types: Sequence[str]) -> str:
    """Return a statement whose placeholders are elements of the function's list of values."""
    for ours, theirs in _REPLACED.items():
        text = text.replace(ours, theirs)
    first, *rest = text.split("?")
    casts = ["" if type == "text" else f"::{type}" for type in types]
    return first + "".join(
        f"(_values[_place + {number}]){cast}{part}"
        for number, (cast, part) in enumerate(zip(casts, rest, strict=True), start=1)
    )


_REMEDIES: Final = {
    "28P01": "it refuses this user or password: correct them in `store`, or in the passfile",
    "28000": "it refuses this user: correct the user in `store`, or allow it in the server's pg_hba.conf",
    "3D000": "it has no such database: create it (createdb NAME), or name another one",
    "42501": "this user lacks a right: let it own the database, or GRANT CREATE, TEMPORARY ON DATABASE to it",
    "42P01": "a table is missing: restore a backup, or name another schema",
    "53100": "its disk is full: free some space",
    "53200": "it is out of memory",
    "53300": "it has no connection left: end other programs, or raise max_connections",
    "25006": "it only reads, as a standby does: name the primary, or all servers (postgresql://HOST1,HOST2/NAME)",
    "57014": "a statement took too long: look for locks and load on the server",
    "55P03": "another program has locked its tables: end that program",
    "40001": "other programs change the same rows: end them",
    "40P01": "other programs lock the same rows: end them",
    "57P03": "it is starting or stopping: wait",
}

RETRIED: Final = frozenset(("40001", "40P01", "55P03", "57014"))
"""Errors after which a commit is certainly undone, and may succeed at once."""

UNDONE: Final = ("22", "23", "42", "53", "25", "0A", "54", "CB", "P0")
"""The classes of errors after which a commit is certainly undone. After others, the connection is not used any more."""


def remedy(code: str) -> str | None:
    """Return what an error of the server means, and what to do about it."""
    return _REMEDIES.get(code)
