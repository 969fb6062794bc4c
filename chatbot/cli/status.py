"""`chatbot status`: the status of running bots."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from chatbot.cli.options import BOTS_YAML, Format, RunningConfig
from chatbot.cli.status_report import show_status


def status(
    config: RunningConfig = BOTS_YAML,
    *,
    watch: Annotated[bool, Parameter(negative="", help="Refresh until Ctrl-C.")] = False,
    format: Format = "text",
) -> int:
    """Show the status of running bots."""
    return show_status(config, watch=watch, format=format)
