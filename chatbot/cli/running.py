"""Run the bots of a bots.yaml until stopped, and print hints on a terminal: what `chatbot run` does."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal

import structlog

from chatbot.cli.boundary import BOTS_YAML, EXIT_CRASH, EXIT_DEGRADED, Report, guard, print_text, to_stderr
from chatbot.config import Config, LogConfig, load_config
from chatbot.config.source_location import printable
from chatbot.errors import ConfigError
from chatbot.runtime import event_loop
from chatbot.runtime.connection import Connection
from chatbot.runtime.daemon import Daemon
from chatbot.runtime.forced_exit import ForcedExit
from chatbot.runtime.logs import logging_to, resolve_format
from chatbot.runtime.run_directory import ControlDirectory, RunInfo
from chatbot.runtime.sources import Sources
from chatbot.runtime.systemd import SystemdNotifier
from chatbot.runtime.tracing import traced
from chatbot.stores.url import server_of


def greeting(info: RunInfo, config: Config, link: str = "") -> str:
    """Return the text to print on a terminal once the bots run.

    Args:
        info: what the bots have published.
        config: their configuration.
        link: the address of the playground; empty without one.
    """
    bots = ", ".join(printable(bot.display_name) for bot in info.bots)
    file = "" if config.path == Path(BOTS_YAML) else f" {shlex.quote(str(config.path))}"
    lines = ["", f"  Running: {bots}.  Ctrl-C stops.", ""]
    if link:
        lines += ["  Talk to them and see how they think, in a browser on this machine:", f"      {link}", ""]
    if config.creates_users:
        lines += ["  Talk to them from a second terminal:", f"      {program()} chat{file}"]
    else:
        lines += ["  Add them to threads by their ids:", f"      {program()} identity show{file}"]
    if config.uses_emulator:
        lines += [
            "",
            "  They use the emulator: nothing leaves this machine. Other programs connect to it with",
            f"      connection string  {info.connection_string}",
            f"      ca file            {info.ca_file}",
        ]
    return "\n".join([*lines, ""])


def program() -> str:
    """Return the command to show in hints: `chatbot` only if the shell finds this program by that name."""
    called = sys.argv[0]
    if called.endswith("__main__.py"):
        return f"{shlex.quote(sys.executable)} -m chatbot"
    found = shutil.which("chatbot")
    is_on_path = found is not None and Path(found).resolve() == Path(called).resolve()
    return "chatbot" if is_on_path else shlex.quote(called)


Format = Literal["auto", "console", "json"]
Level = Literal["debug", "info", "warning", "error"]


def run_bots(
    config: Path,
    *,
    log_format: Format | None = None,
    log_level: Level | None = None,
    once: bool = False,
    limit: timedelta | None = None,
    require_azure: bool = False,
    reload: bool = False,
    playground: bool | None = None,
    canary: float | None = None,
    allow_new_users: bool = False,
) -> int:
    """Run the bots of a bots.yaml until stopped, and return the exit code.

    Args:
        config: the bots.yaml.
        log_format: takes precedence over bots.yaml, as do the other options.
        log_level: the minimum level that is logged.
        once: handle what is waiting, then stop.
        limit: stop after this time.
        require_azure: refuse to run on the emulator.
        reload: reload when files of plugins or bots.yaml change.
        playground: serve the playground.
        canary: take this share of the threads only, 0 to 1, and give them back if handlers fail more often here.
        allow_new_users: start a bot as a new user although the store was lost or the bot renamed.
    """

    def read() -> Config:
        settings = load_config(config, os.environ)
        if require_azure:
            _refuse_emulator(settings)
        if playground and not settings.uses_emulator:
            what = "the playground belongs to the emulator; leave out --playground, or run the bots on the emulator"
            raise ConfigError(settings.problem(("service",), what))
        if canary is not None:
            _check_canary(settings, once=once)
        return settings.model_copy(update={"allow_new_users": True}) if allow_new_users else settings

    forced_exit = ForcedExit(is_json=log_format == "json")

    def start() -> int:
        settings = read()
        wanted = log_format or settings.log.format
        forced_exit.is_json = resolve_format(wanted, sys.stderr) == "json"
        options = _log_options(settings.log, log_format, log_level)
        with forced_exit.streams.log_stream(sys.stderr) as stderr, logging_to(stderr, **options) as log:

            def begin() -> int:
                control, sources = ControlDirectory(settings.directory), Sources(settings.directory)
                has_page = (settings.emulator.playground if playground is None else playground) and not once
                make = partial(
                    Daemon,
                    settings,
                    sources.load(settings).plugins,
                    control,
                    sources=sources,
                    read=read,
                    configure_log=lambda new: log.change(**_log_options(new, log_format, log_level)),
                    restore_log=log.restore,
                    forced_exit=forced_exit,
                    is_once=once,
                    canary=canary,
                    limit=None if limit is None else limit.total_seconds(),
                    notifier=SystemdNotifier.of(os.environ),
                    reloads=reload,
                )
                return _run(make, settings, control, wanted, is_once=once, has_page=has_page)

            # Before the bots run, problems are plain text, unless the log is JSON by request.
            return guard(begin, report=_report(wanted == "json"))

    with forced_exit:
        if log_format != "json":
            return guard(start)
        with forced_exit.streams.log_stream(sys.stderr) as stderr, logging_to(stderr, format="json"):
            return guard(start, report=_log)


def _log_options(log: LogConfig, format: Format | None, level: Level | None) -> dict[str, Any]:
    """Return the arguments of `logging_to`: options of the command line take precedence over bots.yaml."""
    return {
        "format": format or log.format,
        "level": level or log.level,
        "texts": log.texts,
        "harmless": log.harmless,
        "bots": {} if level else log.bots,
    }


def _refuse_emulator(config: Config) -> None:
    """Refuse the emulator: with an unset variable, the bots would run but reach nobody."""
    if config.uses_emulator:
        what = "this is the emulator, which --require-azure refuses; set the connection string of your resource"
        raise ConfigError(config.problem(("service",), what))


def _check_canary(config: Config, *, once: bool) -> None:
    if server_of(config.store.get_secret_value(), base_dir=config.directory) is None:
        what = "--canary needs a store on PostgreSQL, which several processes share; leave out --canary"
        raise ConfigError(config.problem(("store",), what))
    if once:
        what = "--canary compares processes over minutes, and --once ends as soon as it can; leave out one of them"
        raise ConfigError(what)


def _ready(config: Config, log_format: Format, link: Callable[[], str]) -> Callable[[RunInfo], None]:
    def ready(info: RunInfo) -> None:
        bots = [bot.name for bot in info.bots]
        structlog.get_logger().info("daemon.started", pid=info.pid, bots=bots, event_loop=event_loop.running())
        if log_format == "console":
            print_text(greeting(info, config, link()), sys.stdout)

    return ready


def _run(
    make: Callable[..., Daemon],
    config: Config,
    control: ControlDirectory,
    log_format: Format,
    *,
    is_once: bool,
    has_page: bool,
) -> int:
    shown_format = resolve_format(log_format, sys.stderr)

    def begin() -> int:
        loop = event_loop.chosen(os.environ)
        with control.hold(), traced(os.environ) as traces:
            if config.uses_emulator:
                daemon = _on_emulator(
                    loop, partial(make, traces=traces), config, control, shown_format, has_page=has_page
                )
            else:
                daemon = make(traces=traces, on_ready=_ready(config, shown_format, str))
                event_loop.run(loop, _on_azure, daemon, Connection.of(config))
        if daemon.was_cut:
            return EXIT_CRASH
        return EXIT_DEGRADED if (is_once and daemon.has_expired) or daemon.has_handed_back else 0

    return guard(begin, report=_report(shown_format == "json"))


def _on_emulator(
    loop: str,
    make: Callable[..., Daemon],
    config: Config,
    control: ControlDirectory,
    log_format: Format,
    *,
    has_page: bool,
) -> Daemon:
    # Imported here: on Azure the emulator must cost neither start time nor memory.
    from chatbot.cli.embedded_emulator import load_world, sandbox_of, serve_world

    sandbox = sandbox_of(control, has_page=has_page)
    daemon = make(sandbox=sandbox, on_ready=_ready(config, log_format, lambda: sandbox.link))

    async def run() -> None:
        async with daemon.handling_signals(), serve_world(world, config, control, sandbox) as connection:
            await daemon.run(connection)

    with load_world(config, control) as world:
        event_loop.run(loop, run)
    return daemon


async def _on_azure(daemon: Daemon, connection: Connection) -> None:
    async with daemon.handling_signals():
        await daemon.run(connection)


def _report(is_json: bool) -> Report:
    return _log if is_json else to_stderr


def _log(problems: list[str], error: Exception | None) -> None:
    """Report problems as log lines, for a stderr of JSON lines."""
    log = structlog.get_logger()
    for problem in problems:
        log.error("daemon.failed", problem=problem, exc_info=error)
