"""`chatbot schema`: what may stand in a bots.yaml, as a JSON Schema."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from chatbot.cli.options import BOTS_YAML
from chatbot.config import load_config
from chatbot.config.json_schema import json_schema
from chatbot.plugin import plugin_settings
from chatbot.runtime.plugins import load_plugins


def schema(
    config: Annotated[
        Path, Parameter(help="The configuration whose plugins' settings to include; where there is none, none are.")
    ] = BOTS_YAML,
    /,
    *,
    part: Annotated[
        bool, Parameter(negative="", show_default=False, help="The schema of files that bots.yaml includes.")
    ] = False,
) -> int:
    """Print the JSON Schema of bots.yaml, for editors."""
    plugins = {}
    if config.exists():
        settings = load_config(config, os.environ)
        load_plugins(settings)  # says of every plugin that is wrong where it is named
        names = {plugin.module for bot in settings.bots.values() for plugin in bot.plugins}
        plugins = {name: plugin_settings(name, base_dir=settings.directory) for name in sorted(names)}
    print(json.dumps(json_schema(plugins, is_part=part), indent=2))
    return 0
