"""`chatbot run`: run the bots of a bots.yaml until stopped."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from chatbot.cli.options import BOTS_YAML, AllowNewUsers, duration, percentage
from chatbot.cli.running import Format, Level, run_bots


def run(
    config: Annotated[Path, Parameter(help="The configuration.")] = BOTS_YAML,
    *,
    log_format: Annotated[
        Format | None,
        Parameter(help="Text for people, or one JSON object per line; auto uses text if stderr is a terminal."),
    ] = None,
    log_level: Annotated[Level | None, Parameter(help="The minimum level that is logged.")] = None,
    once: Annotated[
        bool, Parameter(negative="", show_default=False, help="Handle what is waiting, then stop; for cron and CI.")
    ] = False,
    for_: Annotated[
        timedelta | None,
        Parameter(
            name="--for",
            converter=duration,
            help="Stop after this time. With --once at the latest then: exits with 75 if not everything was handled.",
        ),
    ] = None,
    require_azure: Annotated[
        bool, Parameter(negative="", show_default=False, help="Refuse to run on the emulator.")
    ] = False,
    reload: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="Reload when files of plugins or bots.yaml change."),
    ] = False,
    playground: Annotated[
        bool | None,
        Parameter(
            show_default=False,
            help="Serve the playground, a page for talking to bots on the emulator; as bots.yaml says by default.",
        ),
    ] = None,
    canary: Annotated[
        float | None,
        Parameter(
            converter=percentage,
            help="Take only this share of the threads that processes share on PostgreSQL, such as 5%, to try new code. "
            "If events fail more often here than in the other processes (at least 20 events of a bot in 10 minutes, "
            "5 of them failed, and a chance below 1 in 100,000 that this is a coincidence), give the threads back, "
            "say so, and exit with 75 when stopped.",
        ),
    ] = None,
    allow_new_users: AllowNewUsers = False,
) -> int:
    """Run the bots of a bots.yaml until stopped."""

    return run_bots(
        config,
        log_format=log_format,
        log_level=log_level,
        once=once,
        limit=for_,
        require_azure=require_azure,
        reload=reload,
        playground=playground,
        canary=canary,
        allow_new_users=allow_new_users,
    )
