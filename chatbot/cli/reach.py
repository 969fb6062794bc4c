"""The way to the resource of running bots, for commands beside them."""

from __future__ import annotations

import os
from pathlib import Path

from chatbot.config import load_config
from chatbot.runtime.connection import Connection
from chatbot.runtime.control import RunInfo


def reach(info: RunInfo, config: Path) -> Connection:
    """As the daemon published it; where it has no key to share, as bots.yaml says.

    Args:
        info: what the daemon published.
        config: its bots.yaml.

    Raises:
        ConfigError: bots.yaml cannot be used.
    """
    if info.connection_string is not None:
        return Connection.to_running(info)
    return Connection.of(load_config(config, os.environ))
