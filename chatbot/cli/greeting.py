"""What `chatbot run` tells the person at the terminal once the bots run: who is there, and how to talk to them."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from chatbot.cli.options import BOTS_YAML
from chatbot.config import Config
from chatbot.config.place import printable
from chatbot.runtime.control import RunInfo


def greeting(info: RunInfo, config: Config) -> str:
    """The text, for a terminal."""
    bots = ", ".join(printable(bot.display_name) for bot in info.bots)
    file = "" if config.path == BOTS_YAML else f" {shlex.quote(str(config.path))}"
    lines = ["", f"  Running: {bots}.  Ctrl-C stops.", ""]
    if config.makes_users:
        lines += ["  Talk to them from a second terminal:", f"      {program()} chat{file}"]
    else:
        lines += ["  Bring them into threads by their ids:", f"      {program()} identity show{file}"]
    if config.uses_emulator:
        lines += [
            "",
            "  They are on the emulator: nothing leaves this machine. Other programs reach it with",
            f"      connection string  {info.connection_string}",
            f"      ca file            {info.ca_file}",
        ]
    return "\n".join([*lines, ""])


def program() -> str:
    """How this person calls us: the bare name only where the shell would find it."""
    called = sys.argv[0]
    if called.endswith("__main__.py"):
        return f"{shlex.quote(sys.executable)} -m chatbot"
    found = shutil.which("chatbot")
    is_on_path = found is not None and Path(found).resolve() == Path(called).resolve()
    return "chatbot" if is_on_path else shlex.quote(called)
