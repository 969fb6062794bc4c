"""`chatbot config`: the effective configuration, each value with its source, without secrets.

`chatbot schema`: the JSON Schema of bots.yaml.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter
from pydantic import BaseModel, SecretStr

from chatbot.cli.options import BOTS_YAML, Format
from chatbot.cli.output import table
from chatbot.config import load_config
from chatbot.config.document import Document
from chatbot.config.json_schema import json_schema
from chatbot.config.schema import Config
from chatbot.config.source_location import DataPath, masked, name_of
from chatbot.durations import format_duration
from chatbot.plugin import plugin_settings
from chatbot.runtime.plugins import load_plugins

MASK: Final = "********"
_VARIABLES: Final = re.compile(r"\$\$|\$\{?([A-Za-z_]\w*)|!secret\s+env:(\w+)", re.ASCII)
_HOLDS_SECRETS: Final = re.compile(r"key|token|secret|password|passwd|credential|authorization", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class EffectiveSetting:
    """A setting in force.

    Args:
        path: its path in the settings.
        text: the value as JSON data; secrets are masked.
        source: `FILE:LINE:COLUMN`, with the variables used there; or `default`.
    """

    path: DataPath
    text: Any
    source: str


def effective(config: Config, document: Document) -> Iterator[EffectiveSetting]:
    """Yield every value, in the order of the settings.

    Args:
        document: the file that the configuration was read from.
    """
    yield from _values(config, (), document)


def _values(value: Any, path: DataPath, document: Document) -> Iterator[EffectiveSetting]:
    if isinstance(value, BaseModel):
        value = {name: getattr(value, name) for name in type(value).model_fields}
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _values(inner, (*path, key), document)
    elif isinstance(value, tuple | list) and value and path[-1] != "listen":
        for index, inner in enumerate(value):
            yield from _values(inner, (*path, index), document)
    else:
        source, variables = _source(path, document)
        # Of a service one must see which it is; a store that is secret tells nobody where it is.
        is_hidden = path == ("store",) and document.is_secret(path)
        yield EffectiveSetting(path, MASK if is_hidden else _masked(value, path, variables), source)


def _masked(value: Any, path: DataPath, variables: tuple[str, ...]) -> Any:
    if isinstance(value, SecretStr):
        text = value.get_secret_value()
        # Their parts that are not secret show which service, store and endpoint are used.
        if path == ("service", "token_endpoint", "url"):
            address, mark, _ = text.partition("?")
            return f"{address}?{MASK}" if mark else address
        return masked(text) if path in (("service",), ("store",)) else MASK
    if isinstance(value, timedelta):
        return format_duration(value)
    if path[-1] == "listen" and isinstance(value, tuple):
        host, port = value
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    own = (
        path[path.index("settings") + 1 :] if "settings" in path else ()
    )  # keys of a plugin's own settings, which may hold secrets
    is_secretive = any(_HOLDS_SECRETS.search(str(name)) for name in (*own, *variables))
    if is_secretive and isinstance(value, str) and value:
        return MASK
    return dict(value) if isinstance(value, Mapping) else list(value) if isinstance(value, tuple) else value


def _source(path: DataPath, document: Document) -> tuple[str, tuple[str, ...]]:
    """Return the source of a value and the variables used there; a plugin may be written without the key `module`."""
    place = document.values.get(path)
    if place is None and path[-1] == "module":
        place = document.values.get(path[:-1])
    if place is None:
        return "default", ()
    first, *rest = [*place.source.lines[place.line - 1 :], ""]
    written = first[place.column - 1 :]
    if written[:1] in ("|", ">", '"', "'") and place.width == 1:  # a value of several lines, whose end is not known
        written = "\n".join([written, *rest])
    else:
        written = written[: place.width]
    variables = tuple(dict.fromkeys(name for found in _VARIABLES.findall(written) for name in found if name))
    return " ".join([str(place), *(f"${{{name}}}" for name in variables)]), variables


def config(
    config: Annotated[Path, Parameter(help="The configuration.")] = BOTS_YAML,
    *,
    format: Format = "text",
) -> int:
    """Show the effective configuration."""
    settings = load_config(config, os.environ)
    values = effective(settings, settings.document)
    if format == "json":
        found = [{"path": name_of(value.path), "value": value.text, "source": value.source} for value in values]
        print(json.dumps(found, indent=2))
    else:
        rows = [(name_of(value.path), json.dumps(value.text, ensure_ascii=False), value.source) for value in values]
        print("\n".join(table(("SETTING", "VALUE", "FROM"), rows)))
    return 0


def schema(
    config: Annotated[
        Path, Parameter(help="The configuration whose plugins' settings to include, if it exists.")
    ] = BOTS_YAML,
    *,
    part: Annotated[
        bool, Parameter(negative="", show_default=False, help="The schema of files that bots.yaml includes.")
    ] = False,
) -> int:
    """Print the JSON Schema of bots.yaml, for editors."""
    plugins = {}
    if config.exists():
        settings = load_config(config, os.environ)
        load_plugins(settings)  # reports every faulty plugin with its place
        names = {plugin.module for bot in settings.bots.values() for plugin in bot.plugins}
        plugins = {name: plugin_settings(name, base_dir=settings.directory) for name in sorted(names)}
    print(json.dumps(json_schema(plugins, is_part=part), indent=2))
    return 0
