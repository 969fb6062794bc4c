"""`chatbot emulator`: an emulator of Azure Communication Services Chat on this machine, for any SDK."""

from __future__ import annotations

import base64
import dataclasses
import json as jsonlib
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import anyio
from cyclopts import App, Parameter, validators

from chatbot.emulator import (
    DataFileError,
    Emulator,
    Faults,
    PortTakenError,
    Quirks,
    Running,
    SeedError,
    SnapshotError,
    World,
    event_grid,
    load_seed,
    persist,
    plant_seed,
    serve,
)
from chatbot.emulator.snapshots import find

EXIT_USAGE = 2
EXIT_UNAVAILABLE = 69
EXIT_CONFIG = 78


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class AddressOptions:
    """Where the emulator listens, and how others reach it."""

    host: Annotated[str, Parameter(help="Address to listen on; use 0.0.0.0 in a container.")] = "127.0.0.1"
    port: Annotated[
        int,
        Parameter(validator=validators.Number(gte=0, lte=65535), help="Port to listen on; 0 picks a free one."),
    ] = 0
    tls: Annotated[bool, Parameter(help="Serve https, and plain http on loopback in addition.")] = False
    public_host: Annotated[
        str | None,
        Parameter(help="NAME or NAME:PORT that clients connect to; used in certificate, links and connection string."),
    ] = None
    certificates: Annotated[
        Path | None, Parameter(help="Directory of the certificate authority; by default the user's data directory.")
    ] = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ContentOptions:
    """What the emulated resource holds when it starts, and where that is kept."""

    data: Annotated[
        Path | None, Parameter(help="File that stores the state; without one, the state is lost when the process ends.")
    ] = None
    seed: Annotated[
        Path | None, Parameter(help="YAML file of users, threads and messages to create if there are none yet.")
    ] = None
    snapshot: Annotated[
        str | None,
        Parameter(
            help="Snapshot to begin with, if there are no threads yet: a name, or a file that ends in .snapshot."
        ),
    ] = None
    snapshots: Annotated[
        Path | None, Parameter(help="Directory of named snapshots; in the user's data directory by default.")
    ] = None
    access_key: Annotated[
        str | None,
        Parameter(
            env_var="CHATBOT_EMULATOR_KEY",
            help="The resource's key (base64), so that a connection string can be written down; others on this machine "
            "see what is given here, but not the environment nor a file.",
        ),
    ] = None
    access_key_file: Annotated[Path | None, Parameter(help="File that holds the key.")] = None

    def read_key(self) -> str | None:
        """Return the access key, from the file if there is one; None if neither is given.

        Raises:
            ValueError: The file cannot be read, or the key is not base64.
        """
        key = self.access_key if self.access_key_file is None else _read_key(self.access_key_file)
        try:
            base64.b64decode(key or "", validate=True)
        except ValueError:
            msg = "the access key is not base64"
            raise ValueError(msg) from None
        return key

    async def put_into(self, emulator: Emulator, access_key: str | None) -> None:
        """Set the key, and load the snapshot and plant the seed unless there are threads already."""
        world = emulator.world
        if access_key is not None and access_key != world.resource.access_key:
            world.state.put(dataclasses.replace(world.resource, access_key=access_key))
        emulator.snapshots = self.snapshots
        is_empty = not world.state.rooms
        if self.snapshot is not None and is_empty:
            await emulator.load_snapshot(find(self.snapshot, self.snapshots))
        if self.seed is not None:
            document = load_seed(self.seed)
            if is_empty:
                plant_seed(emulator, document)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class BehaviorOptions:
    """How the emulated service behaves."""

    entra: Annotated[
        bool,
        Parameter(
            negative="", help="Accept tokens that this emulator issued in place of Microsoft Entra ID's, and print one."
        ),
    ] = False
    quotas: Annotated[bool, Parameter(help="Enforce the service's rate limits.")] = True
    quirk: Annotated[
        list[str] | None,
        Parameter(
            negative="",
            help="NAME=VALUE: select a behavior where that of the service is unknown; --list-quirks shows all.",
        ),
    ] = None
    quirks: Annotated[
        Path | None,
        Parameter(help="YAML file of quirks, as `chatbot doctor --probe` writes it; --quirk overrides it."),
    ] = None
    list_quirks: Annotated[bool, Parameter(negative="", help="List all quirks with their values and exit.")] = False
    fault: Annotated[
        list[str] | None,
        Parameter(
            negative="",
            help="OPERATION:KIND[=VALUE][,NAME=VALUE…], as in send_message:503,probability=0.1 or *:latency=0.2.",
        ),
    ] = None
    fault_seed: Annotated[int, Parameter(help="Seed of the random faults, to make them repeatable.")] = 0
    event_grid: Annotated[
        str | None,
        Parameter(name="--event-grid", help="URL that chat events are posted to, after a validation request."),
    ] = None

    def emulator(self) -> Emulator:
        """Return an emulator that behaves so.

        Raises:
            ValueError: There is no such quirk or fault, or the file of quirks cannot be used.
        """
        base = Quirks.load(self.quirks) if self.quirks is not None else None
        world = World(quirks=Quirks.parse(self.quirk or [], base))
        faults = Faults(self.fault or [], seed=self.fault_seed)
        return Emulator(world, quotas=self.quotas, faults=faults, entra=self.entra)


async def emulator(
    *,
    address: AddressOptions = AddressOptions(),
    content: ContentOptions = ContentOptions(),
    behavior: BehaviorOptions = BehaviorOptions(),
    playground: Annotated[
        bool,
        Parameter(
            negative="", help="Serve a page on loopback for acting as users of the emulator, and print its link."
        ),
    ] = False,
    json: Annotated[bool, Parameter(negative="", help="Print one JSON object instead of text.")] = False,
) -> int:
    """Serve an emulator of Azure Communication Services Chat and Identity.

    Any SDK of the service, in any language, works with the connection string it prints. Ctrl-C or SIGTERM stops it.
    Tests control and observe it under /emulator/ with the access key as bearer token.
    """
    if behavior.list_quirks:
        print("\n".join(f"{name}={values}\n    {meaning}" for name, values, meaning in Quirks.describe()))
        return 0
    try:
        emulator, access_key = behavior.emulator(), content.read_key()
    except ValueError as error:
        return _fail(f"{error}.", EXIT_USAGE)
    try:
        with persist(emulator.world, content.data) if content.data is not None else nullcontext():
            await content.put_into(emulator, access_key)
            webhook = behavior.event_grid
            async with (
                _stopping() as stopped,
                serve(emulator, **vars(address)) as running,
                event_grid(emulator, webhook) if webhook else nullcontext(),
                _page(emulator) if playground else nullcontext("") as link,
            ):
                print(_as_json(running, link) if json else _as_text(running, content.data, link), flush=True)
                await stopped()
    except SeedError as error:
        return _fail(f"The seed cannot be used: {error}.", EXIT_CONFIG)
    except SnapshotError as error:
        return _fail(f"The snapshot cannot be used: {error}.", EXIT_CONFIG)
    except PortTakenError as error:
        advice = "Choose another with --port, or --port 0 for any free one."
        return _fail(f"The emulator cannot start: {error.strerror}. {advice}", EXIT_UNAVAILABLE)
    except (DataFileError, OSError) as error:
        return _fail(f"The emulator cannot start: {error}.", EXIT_UNAVAILABLE)
    return 0


def _read_key(file: Path) -> str:
    from chatbot.config.file import (
        UnreadableError,
        read_secret,
    )  # imported here, because only --data or --seed needs it

    try:
        return read_secret(file)
    except UnreadableError as error:
        msg = f"{file}: {error}"
        raise ValueError(msg) from None


def _fail(sentence: str, code: int) -> int:
    print(sentence, file=sys.stderr)
    return code


@asynccontextmanager
async def _stopping() -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """Catch SIGINT and SIGTERM while the block runs; the yielded function waits for one of them."""
    with ExitStack() as stack:
        wait: Callable[[], Awaitable[object]] = anyio.sleep_forever
        # On Windows loops cannot catch signals; Ctrl-C arrives as KeyboardInterrupt there.
        with suppress(NotImplementedError):
            signals = stack.enter_context(anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM))
            wait = signals.__anext__
        yield wait


@asynccontextmanager
async def _page(emulator: Emulator) -> AsyncIterator[str]:
    """Serve the playground; its link and the names of new people last as long as the process."""
    from chatbot.playground import Notes, Playground, serve_playground

    people: dict[str, str] = {}
    notes = Notes(people=lambda: dict(people), save_people=people.update, save_offset=lambda _offset: None)
    page = Playground(emulator, bots=None, stories=None, notes=notes, quirks=list(Quirks.describe()))
    async with serve_playground(page, token=secrets.token_urlsafe(32)) as link:
        yield link


def _as_json(running: Running, link: str) -> str:
    ca_file = str(running.ca_file) if running.ca_file else None
    facts = {"endpoint": running.endpoint, "connection_string": running.connection_string, "ca_file": ca_file}
    if running.emulator.takes_entra:
        facts["entra_token"] = running.emulator.entra_token()
    if link:
        facts["playground"] = link
    return jsonlib.dumps(facts)


def _as_text(running: Running, data: Path | None, link: str) -> str:
    lines = [
        "The emulator of Azure Communication Services Chat is running.",
        "",
        f"  endpoint           {running.endpoint}",
        f"  connection string  {running.connection_string}",
    ]
    if running.emulator.takes_entra:
        lines.append(f"  entra token        {running.emulator.entra_token()}  (24 hours)")
    if running.ca_file is not None:
        lines.append(f"  ca file            {running.ca_file}")
        lines.append(f"  plain http         {running.http_endpoint}  (this machine only)")
    lines.append(f"  state              {data or 'in memory'}")
    if link:
        lines.append(f"  playground         {link}  (this machine only)")
    if running.ca_file is not None:
        lines += [
            "",
            "Make clients trust the ca file: SSL_CERT_FILE (Python aio), REQUESTS_CA_BUNDLE (Python sync),",
            "NODE_EXTRA_CA_CERTS (Node).",
        ]
    else:
        lines += ["", "SDKs use https with a connection string: start the emulator with --tls for them."]
    return "\n".join([*lines, "", "Ctrl-C stops it."])


command = App(name="emulator", help_epilogue="")
"""The command with its subcommands, which control an emulator that runs."""

command["--help"].group = "Options"
command.default(emulator)
_snapshot = App(
    name="snapshot",
    help="Save and load the state of a running emulator under a name.\n\nUsers, threads, messages and receipts; not "
    "the access key, quirks and faults.",
    help_epilogue="",
)
_snapshot["--help"].group = "Options"
for _position, (_name, _function, _help) in enumerate(
    (
        ("save", "save", "Save the state, in place of an earlier snapshot of this name."),
        ("load", "load", "Replace the whole state by a snapshot. Tokens of users that both have stay valid."),
        ("list", "list_snapshots", "List the snapshots."),
    )
):
    _snapshot.command(f"chatbot.cli.snapshot:{_function}", name=_name, help=_help, sort_key=_position, help_epilogue="")
command.command(_snapshot)
