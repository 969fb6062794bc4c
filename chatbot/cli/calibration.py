"""`chatbot doctor --probe`: asks a resource of one's own what is not documented, with throw-away users and threads."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import anyio

from chatbot.calibration import report
from chatbot.calibration.calibrate import Group, ProbeResult, chosen, clean_up, plan, probe
from chatbot.calibration.intents import IntentJournal
from chatbot.calibration.scene import Meter
from chatbot.cli.boundary import EXIT_UNAVAILABLE
from chatbot.config import Config, load_config
from chatbot.config.source_location import printable
from chatbot.errors import ConfigError, StateError
from chatbot.runtime.connection import Connection
from chatbot.runtime.control_client import find_daemon
from chatbot.runtime.run_directory import ControlDirectory
from chatbot.service.raw_requests import MeteredTransport
from chatbot.service.transport import open_transport

JOURNAL = Path(".chatbot") / "probe.jsonl"


@dataclass(frozen=True, slots=True)
class ProbeOptions:
    """The options of `chatbot doctor --probe`.

    Args:
        config: the bots.yaml that names the resource.
        only: the names of the groups to run; all if empty.
        skip: the names of groups to leave out.
        yes: do not ask.
        quirks: where to write the quirks.
        report: where to write the report; None for nowhere.
        journal: records what is created; None for `.chatbot/probe.jsonl` beside bots.yaml.
        format: of what is printed.
    """

    config: Path
    only: Sequence[str]
    skip: Sequence[str]
    yes: bool
    quirks: Path
    report: Path | None
    journal: Path | None
    format: Literal["text", "json"]


def run_probe(options: ProbeOptions) -> int:
    """Say what will be done, ask, probe, and write what was found."""
    groups = chosen(options.only, options.skip)
    config = load_config(options.config, os.environ)
    connection = _connection(config)
    print("\n".join(plan(groups, connection.endpoint)), file=sys.stderr)
    if not _agreed(is_asked=not options.yes):
        return EXIT_UNAVAILABLE
    journal = IntentJournal(options.journal or config.directory / JOURNAL)
    result = anyio.run(_probe, connection, journal, groups)
    now = time.time()
    _write(options.quirks, report.quirks_yaml(result, now))
    document = report.document(result, now)
    if options.report is not None:
        _write(options.report, json.dumps(document, indent=2) + "\n")
    if options.format == "json":
        print(json.dumps(document, indent=2))
    else:
        print("\n".join(printable(line) for line in report.lines(result)))
        print(
            f"\nThe quirks are in {options.quirks}: give it to `chatbot emulator --quirks`, to `emulator: quirks:` in"
        )
        print("bots.yaml, or to chat(quirks=…) in tests.")
    return _say_left(result.left, journal)


def run_cleanup(config_file: Path, journal_file: Path | None) -> int:
    """Delete the users and threads of a probe that was killed."""
    config = load_config(config_file, os.environ)
    path = journal_file or config.directory / JOURNAL
    if not path.exists():
        print(f"There is nothing to clean up: {path} does not exist.")
        return 0
    journal = IntentJournal(path)
    code = _say_left(anyio.run(_clean_up, _connection(config), journal), journal)
    if code == 0:
        users, threads = len(journal.users), sum(len(one.gone - {"none"}) for one in journal.threads.values())
        gone = f"{users} user{'s'[: users != 1]}, {threads} thread{'s'[: threads != 1]}"
        print(f"Everything that the probe created is deleted: {gone}.")
    return code


def _connection(config: Config) -> Connection:
    """Return the connection to the resource that bots.yaml names, or to the emulator of the running bots."""
    control = ControlDirectory(config.directory)
    info = control.running() if config.uses_emulator and find_daemon(control, config.path) is not None else None
    if info is not None:
        return Connection.to_running(info)
    if config.uses_emulator:
        msg = "bots.yaml names the emulator, and no bots run: name a resource as `service:`, or start `chatbot run`"
        raise StateError(msg)
    connection = Connection.of(config)
    if not connection.can_issue_tokens:
        msg = "the probe creates users of its own: it needs the resource's access key, or Microsoft Entra ID"
        raise ConfigError(msg)
    return connection


def _agreed(*, is_asked: bool) -> bool:
    """Whether the person writes `yes`; where nobody can be asked, only `--yes` agrees."""
    if not is_asked:
        return True
    if sys.stdin is None or not sys.stdin.isatty():
        print("chatbot doctor: nobody is here to be asked; give --yes to probe", file=sys.stderr)
        return False
    print("\nWrite yes to begin: ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() == "yes":
        return True
    print("Nothing was done.", file=sys.stderr)
    return False


async def _probe(connection: Connection, journal: IntentJournal, groups: Sequence[Group]) -> ProbeResult:
    meter = Meter(time.monotonic)
    async with (
        open_transport(connection.trusted_file) as transport,
        connection.open(MeteredTransport(transport, meter.take)) as resource,
    ):
        return await probe(resource, journal, meter, groups, tell=lambda line: _progress(meter, line))


async def _clean_up(connection: Connection, journal: IntentJournal) -> list[str]:
    async with connection.open() as resource:
        return await clean_up(resource, journal)


def _progress(meter: Meter, line: str) -> None:
    print(f"{meter.seconds:4.0f} s  {meter.count:3d} requests  {line}", file=sys.stderr, flush=True)


def _say_left(left: Sequence[str], journal: IntentJournal) -> int:
    for line in left:
        print(f"chatbot doctor: not deleted: {printable(line)}", file=sys.stderr)
    if journal.is_settled:
        return 0
    print(f"chatbot doctor: run `chatbot doctor --cleanup` again; the journal is {journal.path}", file=sys.stderr)
    return EXIT_UNAVAILABLE


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        msg = f"{path} cannot be written: {error.strerror}; name another file"
        raise StateError(msg) from error
