"""Whether the bots' users and tokens go together with the service: what no single setting can tell. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from chatbot.config.document import Document
from chatbot.config.place import Problem
from chatbot.config.schema import BotConfig, Config
from chatbot.config.service import ServiceConfig
from chatbot.model import UserId
from chatbot.service.token import read_user

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
    if not config.makes_users and bot.user is None:
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
