"""`chatbot emulator snapshot`: save and load the state of a running emulator under a name."""

from __future__ import annotations

import json
import os
import ssl
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from chatbot.cli.options import BOTS_YAML, Format
from chatbot.cli.output import table
from chatbot.config import load_config
from chatbot.emulator.server import default_directory
from chatbot.emulator.snapshots import SnapshotError, path_of
from chatbot.errors import StateError
from chatbot.runtime.connection import Connection
from chatbot.runtime.control_client import find_daemon
from chatbot.runtime.run_directory import ControlDirectory
from chatbot.service.endpoint import ConnectionString
from chatbot.service.transport import tls_context

Config = Annotated[Path, Parameter(help="The bots.yaml of running bots, whose emulator is meant by default.")]
Address = Annotated[
    str | None,
    Parameter(
        name="--connection-string",
        env_var="CHATBOT_EMULATOR",
        help="The connection string that `chatbot emulator` printed; with it, no bots.yaml is read.",
    ),
]
Name = Annotated[str, Parameter(help="Letters, digits, dots, dashes and underscores.")]


def save(name: Name, /, *, config: Config = BOTS_YAML, address: Address = None) -> int:
    """Save the state of a running emulator."""
    found = _ask("PUT", _path(name), config, address)
    print(f"Saved {name}: {_counts(found)}.")
    return 0


def load(name: Name, /, *, config: Config = BOTS_YAML, address: Address = None) -> int:
    """Replace the state of a running emulator by a snapshot."""
    found = _ask("POST", _path(name), config, address)
    print(f"Loaded {name}: {_counts(found)}.")
    return 0


def list_snapshots(*, config: Config = BOTS_YAML, address: Address = None, format: Format = "text") -> int:
    """List the snapshots that a running emulator can load."""
    found = _ask("GET", "snapshots", config, address)["snapshots"]
    if format == "json":
        print(json.dumps(found, indent=2))
        return 0
    rows = [(one["name"], _moment(one["saved"]), f"{one['bytes']} bytes") for one in found]
    print("\n".join(table(("NAME", "SAVED", "SIZE"), rows)) if rows else "There are no snapshots.")
    return 0


def _path(name: str) -> str:
    """The path of a snapshot.

    Raises:
        StateError: it is no name; parts of it would be no part of the path.
    """
    try:
        path_of(name)
    except SnapshotError as error:
        raise StateError(str(error)) from None
    return f"snapshots/{name}"


def _counts(found: dict[str, Any]) -> str:
    topics = ", ".join(found["threads"]) or "no thread"
    count = len(found["users"])
    return f"{count} {'person' if count == 1 else 'people'} by name; {topics}"


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _ask(method: str, path: str, config: Path, address: str | None) -> Any:
    endpoint, key, ca_file = _emulator(config, address)
    request = urllib.request.Request(  # noqa: S310 -- checked: http or https
        f"{endpoint}/emulator/{path}", headers={"Authorization": f"Bearer {key}"}, method=method
    )
    handlers: list[Any] = [urllib.request.ProxyHandler({})]
    if endpoint.startswith("https:"):
        handlers.append(urllib.request.HTTPSHandler(context=tls_context(ca_file)))
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=60) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise StateError(_refusal(error, endpoint)) from None
    except (OSError, ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", error)
        msg = f"the emulator at {endpoint} does not answer: {reason}; is it running, and is it an emulator?"
        raise StateError(msg) from None


def _refusal(error: urllib.error.HTTPError, endpoint: str) -> str:
    if error.code == 401:
        return f"the emulator at {endpoint} has another access key: copy its connection string again"
    try:
        return str(json.load(error)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"{endpoint} answered {error.code}: is it an emulator?"


def _emulator(config: Path, address: str | None) -> tuple[str, str, Path | None]:
    """Return endpoint, key and certificate authority of the emulator that is meant.

    Raises:
        ConfigError: the connection string is none.
        StateError: no bots run on an emulator.
    """
    if address is not None:
        known = ConnectionString.parse(address)
        authority = default_directory() / "ca.pem"
        return known.endpoint, known.access_key, authority if authority.exists() else None
    settings = load_config(config, os.environ)
    control = ControlDirectory(settings.directory)
    info = control.running() if settings.uses_emulator and find_daemon(control, config) is not None else None
    if info is None:
        msg = "no bots run on an emulator here: give --connection-string, as `chatbot emulator` printed it"
        raise StateError(msg)
    connection = Connection.to_running(info)
    return connection.endpoint, connection.access_key or "", connection.trusted_file
