"""`chatbot state`: what the bots remember of people."""

from __future__ import annotations

import json
from typing import Annotated

from cyclopts import Parameter

from chatbot.cli.boundary import EXIT_UNAVAILABLE
from chatbot.cli.daemon_client import ask_bots
from chatbot.cli.options import BOTS_YAML, ConfigFile, Format
from chatbot.config.source_location import printable


def forget(
    user: Annotated[str, Parameter(help="The person's id, as threads and logs show it: 8:acs:… or the like.")],
    config: ConfigFile = BOTS_YAML,
    /,
    *,
    format: Format = "text",
) -> int:
    """Erase a person from what the bots remember; what stands in the threads themselves is the service's."""
    answer = ask_bots(config, {"ask": "state forget", "user": user})
    records, is_complete = answer["records"], answer["is_complete"]
    if format == "json":
        print(json.dumps(answer, indent=2))
    else:
        if records:
            print(f"{printable(user)} is erased: {records} record{'s' * (records != 1)} changed or dropped.")
        else:
            print(f"Nothing of {printable(user)} is remembered.")
        if not is_complete:
            print("A handler is still at work and may write more: repeat this in a moment.")
    return 0 if is_complete else EXIT_UNAVAILABLE
