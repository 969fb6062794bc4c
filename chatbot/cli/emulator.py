"""`chatbot emulator`: Azure Communication Services Chat on your own machine, for any SDK."""

from __future__ import annotations

import contextlib
import json as jsonlib
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Annotated

import anyio
from cyclopts import Parameter

from chatbot.emulator import DataFileError, Emulator, PortTakenError, Running, World, kept, serve

EXIT_UNAVAILABLE = 69


async def emulator(
    *,
    host: Annotated[str, Parameter(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="Port to listen on; 0 picks a free one.")] = 0,
    tls: Annotated[bool, Parameter(help="Serve https (and plain http beside it, on loopback).")] = False,
    data: Annotated[
        Path | None, Parameter(help="File that keeps the state; without it, it ends with the process.")
    ] = None,
    json: Annotated[bool, Parameter(negative="", help="Print one JSON object instead of words.")] = False,
) -> int:
    """Serve an emulator of Azure Communication Services Chat and Identity.

    Any SDK of the service, in any language, works with the connection string it prints. Ctrl-C or SIGTERM end it.
    """
    world = World()
    try:
        with kept(world, data) if data is not None else contextlib.nullcontext():
            async with _stopping() as stopped, serve(Emulator(world), host=host, port=port, tls=tls) as running:
                print(_as_json(running) if json else _as_text(running, data), flush=True)
                await stopped()
    except (PortTakenError, DataFileError) as error:
        print(_explain(error), file=sys.stderr)
        return EXIT_UNAVAILABLE
    except OSError as error:
        print(f"The emulator cannot listen on {host} port {port}: {error.strerror or error}.", file=sys.stderr)
        return EXIT_UNAVAILABLE
    return 0


def _explain(error: Exception) -> str:
    if isinstance(error, PortTakenError):
        return f"The emulator cannot start: {error.strerror}. Choose another with --port, or --port 0 for any free one."
    return f"The emulator cannot start: {error}."


@contextlib.asynccontextmanager
async def _stopping() -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """Catch SIGINT and SIGTERM within the block; what it yields waits for one."""
    with contextlib.ExitStack() as stack:
        wait: Callable[[], Awaitable[object]] = anyio.sleep_forever
        # On Windows loops cannot catch signals; Ctrl-C arrives as KeyboardInterrupt there.
        with contextlib.suppress(NotImplementedError):
            signals = stack.enter_context(anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM))
            wait = signals.__anext__
        yield wait


def _as_json(running: Running) -> str:
    ca_file = str(running.ca_file) if running.ca_file else None
    facts = {"endpoint": running.endpoint, "connection_string": running.connection_string, "ca_file": ca_file}
    return jsonlib.dumps(facts)


def _as_text(running: Running, data: Path | None) -> str:
    lines = [
        "The emulator of Azure Communication Services Chat is running.",
        "",
        f"  endpoint           {running.endpoint}",
        f"  connection string  {running.connection_string}",
    ]
    if running.ca_file is not None:
        lines.append(f"  ca file            {running.ca_file}")
        lines.append(f"  plain http         {running.http_endpoint}  (this machine only)")
    lines.append(f"  state              {data or 'in memory'}")
    if running.ca_file is not None:
        lines += [
            "",
            "Let clients trust it with the ca file: SSL_CERT_FILE (Python aio), REQUESTS_CA_BUNDLE (Python sync),",
            "NODE_EXTRA_CA_CERTS (Node).",
        ]
    else:
        lines += ["", "Connection strings of the SDKs mean https: start with --tls for clients made from one."]
    return "\n".join([*lines, "", "Ctrl-C stops it."])
