"""Tells systemd how the daemon is doing: ready, reloading, stopping, and alive.

Nothing is needed for it but a datagram socket.
The protocol is sd_notify(3): lines of NAME=VALUE to the socket that NOTIFY_SOCKET names. Elsewhere, where nobody named
one, nothing is sent.
"""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Mapping
from typing import Final, Self

import structlog

_SIGNS_PER_LIMIT: Final = 3
"""So often within the time after which systemd would kill us; systemd asks for two at least (sd_watchdog_enabled)."""


class SystemdNotifier:
    """What started the process and wants to hear of it.

    Args:
        address: of its socket; "" if nobody wants to hear.
        watchdog_seconds: within which it wants a sign of life; None if it does not.
    """

    def __init__(self, address: str = "", watchdog_seconds: float | None = None) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog_seconds = watchdog_seconds if address else None
        self._is_stopping = False
        self._told_at = -math.inf
        self._log = structlog.get_logger()

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Self:
        """The one that the environment names; a watchdog that is meant for another process is not ours."""
        limit, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
        is_watched = limit.isdecimal() and int(limit) > 0 and pid in ("", str(os.getpid()))
        address = environ.get("NOTIFY_SOCKET", "") if hasattr(socket, "AF_UNIX") else ""
        return cls(address, int(limit) / 1_000_000 if is_watched else None)

    def ready(self, status: str) -> None:
        """Everything runs, from the start on or again; not said once the end has begun."""
        if not self._is_stopping:
            self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """A reload has begun; `ready` says that it is over.

        systemd (type `notify-reload`) takes it for the answer to its signal if the time in it is not before the signal.
        """
        if not self._is_stopping:
            self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=Reloading")

    def stopping(self) -> None:
        """The end has begun."""
        self._is_stopping = True
        self._tell("STOPPING=1", "STATUS=Finishing what is in hand")

    def alive(self, problems: Mapping[str, object]) -> None:
        """Give a sign of life, if one is due and nothing is wrong that a restart helps with; on any thread.

        Args:
            problems: what is.
        """
        now = time.monotonic()
        if self._watchdog_seconds is None or now - self._told_at < self._watchdog_seconds / _SIGNS_PER_LIMIT:
            return
        self._told_at = now
        if problems:
            self._log.error("watchdog.withheld", missed=dict(problems))
        else:
            self._tell("WATCHDOG=1")

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            self._log.warning("supervisor.not_reached", error=str(error))
