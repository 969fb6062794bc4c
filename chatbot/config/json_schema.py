"""The JSON Schema (draft 2020-12) of bots.yaml for editors: allowed keys and values, their meaning, and defaults."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from chatbot.config import schema as models
from chatbot.config.service import Settings
from chatbot.durations import format_duration

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_VARIABLE: Final = r"\$\{"
_DURATION: Final = r"^\s*(\d+(\.\d+)?(ms|w|d|h|m|s)\s*)+$"
_ARGUMENT: Final = re.compile(r"^    (\w[\w, ]*): (.*(?:\n {8}.*)*)", re.MULTILINE)
_Json = dict[str, Any]


class _Generator(GenerateJsonSchema):
    """Writes durations as `parse_duration` reads them."""

    def timedelta_schema(self, schema: core_schema.TimedeltaSchema) -> JsonSchemaValue:
        return {"type": "string", "pattern": f"{_VARIABLE}|{_DURATION}", "examples": ["500ms", "2m", "1h 30m"]}

    def encode_default(self, dft: Any) -> Any:
        return format_duration(dft) if isinstance(dft, timedelta) else super().encode_default(dft)


def json_schema(plugins: Mapping[str, type[BaseModel] | None], *, is_part: bool = False) -> dict[str, Any]:
    """Return the schema.

    Args:
        plugins: the settings model of each known plugin, by its name in bots.yaml; None if it takes no settings.
        is_part: return the schema of an included file, in which no key is required.
    """
    generated: _Json = models.Config.model_json_schema(schema_generator=_Generator)
    definitions = generated["$defs"]
    _describe(generated, models.Config)
    known = {model.__name__: model for model in Settings.__subclasses__()}
    for name, definition in definitions.items():
        _describe(definition, known[name])
    definitions["ServerConfig"]["properties"]["listen"] |= {"type": ["string", "integer"]}
    for key in ("maxItems", "minItems", "prefixItems"):
        definitions["ServerConfig"]["properties"]["listen"].pop(key, None)
    entra = definitions["EntraConfig"]["properties"]["credential"]
    definitions["ServiceConfig"]["properties"]["entra"]["anyOf"].append({"enum": entra["enum"]})
    definitions["BotConfig"]["properties"]["plugins"]["items"] = _plugin(definitions, plugins)
    generated["properties"]["include"] |= {"type": ["string", "array"], "minLength": 1}
    generated["required"], elsewhere = [], generated["required"]
    if not is_part:
        elsewhere.remove("version")
        generated |= {
            "required": ["version"],
            "if": {"not": {"required": ["include"]}},
            "then": {"required": elsewhere},
        }
    generated["patternProperties"] = {"^x-": {"description": "A place for YAML anchors."}}
    _allow_variables(generated)
    title = "a file that bots.yaml includes" if is_part else "bots.yaml"
    return {"$schema": DIALECT, **generated, "title": title}


def _plugin(definitions: _Json, plugins: Mapping[str, type[BaseModel] | None]) -> _Json:
    """Add the schema of a plugin entry: its name, or a mapping whose settings depend on the name."""
    definitions["PluginConfig"]["allOf"] = [
        {
            "if": {"properties": {"module": {"const": name}}},
            "then": {"properties": {"settings": _settings(definitions, name, model)}},
        }
        for name, model in plugins.items()
    ]
    names = {"type": "string", "examples": sorted(plugins)}
    return {"anyOf": [names, {"$ref": "#/$defs/PluginConfig"}]}


def _settings(definitions: _Json, name: str, model: type[BaseModel] | None) -> _Json:
    if model is None:
        return {"type": "object", "maxProperties": 0, "description": f"{name} takes no settings."}
    made = model.model_json_schema(schema_generator=_Generator, ref_template=f"#/$defs/{name}.{{model}}")
    for inner, definition in made.pop("$defs", {}).items():
        definitions[f"{name}.{inner}"] = definition
    if model.model_config.get("extra") is None:  # the plugin loader refuses them, too
        made["additionalProperties"] = False
    return made


def _describe(definition: _Json, model: type[BaseModel]) -> None:
    """Describe each field by its text in the docstring of the model."""
    text = inspect.getdoc(model) or ""
    definition["description"] = text.partition("\n\nArgs:")[0]
    for names, meaning in _ARGUMENT.findall(text):
        for name in names.split(", "):
            if name in definition["properties"]:
                definition["properties"][name]["description"] = re.sub(r"\s+", " ", meaning)


def _allow_variables(generated: _Json) -> None:
    """Allow `${VARIABLE}` for every value that is not text: it is replaced before validation."""
    for holder, key in list(_scalars(generated)):
        leaf = holder[key]
        beside = {name: leaf.pop(name) for name in ("default", "description", "title") if name in leaf}
        holder[key] = {"anyOf": [leaf, {"type": "string", "pattern": _VARIABLE}], **beside}


def _scalars(node: object) -> Iterator[tuple[Any, Any]]:
    """Yield the places of the schemas of numbers, switches and choices."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        if isinstance(value, dict) and key != "if" and _is_scalar(value):
            yield node, key
        elif key != "if":
            yield from _scalars(value)


def _is_scalar(value: _Json) -> bool:
    return value.get("type") in ("integer", "number", "boolean") or "enum" in value or "const" in value
