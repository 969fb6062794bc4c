"""Load bots.yaml: read, interpolate, validate; report every problem at once, each with its place.

`contradictions` checks what no single setting shows: whether the bots' users and tokens fit the service.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct
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

_NEEDS_USER = (
    "this is missing, because `service` cannot create users; run `chatbot identity create` with a key, and write "
    "the id that it prints"
)
_UNGIVEN = "this is missing, because `service` names no source of tokens (entra, token_endpoint); write a token"


def contradictions(config: Config, document: Document) -> Iterator[Problem]:
    """Yield contradictions between settings, each with its place.

    Args:
        document: the document that the configuration was read from.
    """
    for name in config.log.bots:
        if name not in config.bots:
            known = ", ".join(config.bots)
            yield document.problem(("log", "bots", name), f"there is no bot {name!r}; there are: {known}", of_key=True)
    seen: dict[UserId, str] = {}
    for name, bot in config.bots.items():
        path = ("bots", name)
        for key, text in _of_bot(config, bot):
            yield document.problem((*path, key), text)
        if bot.user is not None and (other := seen.setdefault(bot.user, name)) != name:
            yield document.problem((*path, "user"), f"this user already belongs to {other}; every bot needs its own")


def _of_bot(config: Config, bot: BotConfig) -> Iterator[tuple[str, str]]:
    service = config.service
    if config.uses_emulator and bot.user is not None:
        yield "user", "the emulator creates its users itself; remove this"
    is_static = isinstance(service, ServiceConfig) and service.entra is None and service.token_endpoint is None
    if bot.token is not None and not is_static:
        yield "token", "`service` already names a source of tokens; remove this"
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
        yield "token", f"this token belongs to another user, {owner}; use a token of {bot.user}"


def load_config(path: Path, environ: Mapping[str, str]) -> Config:
    """Load bots.yaml and the files that it includes.

    Args:
        path: the file, as the user named it; problems use the same name.
        environ: the environment variables for `${…}` and `!secret env:`.

    Raises:
        ConfigError: the configuration is not valid; lists all problems.
    """
    found = examine(path, environ)
    if found.config is None:
        raise ConfigError(*map(str, found.problems))
    return found.config


class Examined(Struct, frozen=True):
    """The result of reading and validating a file.

    Args:
        config: the settings; None if the file is not valid.
        problems: all problems, in the order of the files.
        document: the content of the file, as far as it could be read.
    """

    config: Config | None
    problems: Sequence[Problem]
    document: Document


def examine(path: Path, environ: Mapping[str, str]) -> Examined:
    """Load bots.yaml like `load_config`, but return the problems instead of raising them."""
    try:
        document = read_files(path, environ)
    except UnreadableError as error:
        source = SourceText(str(path), ())
        remedy = (
            "; pass the path of your configuration, or change to its directory"
            if isinstance(error, MissingError)
            else ""
        )
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
    """Return each problem once, in the order of the files; those outside the files of the document come last."""
    files = [document.source.name, *document.others]

    def rank(problem: Problem) -> tuple[int, int, int]:
        place = problem.place
        file = files.index(place.source.name) if place.source.name in files else len(files)
        return file, place.line, place.column

    return list({str(problem): problem for problem in sorted(problems, key=rank)}.values())


def _validate(document: Document) -> tuple[Config | None, list[Problem]]:
    data = document.data
    if isinstance(data, dict):  # x-… keys at the top hold anchors, as in Compose files
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
