"""Whether the bots' users and tokens go together with the service: what no single setting can tell. Pure.

From files to settings: read, interpolate, check; and every problem at once, each with its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from chatbot.config.document import Document, read_files
from chatbot.config.explain import explain_errors
from chatbot.config.file import MissingError, UnreadableError
from chatbot.config.schema import BotConfig, Config
from chatbot.config.service import ServiceConfig
from chatbot.config.source_location import Problem, SourceLocation, SourceText
from chatbot.errors import ConfigError
from chatbot.model import UserId
from chatbot.service.credentials import read_user

_NEEDS_USER = "this is missing: nothing here may make users; `chatbot identity create`, run with a key, prints one's id"
_UNGIVEN = "this is missing: `service` names nothing that gives tokens out (entra, token_endpoint), so write one"


def contradictions(config: Config, document: Document) -> Iterator[Problem]:
    """What is wrong, each with its place.

    Args:
        document: the file that the configuration was read from.
    """
    seen: dict[UserId, str] = {}
    for name, bot in config.bots.items():
        path = ("bots", name)
        for key, text in _of_bot(config, bot):
            yield document.problem((*path, key), text)
        if bot.user is not None and (other := seen.setdefault(bot.user, name)) != name:
            yield document.problem((*path, "user"), f"this is the user of {other} already; every bot needs its own")


def _of_bot(config: Config, bot: BotConfig) -> Iterator[tuple[str, str]]:
    service = config.service
    if config.uses_emulator and bot.user is not None:
        yield "user", "the emulator makes its users itself; remove this"
    is_static = isinstance(service, ServiceConfig) and service.entra is None and service.token_endpoint is None
    if bot.token is not None and not is_static:
        yield "token", "`service` says where tokens come from already; remove this"
    if not config.creates_users and bot.user is None:
        yield "user", _NEEDS_USER
    if is_static:
        yield from _static(bot)


def _static(bot: BotConfig) -> Iterator[tuple[str, str]]:
    if bot.token is None:
        yield "token", f"{_UNGIVEN} as !secret"
        return
    owner = read_user(bot.token.get_secret_value().strip())
    if bot.user is not None and owner not in (None, bot.user):
        yield "token", f"this is a token of another user, {owner}; take one of {bot.user}"


def load_config(path: Path, environ: Mapping[str, str]) -> Config:
    """Read bots.yaml, and the files that it includes.

    Args:
        path: the file, as the user named it: problems name it so, too.
        environ: the environment that `${…}` and `!secret env:` look into.

    Raises:
        ConfigError: it cannot be used; lists everything that is wrong.
    """
    found = examine(path, environ)
    if found.config is None:
        raise ConfigError(*map(str, found.problems))
    return found.config


@dataclass(frozen=True, slots=True)
class Examined:
    """What was found in a file.

    Args:
        config: the settings; None if the file cannot be used.
        problems: why it cannot, in the order of the files.
        document: what the file says, as far as it could be read.
    """

    config: Config | None
    problems: Sequence[Problem]
    document: Document


def examine(path: Path, environ: Mapping[str, str]) -> Examined:
    """As `load_config`, with everything that was found, right or wrong."""
    try:
        document = read_files(path, environ)
    except UnreadableError as error:
        source = SourceText(str(path), ())
        remedy = "; name your configuration, or go where it is" if isinstance(error, MissingError) else ""
        return Examined(
            None, [Problem(SourceLocation(source, error.line, 0), (), f"{error}{remedy}")], Document(source)
        )
    problems = document.problems
    if document.data is not None or not problems:
        config, more = _validate(document)
        problems = [*problems, *more]
        if config is not None and not problems:
            return Examined(config.set_source(path, document), (), document)
    return Examined(None, in_order(problems, document), document)


def in_order(problems: Iterable[Problem], document: Document) -> list[Problem]:
    """Problems in the order of the files, each once; what stands in no file of the document comes last."""
    files = [document.source.name, *document.others]

    def rank(problem: Problem) -> tuple[int, int, int]:
        place = problem.place
        file = files.index(place.source.name) if place.source.name in files else len(files)
        return file, place.line, place.column

    return list({str(problem): problem for problem in sorted(problems, key=rank)}.values())


def _validate(document: Document) -> tuple[Config | None, list[Problem]]:
    data = document.data
    if isinstance(data, dict):  # x-… at the top is a place for anchors, as in Compose files
        data = {key: value for key, value in data.items() if not key.startswith("x-")}
    if data is None:
        problem = Problem(
            SourceLocation(document.source, 1, 1), (), "this file is empty; it needs version, service and bots"
        )
        return None, [problem]
    try:
        config = Config.model_validate(data)
        return config, list(contradictions(config, document))
    except ValidationError as error:
        return None, explain_errors(error, document, data)
