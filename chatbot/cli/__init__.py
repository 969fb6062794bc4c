"""The command line: one function per command. It returns the exit code; its module is imported when it runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the words after `chatbot`; by default those of this process.

    Returns:
        The exit code: 0 done, 1 crash, 2 usage, 69 service or store unreachable, 78 bad configuration,
        130 Ctrl-C.
    """
    from chatbot.cli.boundary import DEBUG, guard, prepare_streams

    prepare_streams()
    _use_tokens()

    words = list(sys.argv[1:] if arguments is None else arguments)
    if "--debug" in (words[: words.index("--")] if "--" in words else words):
        words.remove("--debug")
        os.environ[DEBUG] = "1"

    def run() -> int:
        if (at_once := _status_at_once(words)) is not None:
            return at_once()
        from chatbot.distribution import conflicting_distributions, repair

        if others := conflicting_distributions():
            print(f"chatbot: {repair(others)}", file=sys.stderr)
        try:
            if (at_once := _run_at_once(words)) is not None:
                return at_once()
            from chatbot.cli.app import run_command

            return run_command(words)
        except ImportError as error:  # a plugin's is a PluginError
            if (missing := _missing_module(error)) is None:
                raise
            return _incomplete(missing)

    return guard(run)


def _use_tokens() -> None:
    """Let stores get their passwords from Microsoft Entra ID, which is loaded once one asks."""
    from chatbot.stores.passwords import DatabaseToken, use_token_source

    async def issue(credential: str, client_id: str | None) -> DatabaseToken:
        import asyncio
        from importlib import import_module

        database_token = (await asyncio.to_thread(import_module, "chatbot.service.entra")).database_token
        issued = await database_token(credential, client_id)
        return DatabaseToken(issued.token, issued.expires_on)

    use_token_source(issue)


def _status_at_once(words: Sequence[str]) -> Callable[[], int] | None:
    """Return the command `chatbot status` if that is what these words ask for, without the command line library.

    It must answer within two seconds on a busy machine, and the library takes most of that.
    """
    if (simple := _simple(words, "status", flags=("--watch",), choices={"--format": ("text", "json")})) is None:
        return None
    config, options = simple

    def run() -> int:
        from pathlib import Path

        from chatbot.cli.status_report import show_status

        return show_status(Path(config), **options)

    return run


def _run_at_once(words: Sequence[str]) -> Callable[[], int] | None:
    """Return the command `chatbot run` if that is what these words ask for, without the command line library.

    Bots run for months, with 8 MB less.
    """
    choices = {"--log-format": ("auto", "console", "json"), "--log-level": ("debug", "info", "warning", "error")}
    flags = ("--once", "--require-azure", "--reload", "--playground", "--allow-new-users")
    if (simple := _simple(words, "run", flags=flags, choices=choices)) is None:
        return None
    config, options = simple

    def run() -> int:
        from pathlib import Path

        with _hidden("rich"):  # structlog would load it and pygments, for tracebacks that chatbot renders itself
            import structlog  # noqa: F401
        from chatbot.cli.running import run_bots

        return run_bots(Path(config), **options)

    return run


def _simple(
    words: Sequence[str], command: str, *, flags: Collection[str], choices: Mapping[str, Collection[str]]
) -> tuple[str, dict[str, Any]] | None:
    """Return the configuration and the options that these words give to a command.

    Returns None for what is not quite simple, and for all errors of usage: these are left to the command line library.

    Args:
        words: the words after `chatbot`.
        command: the first word.
        flags: options without a value.
        choices: the values that other options take.
    """
    from chatbot.cli.boundary import BOTS_YAML

    if not words or words[0] != command:
        return None
    files: list[str] = []
    options: dict[str, Any] = {}
    rest = iter(words[1:])
    for word in rest:
        name, equals, value = word.partition("=")
        key = name.removeprefix("--").replace("-", "_")
        if key in options:
            return None
        if word in flags:
            options[key] = True
        elif name in choices and (value := value if equals else next(rest, "")) in choices[name]:
            options[key] = value
        elif word and not word.startswith("-") and not files and word.isprintable():
            files.append(word)
        else:
            return None
    return (files or [BOTS_YAML])[0], options


@contextmanager
def _hidden(module: str) -> Iterator[None]:
    """Let nothing import a module while the block runs, unless it is loaded already."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # this is how Python marks what cannot be imported
    try:
        yield
    finally:
        del sys.modules[module]


def _missing_module(error: BaseException | None) -> str | None:
    """Return the module whose absence caused an error; the command line library wraps what an import raises."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("chatbot"):
            return error.name
        error = error.__cause__ or error.__context__
    return None


def _incomplete(module: str) -> int:
    """Report that a required package is missing, for example because somebody uninstalled it."""
    from chatbot.cli.boundary import EXIT_CONFIG
    from chatbot.distribution import DISTRIBUTION, install_command

    print(
        f"chatbot: the module {module}, which {DISTRIBUTION} requires, is missing; install it: {install_command()}",
        file=sys.stderr,
    )
    return EXIT_CONFIG
