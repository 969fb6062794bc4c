"""`chatbot config`: the configuration as it is in force, and where each value came from."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from chatbot.cli.options import BOTS_YAML, Format
from chatbot.cli.table import table
from chatbot.config import load_config
from chatbot.config.effective import effective
from chatbot.config.place import name_of


def config(
    config: Annotated[Path, Parameter(help="The configuration.")] = BOTS_YAML,
    /,
    *,
    format: Format = "text",
) -> int:
    """Show the configuration as it is in force."""
    settings = load_config(config, os.environ)
    values = effective(settings, settings.document)
    if format == "json":
        found = [{"path": name_of(value.path), "value": value.shown, "source": value.source} for value in values]
        print(json.dumps(found, indent=2))
    else:
        rows = [(name_of(value.path), json.dumps(value.shown, ensure_ascii=False), value.source) for value in values]
        print("\n".join(table(("SETTING", "VALUE", "FROM"), rows)))
    return 0
