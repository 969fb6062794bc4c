"""`chatbot completion`: the script that lets a shell complete commands and options."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="The shell that will read the script.")], /
) -> int:
    """Print the completion script of a shell."""
    from chatbot.cli.app import app  # here, because it imports this module

    print(app.generate_completion(prog_name="chatbot", shell=shell))
    return 0
