"""From files to settings: read, interpolate, check; and every problem at once, each with its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from chatbot.config.document import Document
from chatbot.config.explain import explain
from chatbot.config.file import MissingError, UnreadableError
from chatbot.config.identity import contradictions
from chatbot.config.inclusion import read_files
from chatbot.config.place import Place, Problem, Source
from chatbot.config.schema import Config
from chatbot.errors import ConfigError


def load_config(path: Path, environ: Mapping[str, str]) -> Config:
    """Read bots.yaml, and the files that it includes.

    Args:
        path: the file, as the user named it: problems name it so, too.
        environ: the environment that `${…}` and `!secret env:` look into.

    Raises:
        ConfigError: it cannot be used; lists everything that is wrong.
    """
    config, problems = examine(path, environ)
    if config is None:
        raise ConfigError(*map(str, problems))
    return config


def examine(path: Path, environ: Mapping[str, str]) -> tuple[Config | None, Sequence[Problem]]:
    """As `load_config`; the configuration if it can be used, or else everything that is wrong."""
    try:
        document = read_files(path, environ)
    except UnreadableError as error:
        remedy = "; name your configuration, or go where it is" if isinstance(error, MissingError) else ""
        return None, [Problem(Place(Source(str(path), ()), error.line, 0), (), f"{error}{remedy}")]
    problems = document.problems
    if document.data is not None or not problems:
        config, more = _validate(document)
        problems = [*problems, *more]
        if config is not None and not problems:
            return config.come_from(path, document), ()
    return None, _sorted(problems, [document.source.name, *document.others])


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
        details = error.errors(include_url=False)
        if not document.is_complete:  # what is missing at the top may be in a file that could not be read
            details = [one for one in details if one["type"] != "missing" or len(one["loc"]) > 1]
        found = (explain(one, document, data) for one in details)
        return None, [one for one in found if one is not None]


def _sorted(problems: Iterable[Problem], files: Sequence[str]) -> list[Problem]:
    """In the order of the files, each once."""

    def rank(problem: Problem) -> tuple[int, int, int]:
        place = problem.place
        return files.index(place.source.name), place.line, place.column

    return list({str(problem): problem for problem in sorted(problems, key=rank)}.values())
