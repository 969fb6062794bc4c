"""`chatbot check`: validate a bots.yaml, its plugins and its store, and summarize what they contain.

It starts nothing and changes nothing.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import anyio
from cyclopts import Parameter

from chatbot.cli.boundary import EXIT_CONFIG
from chatbot.cli.daemon_client import stored_identities
from chatbot.cli.options import BOTS_YAML, ConfigFile, Format
from chatbot.cli.output import as_json, counted, exit_code, lines
from chatbot.config import BotConfig, Config, ServiceConfig
from chatbot.config.load import Examined, examine, in_order
from chatbot.config.source_location import Problem, SourceLocation, SourceText, masked, printable
from chatbot.dispatch.handler import Handler
from chatbot.dispatch.source_location import location
from chatbot.distribution import shadowed, shadowing_path
from chatbot.durations import format_duration
from chatbot.errors import ChatbotError, ConfigError, StoreError
from chatbot.http_listener import bind_tcp
from chatbot.plugin import Plugin
from chatbot.plugin.lint import findings, mistakes, unawaited
from chatbot.runtime.compatibility import Incompatibility, incompatibilities
from chatbot.runtime.connection import Connection
from chatbot.runtime.control_client import find_daemon
from chatbot.runtime.doctor.finding import Finding, FindingState, failed, misconfigured, ok, warning
from chatbot.runtime.doctor.reachability import check_service
from chatbot.runtime.doctor.storage import check_identities, check_store
from chatbot.runtime.logs import logging_to
from chatbot.runtime.plugins import Plugins, examine_plugins
from chatbot.runtime.run_directory import ControlDirectory, RunInfo
from chatbot.stores import MemoryStore
from chatbot.stores import backup as backups
from chatbot.stores.copying import copy_in_memory
from chatbot.stores.probe import StoreProbe
from chatbot.stores.probe import probe_store as examine_store

Summary = Mapping[str, Any]
"""JSON data without secrets."""


MAX_COMPARED_BYTES: Final = 512 * 1024 * 1024
"""Larger stores are not compared with the code, as a copy in memory is compared."""


def summarize(config: Config, plugins: Plugins) -> Summary:
    """Summarize a valid configuration.

    Args:
        plugins: from `load_plugins`.
    """
    return {
        "files": list(config.files),
        "service": _service(config),
        "store": "(secret)" if config.document.is_secret(("store",)) else masked(config.store.get_secret_value()),
        "bots": [{"name": name, **_bot(bot, plugins[name])} for name, bot in config.bots.items()],
    }


def summary_lines(summary: Summary, verdict: str) -> Iterator[str]:
    """Yield the summary as lines of text.

    Args:
        verdict: the overall result, in a few words.
    """
    first, *others = summary["files"]
    yield f"{first}: {verdict}, {counted(len(summary['bots']), 'bot')}"
    yield ""
    if others:
        yield f"files    {printable(', '.join(summary['files']))}"
    yield f"service  {summary['service']}"
    yield f"store    {summary['store']}"
    for bot in summary["bots"]:
        yield ""
        yield f"{bot['name']}  {_settings(bot)}"
        for plugin in bot["plugins"]:
            yield f"  {plugin['name']}  {plugin['file']}"
            width = max((len(one["what"]) for one in plugin["handlers"]), default=0)
            if not plugin["handlers"]:
                yield "    no handlers: is a decorator missing?"
            yield from (f"    {one['what']:<{width}}  {one['place']}" for one in plugin["handlers"])


def _settings(bot: Mapping[str, Any]) -> str:
    name = f'"{printable(bot["display_name"])}"  ' if bot["display_name"] else ""
    threads = "all threads" if bot["threads"] == "all" else counted(len(bot["threads"]), "thread")
    poll = f"{bot['poll']['interval']} to {bot['poll']['idle']}"
    return f"{name}{threads}, history {bot['history']}, ack {bot['ack']}, poll {poll}"


def _service(config: Config) -> str:
    if config.uses_emulator:
        return "the emulator, in the bots' own process"
    try:
        connection = Connection.of(config)
    except ConfigError:  # reported as a finding
        return config.service.endpoint if isinstance(config.service, ServiceConfig) else ""
    return f"{connection.endpoint}, {connection.authentication}"


def _bot(bot: BotConfig, plugins: tuple[Plugin, ...]) -> dict[str, Any]:
    return {
        "display_name": bot.display_name,
        "threads": bot.threads if isinstance(bot.threads, str) else list(bot.threads),
        "history": bot.history if isinstance(bot.history, str) else format_duration(bot.history),
        "ack": bot.ack,
        "poll": {"interval": format_duration(bot.poll.interval), "idle": format_duration(bot.poll.idle)},
        "plugins": [_plugin(plugin) for plugin in plugins],
    }


def _plugin(plugin: Plugin) -> dict[str, Any]:
    file = plugin.place.rpartition(":")[0]
    return {"name": plugin.name, "file": file, "handlers": [_handler(handler) for handler in plugin.handlers()]}


def _handler(handler: Handler) -> dict[str, str]:
    """Return what triggers a handler, and its place."""
    schedule = handler.registration.schedule
    event = schedule.text if schedule else handler.registration.event.__name__
    what = handler.info.usage if handler.info else f"{event} → {handler.name.rpartition('.')[2]}"
    return {"handler": handler.name, "what": printable(what), "place": handler.place}


def check(
    config: ConfigFile = BOTS_YAML,
    *,
    online: Annotated[
        bool,
        Parameter(
            negative="", show_default=False, help="Also connect to the service, and request a token for each bot."
        ),
    ] = False,
    without_secrets: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="Accept variables that are not set and secret files that are missing, as in CI.",
        ),
    ] = False,
    format: Format = "text",
) -> int:
    """Check a bots.yaml, its plugins and its store without starting anything."""
    with logging_to(sys.stderr, format="console", level="warning"):
        examined = examine(config, os.environ)
        plugins, problems = _with_plugins(examined, config)
        settings = examined.config
        if without_secrets and settings is None:
            unset, problems = _apart(problems)
            if unset and not problems:
                return _report_unset(config, unset, plugins, format)
        if problems or settings is None:
            return _report_problems(problems, format)
        found = [*_findings(settings, is_online=online), *_incompatible(settings, plugins)]
        summary = summarize(settings, plugins)
    code = exit_code(found)
    if format == "json":
        facts = {"is_right": code == 0, "problems": [], **summary, "findings": [as_json(one) for one in found]}
        print(json.dumps(facts, indent=2))
    else:
        verdict = "no problems found" if code == 0 else "valid, but the bots cannot run (see below)"
        print("\n".join([*summary_lines(summary, verdict), "", *(line for one in found for line in lines(one))]))
    return code


def _apart(problems: Sequence[Problem]) -> tuple[list[str], list[Problem]]:
    """Return the names of values that are unset, and the problems that do not come from them."""
    paths = {problem.path: problem.name for problem in problems if problem.is_unset}
    # What the schema says about a value that is not there, or about one below it, follows from its absence.
    others = [one for one in problems if not any(one.path[: len(path)] == path for path in paths)]
    return list(paths.values()), others


def _report_unset(config: Path, unset: Sequence[str], plugins: Plugins, format: Format) -> int:
    loaded = {name: [_plugin(plugin) for plugin in found] for name, found in plugins.items()}
    if format == "json":
        bots = [{"name": name, "plugins": found} for name, found in loaded.items()]
        print(json.dumps({"is_right": True, "problems": [], "unset": unset, "bots": bots, "findings": []}, indent=2))
        return 0
    handlers = sum(len(plugin["handlers"]) for found in loaded.values() for plugin in found)
    number = sum(map(len, loaded.values()))
    print(f"{config}: no problems found, {counted(number, 'plugin')}, {counted(handlers, 'handler')}")
    print(f"Not checked, because variables or secret files are missing: {', '.join(unset)}; nor is the store.")
    return 0


def _report_problems(problems: Sequence[Problem], format: Format) -> int:
    if format == "text":
        raise ConfigError(*map(str, problems))
    facts = {"is_right": False, "problems": [_as_json(one) for one in problems]}
    print(json.dumps(facts, indent=2))
    return EXIT_CONFIG


def _with_plugins(examined: Examined, path: Path) -> tuple[Plugins, Sequence[Problem]]:
    """Return the plugins and all problems, including those of plugins if bots.yaml itself has errors."""
    document = examined.document
    plugins, wrong = examine_plugins(document, path.absolute().parent, known=examined.problems)
    suspicious = {problem for loaded in plugins.values() for one in loaded for problem in _suspicious_calls(one)}
    for loaded in plugins.values():
        found = mistakes([handler for one in loaded for handler in one.handlers()])
        suspicious |= {Problem(_location(one.file, one.line), (), one.text) for one in found}
    ordered = in_order([*examined.problems, *wrong], document)
    return plugins, [*ordered, *sorted(suspicious, key=lambda one: (one.place.source.name, one.place.line, one.text))]


def _suspicious_calls(plugin: Plugin) -> Iterator[Problem]:
    """Yield code that loads but does not do what its author meant."""
    yield from _nondeterministic_calls(plugin)
    for handler in plugin.handlers():
        for one in unawaited(handler.registration.function, is_dialog=handler.is_dialog):
            text = f"{one.call} is not awaited, so it does nothing; {one.remedy}"
            yield Problem(_location(one.file, one.line), (), text)


def _nondeterministic_calls(plugin: Plugin) -> Iterator[Problem]:
    """Yield calls that would break the replay of a dialog, which ends the dialog when a person answers."""
    for handler in plugin.handlers():
        if not handler.is_dialog:
            continue
        for one in findings(handler.registration.function, handler.needs):
            text = (
                f"{one.call} may return something else when the dialog {handler.name.rpartition('.')[2]} is replayed"
                f" for an answer; {one.remedy}"
            )
            yield Problem(_location(one.file, one.line), (), text)


def _location(file: str, number: int) -> SourceLocation:
    """Return the location of a line of a plugin's source."""
    return SourceLocation(SourceText(location(file, None), ()), number, 0)


def _findings(config: Config, *, is_online: bool) -> Iterator[Finding]:
    """Yield findings about the store and, if online, about access to the service."""
    if (hidden_by := shadowing_path(config.directory)) is not None:
        yield warning("packages", shadowed(hidden_by))
    control = ControlDirectory(config.directory)
    store = examine_store(config.store.get_secret_value(), base_dir=config.directory)
    for one in check_store(config, store, is_running=control.is_held):
        if one.subject != "disk" or one.state is not FindingState.OK:
            yield one
    if config.ca_file and not config.uses_emulator and not (config.directory / config.ca_file).is_file():
        what = "there is no such file; name a PEM file of certificates, or leave it out"
        yield misconfigured("ca_file", config.problem(("ca_file",), what))
    if config.emulator.quirks is not None:
        from chatbot.cli.embedded_emulator import quirks_of  # here, because few bots wait for the emulator

        try:
            quirks_of(config)
        except ConfigError as error:
            yield misconfigured("emulator", str(error))
    if not control.is_held:
        yield from _taken_addresses(config)
    yield from identity_findings(config, store)
    if is_online:
        yield from check_service(config, _run_info(control, config.path), store)
    elif not config.uses_emulator:
        try:
            Connection.of(config)
        except ConfigError as error:  # this machine lacks something that is needed to connect
            yield from (misconfigured("service", problem) for problem in error.problems)


def _taken_addresses(config: Config) -> Iterator[Finding]:
    """Addresses that another program listens at."""
    wanted = {"server": config.server, "event_grid": config.event_grid}
    for name, settings in wanted.items():
        if settings is None:
            continue
        host, port = settings.listen
        try:
            bind_tcp(host, port).close()
        except OSError as error:
            what = f"nobody can listen at {host}:{port} now: {error.strerror}"
            yield warning(name, config.problem((name, "listen"), what), "end the program that does, or choose another")


def identity_findings(config: Config, found: StoreProbe) -> Iterator[Finding]:
    """Bots that would start as new users. On the emulator nobody minds."""
    if config.uses_emulator or found.problem is not None:
        return
    try:
        stored = stored_identities(config, found)
    except ChatbotError as error:
        yield warning("identity", f"not checked: {error}")
        return
    if stored is not None:
        yield from check_identities(config, stored)


def _incompatible(config: Config, plugins: Plugins) -> Iterator[Finding]:
    """Yield findings about stored data that the plugins cannot continue."""
    url = config.store.get_secret_value()
    found = examine_store(url, base_dir=config.directory)
    if found.place is None or not found.exists or found.problem is not None:
        return
    if found.size > MAX_COMPARED_BYTES:
        yield ok("store", f"not compared with the code: it is larger than {MAX_COMPARED_BYTES // 1024**2} MiB")
        return
    store = MemoryStore()  # a copy: the bots that run on the file are not disturbed, nor is an older one changed
    try:
        if found.file is None:
            store.restore(copy_in_memory(url, base_dir=config.directory))
        elif damage := backups.problems(found.file, is_quick=True):
            yield failed(
                "store", f"{found.file} is damaged: {damage[0]}", "restore a backup; `chatbot store check` shows all"
            )
            return
        else:
            store.restore(backups.snapshot(found.file))
    except StoreError as error:
        yield failed("store", str(error))
        return

    async def compare() -> list[Incompatibility]:
        async with store:
            return await incompatibilities(store, plugins)

    try:
        problems = anyio.run(compare)
    except ChatbotError as error:
        yield warning("store", f"not compared with the code: {error}")
        return
    for one in problems:
        yield warning("store", str(one), "restore the code, or accept that they become dead letters")


def _run_info(control: ControlDirectory, config: Path) -> RunInfo | None:
    """Return what the running bots of this file have published; None if none run."""
    try:
        return control.running() if find_daemon(control, config) is not None else None
    except ChatbotError:  # the bots are starting or stopping
        return None


def _as_json(problem: Problem) -> Mapping[str, Any]:
    place = problem.place
    return {
        "file": place.source.name,
        "line": place.line or None,
        "column": place.column or None,
        "path": problem.name,
        "text": problem.text,
    }
