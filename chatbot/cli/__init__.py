"""The command line: one function per command. It returns the exit code; its module is imported when it runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


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
