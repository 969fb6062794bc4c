"""URLs of stores on PostgreSQL: where the server is, who we are, and how its certificate is checked.

`postgresql://USER:PASSWORD@HOST:PORT/DATABASE?OPTION=VALUE`, as PostgreSQL's own programs have it. Errors never show a
URL, because it may contain a password.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Final, NoReturn
from urllib.parse import parse_qsl, unquote, urlsplit

from chatbot.errors import ConfigError
from chatbot.stores.passwords import CREDENTIALS

SCHEMES: Final = ("postgresql", "postgres")

_MODES: Final = ("disable", "require", "verify-ca", "verify-full")
_OPTIONS: Final = (
    "allow_async_standby", "auth", "client_id", "credential", "host", "passfile", "schema", "sslcert", "sslkey",
    "sslmode", "sslrootcert",
)  # fmt: skip
_PORT: Final = 5432


@dataclass(frozen=True, slots=True)
class PostgresUrl:
    """A store on PostgreSQL.

    Args:
        hosts: names, addresses, or directories of Unix sockets, with ports; the first that accepts writes is used.
        database: the name of the database; None is that of the user.
        user: the user; None is that of the process, as with PostgreSQL's own programs.
        password: the password; None looks in the passfile.
        passfile: the file of passwords; None is PGPASSFILE or ~/.pgpass.
        schema: the schema of the tables; several stores may share a database, each in its schema.
        sslmode: how the connection is encrypted and the server's certificate checked.
        root_certificate: certificate authorities to trust instead of the system's.
        certificate: our certificate.
        key: its key, if that is another file.
        credential: how this process gets a token of Microsoft Entra ID, which is then the password; None without.
        client_id: the client id of its user-assigned identity.
        allows_async_standby: a standby may be behind the server, so that a failover may lose confirmed commits.
    """

    hosts: tuple[tuple[str, int], ...]
    database: str | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    passfile: Path | None = None
    schema: str = "chatbot"
    sslmode: str = "verify-full"
    root_certificate: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    credential: str | None = None
    client_id: str | None = None
    allows_async_standby: bool = False

    @classmethod
    def parse(cls, url: str, base_dir: Path) -> PostgresUrl:
        """Read a URL. Files are relative to a directory.

        Raises:
            ConfigError: it cannot be used; the message does not show it.
        """
        try:
            parts = urlsplit(url)
        except ValueError:
            _refuse("it cannot be read: percent-encode what is special in user and password")
        options = _options(parts.query)
        credentials, _, servers = parts.netloc.rpartition("@")
        user, _, password = credentials.partition(":")
        if parts.fragment or "@" in credentials:
            _refuse("percent-encode # and @ in user and password (%23, %40)")
        database = unquote(parts.path.removeprefix("/"))
        if "/" in database or not database:
            _refuse("it names no database: postgresql://USER@HOST/DATABASE")
        hosts = tuple(_hosts(options.get("host") or servers))
        default = "disable" if all(_is_local(host) for host, _ in hosts) else "verify-full"
        mode = options.get("sslmode", default)
        if mode not in _MODES:
            _refuse(f"its sslmode is none of {', '.join(_MODES)}")
        schema = options.get("schema", "chatbot")
        if not schema.isidentifier() or not schema.isascii() or schema != schema.lower() or len(schema) > 63:
            _refuse("its schema is no plain name: lower-case letters, digits and _")
        files = {
            name: base_dir / options[name] if name in options else None
            for name in ("passfile", "sslrootcert", "sslcert", "sslkey")
        }
        if files["sslkey"] is not None and files["sslcert"] is None:
            _refuse("it has an sslkey without an sslcert")
        return cls(
            hosts,
            database,
            unquote(user) or None,
            unquote(password) or None,
            files["passfile"],
            schema,
            mode,
            files["sslrootcert"],
            files["sslcert"],
            files["sslkey"],
            _credential(options, mode, hosts, has_password=bool(password), has_user=bool(user)),
            options.get("client_id"),
            _is_allowed(options.get("allow_async_standby", "0")),
        )

    def __str__(self) -> str:
        """The store as logs and errors name it: without user and password."""
        hosts = ",".join(host if port == _PORT else f"{host}:{port}" for host, port in self.hosts)
        schema = "" if self.schema == "chatbot" else f"?schema={self.schema}"
        return f"postgresql://{hosts}/{self.database}{schema}"

    @property
    def is_verified(self) -> bool:
        """The server proves who it is, or is this machine."""
        return self.sslmode == "verify-full" or all(_is_local(host) for host, _ in self.hosts)

    def tls(self) -> ssl.SSLContext | None:
        """Return the TLS context of connections; None without TLS. Reads files.

        Raises:
            ConfigError: a file cannot be used.
        """
        if self.sslmode == "disable":
            return None
        try:
            context = ssl.create_default_context(cafile=self.root_certificate)
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            _refuse(f"a file of certificates or keys cannot be used: {error.strerror or error}")
        context.check_hostname = self.sslmode == "verify-full"
        if self.sslmode == "require":
            context.verify_mode = ssl.CERT_NONE
        return context


def _refuse(problem: str) -> NoReturn:
    msg = f"the postgresql:// URL of the store cannot be used: {problem}"
    raise ConfigError(msg) from None  # what was caught may quote the URL


def _options(query: str) -> dict[str, str]:
    try:
        found = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError:
        _refuse("its options are not NAME=VALUE, joined by &")
    for name, value in found:
        if name not in _OPTIONS:
            shown = "" if "@" in query else f" {name!r}"  # with an @, it may be the rest of a password
            _refuse(f"it has an unknown option{shown}: known are {', '.join(_OPTIONS)}")
        if not value:
            _refuse(f"its option {name} has no value")
    if len(dict(found)) < len(found):
        _refuse("it has an option twice")
    return dict(found)


def _credential(
    options: dict[str, str], mode: str, hosts: tuple[tuple[str, int], ...], *, has_password: bool, has_user: bool
) -> str | None:
    if "auth" not in options:
        if "credential" in options or "client_id" in options:
            _refuse("its credential and client_id are for auth=entra")
        return None
    if options["auth"] != "entra":
        _refuse("its auth is not entra; without it, the password or a certificate is used")
    if has_password or "passfile" in options:
        _refuse("it has a password beside auth=entra, where a token is the password")
    if not has_user:
        _refuse("auth=entra needs the name of the database user: postgresql://USER@HOST/DATABASE?auth=entra")
    if mode not in ("verify-full", "verify-ca") and not all(_is_local(host) for host, _ in hosts):
        _refuse("auth=entra sends a token, which only a verified server may see: use sslmode=verify-full")
    credential = options.get("credential", "default")
    if credential not in CREDENTIALS:
        _refuse(f"its credential is none of {', '.join(CREDENTIALS)}")
    return credential


def _is_allowed(value: str) -> bool:
    if value not in ("0", "1"):
        _refuse("its allow_async_standby is neither 0 nor 1")
    return value == "1"


def _hosts(servers: str) -> Iterator[tuple[str, int]]:
    for server in servers.split(",") if servers else []:
        host, colon, port = server.rpartition(":")
        if not colon or server.endswith("]") or server.startswith("/"):
            host, port = server, str(_PORT)
        if not port.isdecimal() or not 0 < int(port) < 65_536:
            _refuse("a port is not a number from 1 to 65535")
        host = unquote(host).removeprefix("[").removesuffix("]")
        if not host:
            _refuse("a host has no name")
        yield host, int(port)
    if not servers:
        _refuse("it names no host: postgresql://USER@HOST/DATABASE (or ?host=/run/postgresql for a socket)")


def _is_local(host: str) -> bool:
    """Return whether a host is this machine: what is sent there is on no network."""
    if host.startswith("/") or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
