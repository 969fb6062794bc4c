"""The command line. One file per command, each a function that returns the exit code; loaded when it is called."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: what follows `chatbot`; by default those of the process.

    Returns:
        The exit code: 0 done, 1 crash, 2 usage, 69 something needed cannot be reached, 78 bad configuration,
        130 Ctrl-C.
    """
    from chatbot.cli.boundary import DEBUG, guard, prepare_streams

    prepare_streams()

    words = list(sys.argv[1:] if arguments is None else arguments)
    if "--debug" in (words[: words.index("--")] if "--" in words else words):
        words.remove("--debug")
        os.environ[DEBUG] = "1"

    def run() -> int:
        from chatbot.cli.app import run_command

        return run_command(words)

    return guard(run)
