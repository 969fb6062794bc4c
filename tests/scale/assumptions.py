"""What the simulation assumes. Settings and quotas are not here: they are those of the code."""

from __future__ import annotations

from typing import Final

MESSAGES_AN_HOUR: Final = 1.0
"""Messages of people in each thread, on average. Each is answered by one reply."""

CONVERSATION: Final = 10
"""Messages of a conversation. A thread is silent between conversations, which begin at random."""

GAP: Final = (4.0, 8.0)
"""Seconds between two messages of a conversation."""

REQUEST_SECONDS: Final = 0.15
"""How long the service takes to answer. Recorded: 0.06 to 0.36 s."""

WAKE_SECONDS: Final = 0.01
"""How long a notification takes from one replica to another, through the database."""

POLL_MS: Final = 0.52
"""Processor time of a poll without news (`python -m tests.benchmarks client`: an empty page, the whole bot)."""

MESSAGE_MS: Final = 2.05
"""Processor time of a message with its poll, reply and receipt (`python -m tests.benchmarks end_to_end`)."""

THREAD_KB: Final = 6.0
"""Memory of a silent thread (`python -m tests.benchmarks threads`, 10,000 threads)."""

PROCESS_MB: Final = 90.0
"""Memory of a process without threads."""

LISTED_BYTES: Final = 100
"""Memory of a thread in a full read of the thread list, until it is finished."""

TAKEN_OVER_US: Final = 50.0
"""Processor time for reading a thread from the store (`python -m tests.benchmarks start`, 10,000 threads)."""

CONNECTIONS_BESIDE_READERS: Final = 2
"""Database connections of a replica beside those that read: its locks and notifications, and its commits."""

OWNED_WITHIN_SECONDS: Final = 1.0
"""The interval at which a replica asks who holds which shards; it claims what is free then."""
