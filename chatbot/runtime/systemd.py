"""Tells systemd that the daemon is ready, reloading, stopping, or alive.

The protocol is sd_notify(3): lines of NAME=VALUE, sent as a datagram to the socket that NOTIFY_SOCKET names. Without
the variable, nothing is sent.
"""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Mapping
from typing import Final, Self

import structlog

_NOTIFICATIONS_PER_LIMIT: Final = 3
"""Notifications per watchdog limit; systemd recommends at least two (sd_watchdog_enabled)."""


class SystemdNotifier:
    """Sends notifications to systemd.

    Args:
        address: of systemd's socket; "" to send nothing.
        watchdog_seconds: the limit between two watchdog notifications; None without a watchdog.
    """

    def __init__(self, address: str = "", watchdog_seconds: float | None = None) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog_seconds = watchdog_seconds if address else None
        self._is_stopping = False
        self._notified_at = -math.inf
        self._log = structlog.get_logger()

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Self:
        """Read the environment. A watchdog of another process (`WATCHDOG_PID`) is ignored."""
        limit, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
        is_watched = limit.isdecimal() and int(limit) > 0 and pid in ("", str(os.getpid()))
        address = environ.get("NOTIFY_SOCKET", "") if hasattr(socket, "AF_UNIX") else ""
        return cls(address, int(limit) / 1_000_000 if is_watched else None)

    def ready(self, status: str) -> None:
        """Notify that everything runs, after a start or a reload; nothing is sent once the process is stopping."""
        if not self._is_stopping:
            self._notify("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Notify that a reload has begun; `ready` ends it.

        systemd (type `notify-reload`) accepts it as the answer to its signal if its time is not before the signal.
        """
        if not self._is_stopping:
            self._notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=Reloading")

    def stopping(self) -> None:
        """Notify that the process is stopping."""
        self._is_stopping = True
        self._notify("STOPPING=1", "STATUS=Finishing current work")

    def alive(self, problems: Mapping[str, object]) -> None:
        """Send a watchdog notification if one is due and there are no problems. Callable in any thread.

        Args:
            problems: what a restart would fix.
        """
        now = time.monotonic()
        if (
            self._watchdog_seconds is None
            or now - self._notified_at < self._watchdog_seconds / _NOTIFICATIONS_PER_LIMIT
        ):
            return
        self._notified_at = now
        if problems:
            self._log.error("watchdog.withheld", missed=dict(problems))
        else:
            self._notify("WATCHDOG=1")

    def _notify(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            self._log.warning("systemd.not_reached", error=str(error))
