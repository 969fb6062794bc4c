"""`chatbot doctor`: looks at everything that bots need, and says of each what is wrong and what to do."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import anyio

from chatbot.cli.boundary import EXIT_CONFIG, EXIT_UNAVAILABLE
from chatbot.cli.options import BOTS_YAML, ConfigFile, Format
from chatbot.config import Config, ServiceConfig, load_config
from chatbot.config.place import printable
from chatbot.errors import ChatbotError, ConfigError
from chatbot.runtime.asking import ask, find_daemon
from chatbot.runtime.checkup import access, daemon, emulator, memory, network, packages
from chatbot.runtime.checkup.finding import Finding, State, failed, misconfigured, ok, warning
from chatbot.runtime.connection import Connection
from chatbot.runtime.control import ControlDirectory, RunInfo
from chatbot.runtime.known_bots import KnownBot, published, remembered
from chatbot.runtime.logs import logging_to
from chatbot.runtime.plugins import load_plugins
from chatbot.stores import visit_store
from chatbot.stores.examination import Examination, examine

_SIGNS: Final = {State.OK: "✓", State.WARNING: "!", State.FAILED: "✗"}
_PLAIN_SIGNS: Final = {State.OK: "+", State.WARNING: "!", State.FAILED: "x"}


def doctor(config: ConfigFile = BOTS_YAML, /, *, format: Format = "text") -> int:
    """Look at everything that bots need, and say what to do."""
    with logging_to(sys.stderr, format="console", level="error"):
        visit = _Visit(config)
        for finding in visit.findings():
            visit.found.append(finding)
            if format == "text":
                print("\n".join(_lines(finding)), flush=True)
    if format == "json":
        print(json.dumps({"findings": [_as_json(one) for one in visit.found], "is_well": not visit.ills}, indent=2))
    else:
        print(_verdict(visit))
    if not visit.ills:
        return 0
    return EXIT_CONFIG if any(one.is_configuration for one in visit.ills) else EXIT_UNAVAILABLE


@dataclass(slots=True)
class _Visit:
    """One round; everything is looked at as far as what came before allows it."""

    config: Path
    found: list[Finding] = field(default_factory=list)

    @property
    def ills(self) -> list[Finding]:
        return [one for one in self.found if one.state is State.FAILED]

    def findings(self) -> Iterator[Finding]:
        problems: tuple[str, ...] = ()
        settings = None
        try:
            settings = load_config(self.config, os.environ)
        except ConfigError as error:
            problems = error.problems
        yield from packages.look(extras=_extras(settings))
        if settings is None:
            yield from (misconfigured("configuration", problem) for problem in problems)
            yield warning("service", "not looked at, nor is the store: bots.yaml says which they are")
            return
        yield ok("configuration", f"{self.config}, {_counted(len(settings.bots), 'bot')}")
        yield from _plugins(settings)
        yield from self._world(settings)

    def _world(self, config: Config) -> Iterator[Finding]:
        control = ControlDirectory(config.directory)
        try:
            address = find_daemon(control, self.config)
            status = None if address is None else anyio.run(ask, address, {"ask": "status"})
            info = None if address is None else control.running()
        except (ChatbotError, OSError) as error:
            yield failed("bots", str(error))
            status, info = None, None
        else:
            yield from daemon.look(status, control)
        store = examine(config.store.get_secret_value(), base_dir=config.directory)
        yield from memory.look(config, store, is_running=info is not None)
        yield from _service(config, info, store)


def _extras(config: Config | None) -> list[str]:
    is_entra = config is not None and isinstance(config.service, ServiceConfig) and config.service.entra is not None
    return ["entra"] if is_entra else []


def _plugins(config: Config) -> Iterator[Finding]:
    try:
        plugins = load_plugins(config)
    except ConfigError as error:
        yield from (misconfigured("plugins", problem) for problem in error.problems)
        return
    loaded = [one for each in plugins.values() for one in each]
    handlers = sum(len(list(one.handlers())) for one in loaded)
    yield ok("plugins", f"{_counted(len(loaded), 'plugin')}, {_counted(handlers, 'handler')}")


def _service(config: Config, info: RunInfo | None, store: Examination) -> Iterator[Finding]:
    """The way to the service, and whether it lets us in."""
    if info is None and config.uses_emulator:
        yield from emulator.look(config)
        return
    try:
        connection = _connection(config, info)
        bots = _bots(config, info, connection, store)
    except ConfigError as error:
        yield from (misconfigured("service", problem) for problem in error.problems)
        return
    where = "the emulator, at " if config.uses_emulator else ""
    yield ok("service", f"{where}{connection.endpoint}, {connection.way}")
    way = anyio.run(network.look, connection.endpoint, connection.ca_file)
    yield from way
    if any(one.state is State.FAILED and one.subject != "clock" for one in way):
        yield warning("token", "not looked at: there is no way to the service")
        return
    yield from anyio.run(access.look, connection, bots)


def _connection(config: Config, info: RunInfo | None) -> Connection:
    if info is not None and info.connection_string is not None:
        return Connection.to_running(info)
    return Connection.of(config)


def _bots(config: Config, info: RunInfo | None, connection: Connection, found: Examination) -> Sequence[KnownBot]:
    """Who the bots are; of those whom only a store knows that cannot be visited, nothing is known."""
    if info is not None:
        return list(published(info, config.bots).values())
    url = config.store.get_secret_value()
    store = visit_store(url, base_dir=config.directory) if found.can_be_visited else None
    return list(anyio.run(remembered, config, connection, store).values())


# ── for people and programs ───────────────────────────────────────────────────────────────────────────────────────


def _lines(finding: Finding) -> Iterator[str]:
    signs = _SIGNS if _can_show("✓✗") else _PLAIN_SIGNS
    first, *rest = finding.text.splitlines() or [""]
    yield f"{signs[finding.state]} {finding.subject:<13} {printable(first)}"
    yield from (f"  {'':<13} {printable(line)}" for line in rest)
    if finding.remedy is not None:
        yield (
            f"  {'':<13} → {printable(finding.remedy)}" if _can_show("→") else f"  {'':<13} {printable(finding.remedy)}"
        )


def _can_show(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _verdict(visit: _Visit) -> str:
    warnings = sum(one.state is State.WARNING for one in visit.found)
    more = f", {_counted(warnings, 'warning')}" if warnings else ""
    return f"\n{_counted(len(visit.ills), 'problem')}{more}." if visit.ills else f"\nAll is well{more}."


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _as_json(finding: Finding) -> Mapping[str, Any]:
    return {"subject": finding.subject, "state": finding.state, "text": finding.text, "remedy": finding.remedy}
