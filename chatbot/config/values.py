"""Where to listen, as people write it: `127.0.0.1:8080`, `[::1]:8080`, `0.0.0.0:8080`, or only `8080`. Pure."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final

LOOPBACK: Final = "127.0.0.1"
_EXPECTED: Final = "write HOST:PORT, such as 127.0.0.1:8080"


def parse_listen(value: object) -> tuple[str, int]:
    """Read an address and a port, 0 being any free one; a port alone is one of this machine's own 127.0.0.1.

    Raises:
        ValueError: it is none; the text says what to write.
    """
    if isinstance(value, tuple):  # read already
        return value
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdecimal() and int(port) < 65536):
        message = f"{_quoted(value)} is not where one can listen: {_EXPECTED}"
        raise ValueError(message)
    return _address(host), int(port)


def _address(host: str) -> str:
    if host in ("", "localhost"):
        return LOOPBACK
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        return str(ip_address(bare))
    except ValueError:
        message = f'"{host}" is not an address of this machine: {_EXPECTED}, or 0.0.0.0:8080 for all of its addresses'
        raise ValueError(message) from None


def _quoted(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value) if isinstance(value, int) else "this"
