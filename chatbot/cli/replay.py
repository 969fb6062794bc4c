"""`chatbot replay`: replay a recorded conversation against the current code, and show differing replies."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import anyio
from cyclopts import Parameter

from chatbot.cli.fork import read_recording, replay_recording
from chatbot.cli.options import BOTS_YAML
from chatbot.config import load_config
from chatbot.config.source_location import printable
from chatbot.errors import ConfigError, StateError, UnknownName
from chatbot.model import ThreadId
from chatbot.runtime.control_client import ask, find_daemon
from chatbot.runtime.logs import logging_to
from chatbot.runtime.run_directory import ControlDirectory
from chatbot.testing.chat_files.difference import other_replies
from chatbot.testing.chat_files.script import Script, ScriptStep, final_replies, parse_script
from chatbot.testing.replays.child import ReplayJob
from chatbot.testing.replays.comparison import Comparison, Mark, Unrepeatable, repeatable_steps, steps_of
from chatbot.testing.replays.processes import SettingsRefused, run_twice
from chatbot.testing.replays.recording import Step, StepKind

EXIT_DIFFERENT = 1


def replay(
    file: Annotated[
        Path | None, Parameter(help="The conversation, recorded or written by hand; or use --thread.")
    ] = None,
    /,
    *,
    thread: Annotated[
        str | None,
        Parameter(help="A thread of the running bots, with its times and the stored results of `once` and `talk.run`."),
    ] = None,
    plugin: Annotated[
        tuple[str, ...],
        Parameter(help="A plugin to use instead of those that the file names; may be repeated."),
    ] = (),
    bot: Annotated[
        str | None, Parameter(help="The bot of the file that gets these plugins; required if it has several.")
    ] = None,
    config: Annotated[
        Path | None,
        Parameter(
            help="A bots.yaml: to read the settings of these plugins from, or that of the running bots; bots.yaml by "
            "default."
        ),
    ] = None,
    allow_network: Annotated[
        bool,
        Parameter(negative="", help="Let handlers reach the network and start programs, which is refused by default."),
    ] = False,
) -> int:
    """Run a conversation twice in virtual time; exit with 1 if any reply differs."""
    if (file is None) is (thread is None):
        msg = "what is to be replayed? Name a file, or a thread with --thread"
        raise UnknownName(msg)
    if file is None and (plugin or bot):
        msg = "--plugin and --bot are for files; a thread is replayed with the plugins of bots.yaml"
        raise UnknownName(msg)
    with logging_to(sys.stderr, format="console", level="error"):
        if file is None:
            return _replay_thread(ThreadId(thread or ""), config or BOTS_YAML, allow_network=allow_network)
        return _replay_file(file, plugin, bot, config, allow_network=allow_network)


def _replay_file(
    file: Path, plugin: tuple[str, ...], bot: str | None, config: Path | None, *, allow_network: bool
) -> int:
    script = parse_script(_read_script(file), str(file))
    if plugin:
        script = _replace_plugins(script, plugin, bot, _settings(config, plugin) if config else {})
    job = ReplayJob(script, file.absolute().parent, Path.cwd(), allows_network=allow_network)
    with (
        _with_settings_hint(has_settings=config is not None or not plugin),
        _progress(len(script.steps)) as report,
    ):
        first, second = anyio.run(partial(run_twice, job, report, shows_errors=True))
    noted = {int(place): found for place, found in first["reasons"].items()}
    steps, unrepeatable = repeatable_steps(script, steps_of(first), steps_of(second), noted)
    failures = [Failed(one["bot"], one["error"]) for one in first["failures"]]
    lines = list(_report(script, steps, failures))
    notes = [*_unrepeatable(script, unrepeatable), *_refused(str(file), [*first["refused"], *second["refused"]])]
    count = sum(len(final_replies(script.steps, bot)) for bot in script.bots)
    return _print_result(str(file), lines, notes, count, len(unrepeatable))


def _replay_thread(thread: ThreadId, path: Path, *, allow_network: bool) -> int:
    control = ControlDirectory(path.absolute().parent)
    info = control.running()  # refuses before anything else if no bots run
    settings = load_config(path, os.environ)
    daemon = find_daemon(control, path)

    async def run() -> Comparison:
        async def ask_daemon(question: Mapping[str, Any]) -> Mapping[str, Any]:
            if daemon is None:
                msg = "the bots have ended meanwhile; start them again"
                raise StateError(msg)
            return await ask(daemon, question)

        recording = await read_recording(settings, control, thread, ask_daemon)
        with _progress(len(recording.steps)) as report:
            return await replay_recording(settings, recording, report, allows_network=allow_network)

    done = anyio.run(run)
    names = {str(bot.user_id): bot.display_name for bot in info.bots}
    lines = list(_differences(thread, done, names))
    lines += [f"{thread}: {problem}" for problem in done.problems]
    notes = [*_unrepeatable_pairs(thread, done, names), *_refused(thread, done.refused)]
    count = sum(pair.old is not None for pair in done.pairs)
    return _print_result(thread, lines, notes, count, done.count(Mark.NOT_REPEATABLE))


def _print_result(name: str, lines: list[str], notes: list[str], count: int, unrepeatable: int) -> int:
    for line in [*lines, *notes]:
        print(printable(line))
    if lines:
        return EXIT_DIFFERENT
    more = f", {unrepeatable} not repeatable" if unrepeatable else ""
    print(f"{printable(name)}: {count} repl{'y' if count == 1 else 'ies'}, no differences{more}")
    return 0


@contextmanager
def _progress(count: int) -> Iterator[Callable[[int], None]]:
    """Show on a terminal how many steps are done; a pipe gets nothing."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return

    def report(done: int) -> None:
        print(f"\rReplaying: {done} of {count} steps ", end="", file=sys.stderr, flush=True)

    try:
        yield report
    finally:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


@contextmanager
def _with_settings_hint(*, has_settings: bool) -> Iterator[None]:
    """Add a hint at --config to the error of a plugin whose settings are missing."""
    try:
        yield
    except SettingsRefused as error:
        if has_settings:
            raise
        raise ConfigError(*error.problems, "--config bots.yaml reads the plugin's settings from there") from error


def _read_script(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        msg = f"{file}: cannot be read: {os.strerror(error.errno or 0)}; name a file that `chatbot record` wrote"
        raise ConfigError(msg) from None
    except UnicodeDecodeError:
        msg = f"{file}: not UTF-8 text; name a file that `chatbot record` wrote"
        raise ConfigError(msg) from None


def _settings(config: Path, plugins: tuple[str, ...]) -> dict[str, Mapping[str, Any]]:
    """Return the settings of these plugins in a bots.yaml, from the first bot that has them."""
    given = [one for bot in load_config(config, os.environ).bots.values() for one in bot.plugins]
    if missing := [name for name in plugins if name not in {one.module for one in given}]:
        msg = f"{config}: no bot has {', '.join(missing)}; name a bots.yaml that configures them, or omit --config"
        raise UnknownName(msg)
    return {one.module: one.settings for one in reversed(given) if one.module in plugins}


def _replace_plugins(
    script: Script, plugins: tuple[str, ...], bot: str | None, settings: Mapping[str, Mapping[str, Any]]
) -> Script:
    """Return the same conversation with other plugins for one bot."""
    chosen = bot or (script.bots[0] if len(script.bots) == 1 else None)
    if chosen not in script.bots:
        what = f"there is no bot {bot!r} in it" if bot else "it has several bots"
        msg = f"{script.file}: {what}; select one with --bot: {', '.join(script.bots)}"
        raise UnknownName(msg)
    roles = (
        replace(role, plugins=plugins, number=0, settings={**role.settings, **settings})
        if role.name == chosen
        else role
        for role in script.roles
    )
    return replace(script, roles=tuple(roles))


@dataclass(frozen=True, slots=True)
class Failed:
    """A handler of a replay that failed."""

    bot: str
    error: str


def _report(script: Script, steps: Sequence[ScriptStep], failures: Sequence[Failed]) -> Iterator[str]:
    for bot, lines in other_replies(script, steps):
        yield f"{script.file}: {bot} answers differently (- before, + now)"
        yield from lines
    for failure in failures:
        yield f"{script.file}: a handler of {failure.bot} failed: {failure.error}"


def _unrepeatable(script: Script, found: Sequence[Unrepeatable]) -> Iterator[str]:
    for one in found:
        place = f"{script.file}:{one.number}" if one.number else script.file
        yield f"{place}: not repeatable{_because(one.reasons)}: {one.step}"


def _because(reasons: Sequence[str]) -> str:
    return f" ({'; '.join(reasons)})" if reasons else " (two runs of this code differ)"


def _refused(name: str, found: Iterable[Mapping[str, str]]) -> Iterator[str]:
    for what, place in dict.fromkeys((one["what"], one["place"]) for one in found):
        yield f"{name}: {place} may not {what}; --allow-network allows it"


def _differences(thread: str, done: Comparison, names: Mapping[str, str]) -> Iterator[str]:
    """Yield each differing reply with the line that it answers or, if that is not known, the line before it."""
    lines = {str(row.ms): row for row in done.rows if isinstance(row, Step)}
    said: Step | None = None
    shown: Step | None = None
    has_head = False
    for row in done.rows:
        if isinstance(row, Step):
            said = row if row.kind is StepKind.SAYS else said
            continue
        if row.mark not in (Mark.DIFFERENT, Mark.MISSING, Mark.NEW):
            continue
        if not has_head:
            yield f"{thread}: the bots answer differently (- before, + now)"
            has_head = True
        answered = lines.get(row.answers, said)
        if answered is not None and answered is not shown and answered.kind is StepKind.SAYS:
            yield f"  {answered.name or answered.user}: {answered.text}"
            shown = answered
        if row.old is not None:
            yield f"- {names.get(row.old.bot, row.old.bot)}: {row.old.text}"
        if row.new is not None:
            yield f"+ {names.get(row.new.bot, row.new.bot)}: {row.new.text}"


def _unrepeatable_pairs(thread: str, done: Comparison, names: Mapping[str, str]) -> Iterator[str]:
    for pair in done.pairs:
        shown = pair.new or pair.old
        if pair.mark is Mark.NOT_REPEATABLE and shown is not None:
            yield f"{thread}: not repeatable{_because(pair.reasons)}: {names.get(shown.bot, shown.bot)}: {shown.text}"
