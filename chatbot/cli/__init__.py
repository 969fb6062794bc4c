"""The command line: one function per command. It returns the exit code; its module is imported when it runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence


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
            from chatbot.cli.app import run_command

            return run_command(words)
        except ImportError as error:  # a plugin's is a PluginError
            if (missing := _missing_module(error)) is None:
                raise
            return _incomplete(missing)

    return guard(run)


def _status_at_once(words: Sequence[str]) -> Callable[[], int] | None:
    """Return the command `chatbot status` if that is what these words ask for, without the command line library.

    It must answer within two seconds on a busy machine, and the library takes most of that. Whatever is not quite
    simple is left to it, and so are all errors of usage.
    """
    if not words or words[0] != "status":
        return None
    files: list[str] = []
    watch, format = False, "text"
    rest = iter(words[1:])
    for word in rest:
        name, _, value = word.partition("=")
        if word == "--watch":
            watch = True
        elif name == "--format" and (value or (value := next(rest, ""))) in ("text", "json"):
            format = value
        elif word and not word.startswith("-") and not files and word.isprintable():
            files.append(word)
        else:
            return None

    def run() -> int:
        from pathlib import Path

        from chatbot.cli.status_report import show_status

        return show_status(Path(*files or ("bots.yaml",)), watch=watch, format=format)

    return run


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
