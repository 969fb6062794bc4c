"""Parsing and validation of endpoints and connection strings.

Plain http is allowed for this machine only, because every request contains a token. No error or repr shows a key.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final, Self
from urllib.parse import SplitResult, urlsplit

from chatbot.errors import ConfigError

_SHAPE: Final = "endpoint=https://NAME.communication.azure.com/;accesskey=KEY"
_QUOTES: Final = frozenset("'\"`‘’‚“”„«»")
"""Quotation marks, which no address or key contains. Environment files keep those that a shell would remove."""

_HINT: Final = f"copy it from the resource's page in the Azure portal, it looks like {_SHAPE}"


@dataclass(frozen=True, slots=True)
class ConnectionString:
    """A parsed connection string.

    Args:
        endpoint: scheme, host and port, without a slash at the end.
        access_key: the resource's key in base64.
    """

    endpoint: str
    access_key: str = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `endpoint=…;accesskey=…`; the names may be in any order and case, as in the Azure SDKs.

        Raises:
            ConfigError: a part is missing or invalid; the message never shows the key.
        """
        fields: dict[str, str] = {}
        if _QUOTES.intersection(text.strip()):
            msg = f"the connection string has quotation marks in or around it; remove them, it looks like {_SHAPE}"
            raise ConfigError(msg)
        for part in text.strip().split(";"):
            name, _, value = part.partition("=")
            if name.strip().lower() in ("endpoint", "accesskey"):
                fields[name.strip().lower()] = value.strip()
        for name in ("endpoint", "accesskey"):
            if not fields.get(name):
                msg = f"the connection string has no {name}=…; {_HINT}"
                raise ConfigError(msg)
        return cls(check_endpoint(fields["endpoint"]), check_access_key(fields["accesskey"]))


def check_endpoint(text: str) -> str:
    """Return an endpoint as `scheme://host[:port]`.

    Raises:
        ConfigError: it is not an http(s) address of a host, or it is plain http to another machine.
    """
    url = split_url(text if "://" in text else f"https://{text}")
    netloc = None if url is None else _in_ascii(url.netloc.lower())
    if url is None or netloc is None or url.path not in ("", "/") or url.query or url.fragment:
        msg = f"{_shown(text)} is not an endpoint of the chat service; expected https://NAME.communication.azure.com"
        raise ConfigError(msg)
    check_transport_security(url)
    return f"{url.scheme}://{netloc}"


def _in_ascii(netloc: str) -> str | None:
    """Return a host and port as they are sent, and as the service's links have them; None if that is not possible."""
    if netloc.isascii():
        return netloc
    from yarl import URL  # here: nearly no endpoint needs it

    try:
        return URL(f"https://{netloc}").raw_authority
    except ValueError:
        return None


def check_access_key(text: str) -> str:
    """Check that an access key is base64. The error does not show it."""
    try:
        is_key = bool(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        is_key = False
    if not is_key:
        msg = f"the access key is not base64 ({len(text)} characters); copy it again, whole, with the = at its end"
        raise ConfigError(msg)
    return text


def check_token_endpoint(text: str) -> str:
    """Check the address of a token endpoint.

    Raises:
        ConfigError: it is not an http(s) address, or it is plain http to another machine.
    """
    url = split_url(text)
    if url is None:
        msg = "the token endpoint is not an address such as https://HOST/PATH (with no name or password in it)"
        raise ConfigError(msg)
    check_transport_security(url)
    return url.geturl()


def check_transport_security(url: SplitResult) -> None:
    """Reject plain http to other machines.

    Raises:
        ConfigError: tokens would be sent unencrypted.
    """
    if url.scheme == "http" and not is_loopback(url.hostname or ""):
        msg = f"http://{url.netloc} is not encrypted: use https://; http:// is for this machine only (127.0.0.1)"
        raise ConfigError(msg)


def split_url(text: str) -> SplitResult | None:
    """Split an http(s) address of a host; return None if it is anything else, or has a password or an invalid port."""
    try:
        url = urlsplit(text.strip())
        is_usable = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0 and "@" not in url.netloc
    except ValueError:
        return None
    return url if is_usable else None


def is_loopback(host: str) -> bool:
    """Return whether a host name or address refers to this machine."""
    if host.lower() == "localhost" or host.lower().endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _shown(text: str) -> str:
    """Return an address for error messages: shortened, and without user name and password."""
    scheme, separator, rest = text.rpartition("://")
    return repr(f"{scheme}{separator}{rest.rpartition('@')[2]}"[:100])
