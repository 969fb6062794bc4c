"""The emulator that `service: emulator` means, while it does not run: whether it could."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

from chatbot.config import Config
from chatbot.runtime.doctor.finding import Finding, failed, misconfigured, ok
from chatbot.stores.probe import may


def look(config: Config) -> Iterator[Finding]:
    """Look whether its port is free, and whether its state can be kept.

    Args:
        config: whose service is the emulator.
    """
    port = config.emulator.port
    if port is not None and _is_taken(port):
        problem = f"port {port} is already in use; free it, or choose another"
        yield misconfigured("emulator", config.problem(("emulator", "port"), problem))
    file = config.directory / config.emulator.data
    place = file if file.exists() else next(parent for parent in file.parents if parent.exists())
    if not may(place, os.R_OK | os.W_OK):
        what = f"this user may not write {place}, where the emulator keeps its state"
        yield failed("emulator", what, "mend its rights, or name another file: emulator: {data: FILE}")
    else:
        yield ok("emulator", f"runs in the bots' own process while they run, and keeps its state in {file}")


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False
