"""How a daemon, and the commands that talk beside it, reach one resource of the chat service."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from chatbot.config import Config
from chatbot.runtime.control import RunInfo
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
    def of(cls, config: Config) -> Self:
        """The resource that bots.yaml names by its connection string.

        Raises:
            ConfigError: it names none.
        """
        connection_string = config.service.get_secret_value()
        known = ConnectionString.parse(connection_string)
        ca_file = config.directory / config.ca_file if config.ca_file else None
        return cls(known.endpoint, known.access_key, urlsplit(known.endpoint).netloc, connection_string, ca_file)

    @classmethod
    def to_running(cls, info: RunInfo) -> Self:
        """The resource whose bots run, as their daemon published it."""
        key = ConnectionString.parse(info.connection_string).access_key
        ca_file = Path(info.ca_file) if info.ca_file else None
        return cls(info.endpoint, key, info.resource, info.connection_string, ca_file)

    def open(self) -> AcsResource:
        """The resource, to be used as a context manager."""
        ca_file = self.ca_file if self.endpoint.startswith("https:") else None  # our own emulator: plain http
        return AcsResource(self.endpoint, access_key=self.access_key, ca_file=ca_file)
