"""Conversion of failures of the service, the network and the SDK to the errors of `chatbot.errors`. Performs no I/O.

The chat service returns errors as `{"CommunicationError": {"Code", "Message"}}` (recorded sessions, and reports of
users until 2024). Its REST specification says `{"error": {"code", "message"}}`, which the identity service uses. Both
are parsed here, because the SDK understands only the second. Bodies may be empty.

The essential distinction is whether a request was *certainly not done*. After a refused connection, an unknown host, a
failed TLS handshake or a connect timeout it was not sent; after any other broken connection it may have been. A request
that may have been done must become `OutcomeUnknown`: the outbox repeats all others without reading first, and would
send a reply twice.
"""

from __future__ import annotations

import json
import math
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

import aiohttp
from azure.core.exceptions import AzureError, HttpResponseError, ServiceRequestTimeoutError
from msgspec import Struct

from chatbot.errors import (
    Forbidden,
    NotFound,
    OutcomeUnknown,
    ProtocolError,
    Rejected,
    ServiceError,
    Throttled,
    Unauthorized,
    Unreachable,
)
from chatbot.service.transport import TooLarge
from chatbot.service.wire import read_http_date

MAX_RETRY_AFTER: Final = 300.0
"""The longest `Retry-After` that is honored, in seconds: a wrong one must not silence a bot for days."""

MAX_TEXT: Final = 300
"""The maximum number of characters of the service's text that an error quotes."""

_ENVELOPES: Final = frozenset({"error", "communicationerror", "chaterror"})
_PASSWORD: Final = re.compile(r"://[^/\s'\"]*@")
"""User name and password in an address: aiohttp's errors about a proxy contain them."""

_NEVER_SENT: Final = (
    aiohttp.ClientConnectorError,
    aiohttp.ClientHttpProxyError,
    ConnectionRefusedError,
    socket.gaierror,
    ssl.SSLCertVerificationError,
)


class ErrorDetails(Struct, frozen=True):
    """Code and message of an error response; both may be missing."""

    code: str | None = None
    message: str | None = None

    def __str__(self) -> str:
        return ": ".join(part for part in (self.code, self.message) if part)


def from_status(operation: str, status: int, headers: Mapping[str, str], text: str, now: datetime) -> ServiceError:
    """Return the error for an unsuccessful response.

    Args:
        operation: what was asked, to complete "cannot …".
        status: the HTTP status.
        headers: the headers of the response, as a case-insensitive mapping; looked up by lower-case name.
        text: the body of the response, in any form.
        now: this machine's time; a `Retry-After` date is compared with it if the response has no `Date`.

    Returns:
        An error whose class tells the caller how to proceed.
    """
    complaint = read_error_details(text)
    said = str(complaint)
    message = f"cannot {operation}: the service answered {status}" + (f" ({said})" if said else "")
    code = complaint.code
    asked = read_retry_after(headers, now) if status in (408, 429) or status >= 500 else None
    retry_after = None if asked is None else min(asked, MAX_RETRY_AFTER)
    if asked != retry_after:
        message += f"; it asks to wait {asked:.0f} s, and is asked again after {MAX_RETRY_AFTER:.0f} s"
    if status == 429:
        return Throttled(message, retry_after=retry_after, code=code)
    if status == 408 or status >= 500:
        return OutcomeUnknown(message, status=status, code=code, retry_after=retry_after)
    if status == 401:
        message += "; the token or key is expired, revoked, or of another resource: check it, and the endpoint"
    if 400 <= status < 500:
        return _BY_STATUS.get(status, Rejected)(message, status=status, code=code)
    return ProtocolError(f"{message}, which is neither success nor failure; check the endpoint", status=status)


_BY_STATUS: Final[Mapping[int, type[ServiceError]]] = {401: Unauthorized, 403: Forbidden, 404: NotFound}


def from_exception(operation: str, error: BaseException) -> ServiceError:
    """Return the error for a failure of the network or the SDK without a usable response.

    Args:
        operation: what was asked, to complete "cannot …".
        error: the exception of azure-core's transport.

    Returns:
        `Unreachable` if the request was certainly not sent, `ProtocolError` if the response is not one of the service,
        else `OutcomeUnknown`.
    """
    reason = clean(str(error)) or type(error).__name__
    if any(isinstance(cause, TooLarge) for cause in _causes(error)):
        return ProtocolError(f"cannot {operation}: {reason}, which is not an answer of the service; check the endpoint")
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error)):
        remedy = "name the authority that signed it as ca_file or in SSL_CERT_FILE"
        return Unreachable(f"cannot {operation}: the service's certificate is not trusted ({reason}); {remedy}")
    if isinstance(error, ServiceRequestTimeoutError) or any(isinstance(c, _NEVER_SENT) for c in _causes(error)):
        remedy = "check the endpoint, the network and the proxy"
        return Unreachable(f"cannot {operation}: the service cannot be reached ({reason}); {remedy}")
    return OutcomeUnknown(f"cannot tell whether it was done to {operation}: no answer came ({reason})")


def from_azure(operation: str, error: AzureError, now: datetime) -> ServiceError:
    """Return the error for an exception of an SDK client, with or without a response."""
    response: Any = error.response if isinstance(error, HttpResponseError) else None
    if response is None:
        return from_exception(operation, error)
    status = int(response.status_code or 0)
    if 200 <= status < 300:
        return OutcomeUnknown(f"cannot {operation}: the service's answer cannot be read ({clean(str(error))})")
    return from_status(operation, status, response.headers, _text_of(response), now)


def read_error_details(text: str) -> ErrorDetails:
    """Parse code and message of an error body in either form; return an empty complaint for anything else."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return ErrorDetails()
    for name, value in _items(body):
        if name in _ENVELOPES:
            fields = dict(_items(value))
            return ErrorDetails(_string(fields.get("code")), _string(fields.get("message")))
    return ErrorDetails()


def read_retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds to wait as requested by the service; None if there is no valid value.

    It reads `retry-after-ms` and `x-ms-retry-after-ms` (azure-core honors both), and `Retry-After` in seconds or as an
    HTTP date. A date is compared with the response's own `Date`, so that this machine's clock need not be correct.
    """
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        if (milliseconds := _number(headers.get(name))) is not None:
            return milliseconds / 1000
    asked = headers.get("retry-after")
    if (seconds := _number(asked)) is not None:
        return seconds
    until = read_http_date(asked)
    if until is None:
        return None
    return max(0.0, (until - (read_http_date(headers.get("date")) or now)).total_seconds())


def clean(text: str) -> str:
    """Sanitize an external text for an error: one printable line of limited length, without passwords."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * MAX_TEXT]).split())
    line = _PASSWORD.sub("://", line)
    return line if len(line) <= MAX_TEXT else line[: MAX_TEXT - 1] + "…"


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from ((str(name).lower(), item) for name, item in value.items())


def _string(value: Any) -> str | None:
    return clean(value) or None if isinstance(value, str) else None


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return max(0.0, number) if math.isfinite(number) else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and its causes, as azure-core (`inner_exception`), aiohttp (`os_error`) and Python link them."""
    waiting, visited = [error], set[int]()
    while waiting:
        cause = waiting.pop()
        if id(cause) in visited:
            continue
        visited.add(id(cause))
        yield cause
        for name in ("inner_exception", "os_error", "certificate_error", "__cause__"):
            inner = getattr(cause, name, None)
            if isinstance(inner, BaseException):
                waiting.append(inner)


def _text_of(response: Any) -> str:
    try:
        return str(response.text())
    except (ValueError, AttributeError, LookupError):
        return ""
