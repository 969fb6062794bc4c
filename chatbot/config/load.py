"""From a file to settings: read, interpolate, check; and every problem at once, each with its place."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from chatbot.config.document import Document, read_document
from chatbot.config.explain import explain
from chatbot.config.identity import contradictions
from chatbot.config.place import Place, Problem
from chatbot.config.schema import Config
from chatbot.errors import ConfigError

_LARGEST: Final = 1_000_000


def load_config(path: Path, environ: Mapping[str, str]) -> Config:
    """Read bots.yaml.

    Args:
        path: the file, as the user named it: problems name it so, too.
        environ: the environment that `${…}` and `!secret env:` look into.

    Raises:
        ConfigError: it cannot be used; lists everything that is wrong.
    """
    document = read_document(str(path), _read(path), environ, path.absolute().parent)
    problems = document.problems
    if document.data is not None or not problems:
        config, more = _validate(document)
        problems = [*problems, *more]
        if config is not None and not problems:
            return config.come_from(path, document)
    raise ConfigError(*_sorted(problems))


def _read(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        message = f"{path}: there is no such file; name your configuration, or go where it is"
        raise ConfigError(message) from None
    except OSError as error:
        message = f"{path}: this cannot be read: {os.strerror(error.errno or 0)}"
        raise ConfigError(message) from None
    if len(content) > _LARGEST:
        message = f"{path}: this is larger than {_LARGEST:,} bytes; is it the right file?"
        raise ConfigError(message)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        message = f"{path}:{line}: this is not UTF-8 text; save the file as UTF-8"
        raise ConfigError(message) from None


def _validate(document: Document) -> tuple[Config | None, list[Problem]]:
    data = document.data
    if isinstance(data, dict):  # x-… at the top is a place for anchors, as in Compose files
        data = {key: value for key, value in data.items() if not key.startswith("x-")}
    if data is None:
        problem = Problem(Place(document.source, 1, 1), (), "this file is empty; it needs version, service and bots")
        return None, [problem]
    try:
        config = Config.model_validate(data)
        return config, list(contradictions(config, document))
    except ValidationError as error:
        found = (explain(details, document, data) for details in error.errors(include_url=False))
        return None, [one for one in found if one is not None]


def _sorted(problems: list[Problem]) -> list[str]:
    """In the order of the file, each once."""
    ordered = sorted(problems, key=lambda problem: (problem.place.line, problem.place.column))
    return list(dict.fromkeys(map(str, ordered)))
