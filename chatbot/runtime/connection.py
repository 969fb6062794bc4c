"""How a daemon, and the commands that talk beside it, reach one resource of the chat service."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from chatbot.service.acs import AcsResource
from chatbot.service.connection import ConnectionString


@dataclass(frozen=True, slots=True)
class Connection:
    """One resource of the service.

    Args:
        endpoint: where it is, for us.
        access_key: its key.
        resource: what tells it from other resources; stays the same over restarts, even where the port changes.
        connection_string: how others reach it.
        ca_file: the authority that signed its certificate; None if any system knows it.
        is_emulator: it is the one inside the daemon's own process.
    """

    endpoint: str
    access_key: str = field(repr=False)
    resource: str
    connection_string: str = field(repr=False)
    ca_file: Path | None = None
    is_emulator: bool = False

    @classmethod
    def to_azure(cls, connection_string: str) -> Self:
        """The resource that a connection string names.

        Raises:
            ConfigError: it names none.
        """
        known = ConnectionString.parse(connection_string)
        host = urlsplit(known.endpoint).netloc
        return cls(known.endpoint, known.access_key, host, connection_string)

    def open(self) -> AcsResource:
        """The resource, to be used as a context manager."""
        return AcsResource(self.endpoint, access_key=self.access_key)
