"""`chatbot reload`: apply changes to bots.yaml and plugins while the bots run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final

import anyio
from cyclopts import Parameter

from chatbot.cli.boundary import EXIT_CRASH, EXIT_UNAVAILABLE
from chatbot.cli.options import BOTS_YAML, AllowNewUsers, Format, RunningConfig
from chatbot.cli.output import have_all_done, others
from chatbot.errors import StateError
from chatbot.runtime.control_client import ask, find_daemon
from chatbot.runtime.run_directory import ControlDirectory

RELOAD_TIMEOUT_SECONDS: Final = 3600.0
"""A bot with new settings first finishes its current work, which takes at most `drain_timeout`."""

_SENTENCES: Final = {
    "added": "started",
    "removed": "stopped",
    "restarted": "restarted with new settings",
    "swapped": "switched to new plugins",
    "kept": "kept on their old plugins, because they cannot use the new ones (see the log)",
}


def reload(
    config: RunningConfig = BOTS_YAML,
    *,
    force: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="Accept code that cannot continue what the store holds."),
    ] = False,
    allow_new_users: AllowNewUsers = False,
    all: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="Also in all other processes that share the store."),
    ] = False,
    format: Format = "text",
) -> int:
    """Apply changes, and report them."""
    directory = config.absolute().parent
    daemon = find_daemon(ControlDirectory(directory), config)
    if daemon is None:
        message = f"no bots run in {directory}; changes are applied when they are started"
        raise StateError(message)
    question = {"ask": "reload", "force": force, "allow_new_users": allow_new_users, "all": all}
    outcome = anyio.run(ask, daemon, question, RELOAD_TIMEOUT_SECONDS)
    print(json.dumps(outcome, indent=2) if format == "json" else "\n".join(_describe_outcome(outcome)))
    if outcome["kept"]:
        return EXIT_CRASH
    return 0 if have_all_done(outcome) else EXIT_UNAVAILABLE


def _describe_outcome(outcome: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    if not any(names for what, names in outcome.items() if what != "replicas"):
        yield "Nothing has changed."
    for what, sentence in _SENTENCES.items():
        if names := outcome[what]:
            yield f"{', '.join(names)}: {sentence}"
    if names := outcome["applied"]:
        yield f"Applied now: {', '.join(names)}"
    if names := outcome["postponed"]:
        yield f"Applied only after a restart: {', '.join(names)}"
    yield from others(outcome, "Reloaded, too")
