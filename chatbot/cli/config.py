"""`chatbot config`: the configuration as it is in force, and where each value came from."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from chatbot.cli.table import table
from chatbot.config import load_config
from chatbot.config.effective import Value, effective


def config(
    config: Annotated[Path, Parameter(help="The configuration.")] = Path("bots.yaml"),
    /,
    *,
    format: Annotated[Literal["text", "json"], Parameter(help="For people, or for programs.")] = "text",
) -> int:
    """Show the configuration as it is in force."""
    settings = load_config(config, os.environ)
    values = effective(settings, settings.document)
    if format == "json":
        found = [{"path": _name(value), "value": value.shown, "source": value.source} for value in values]
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        rows = [(_name(value), json.dumps(value.shown, ensure_ascii=False), value.source) for value in values]
        print("\n".join(table(("SETTING", "VALUE", "FROM"), rows)))
    return 0


def _name(value: Value) -> str:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in value.path)
    return "".join(steps).lstrip(".")
