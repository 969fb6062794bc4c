"""Whether the service lets the bots in: the key or what stands in its place, and each bot's token."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from chatbot.durations import format_duration
from chatbot.errors import ConfigError, ServiceError, Throttled, Unauthorized
from chatbot.model import UserId
from chatbot.runtime.connection import Connection, KnownBot
from chatbot.runtime.doctor.finding import Finding, failed, misconfigured, ok, warning
from chatbot.service.acs import AcsResource

NOBODY: Final = UserId("8:acs:00000000-0000-0000-0000-000000000000_00000000-0000-0000-0000-000000000000")
"""A user that no resource has: whoever asks for a token of theirs learns nothing but whether one may ask."""

NOT_OWNED: Final = "IdentityNotOwned"
"""What the identity service answers then, by its code (recorded sessions); it looks at the key first."""

SOON: Final = timedelta(hours=1)


async def look(connection: Connection, bots: Sequence[KnownBot]) -> list[Finding]:
    """Ask for tokens, and show each of them to the chat service. Makes nothing.

    Args:
        connection: to the service, which can be reached.
        bots: whose tokens.
    """
    findings = []
    try:
        async with connection.open() as resource:
            if connection.is_admitted:
                findings.append(await _admission(connection, resource))
            findings += [await _of_bot(connection, resource, bot) for bot in bots]
    except ConfigError as error:
        findings.append(misconfigured("access", str(error)))
    return findings


async def _admission(connection: Connection, resource: AcsResource) -> Finding:
    """Whether we may ask the identity service, shown by asking for what it cannot give."""
    try:
        await resource.issue_token(NOBODY)
    except Throttled:
        return warning("access", "the identity service says that we ask too often", "wait half a minute, and ask again")
    except Unauthorized as error:
        if error.code == NOT_OWNED:
            return ok("access", f"the service lets us in {connection.way}")
        return failed("access", str(error), connection.remedy)
    except ServiceError as error:
        return failed("access", str(error), connection.remedy)
    return ok("access", f"the service lets us in {connection.way}")


async def _of_bot(connection: Connection, resource: AcsResource, bot: KnownBot) -> Finding:
    if bot.user is None:
        return ok("token", f"{bot.name} has no user that is known here; one is made at its first start")
    try:
        tokens = connection.tokens(resource, bot.user, bot.settings)
        expires = (await tokens.get_token()).expires_on
        await resource.chat(bot.user, tokens).list_threads(page_size=1)
    except ConfigError as error:
        return misconfigured("token", f"{bot.name}: {error}")
    except Throttled as error:
        wait = "a minute" if error.retry_after is None else f"{error.retry_after:.0f} s"
        return warning("quota", f"{bot.name}: the service says that it asks too often (429)", f"wait {wait}")
    except ServiceError as error:
        return failed("token", f"{bot.name}: {error}", connection.remedy)
    return _validity(bot, expires)


def _validity(bot: KnownBot, expires: float) -> Finding:
    left = timedelta(seconds=max(0, int(expires - time.time())))
    if left > timedelta(days=365):
        return ok("token", f"{bot.name}: the service takes its token, which does not say how long it lasts")
    text = f"{bot.name}: the service takes its token, which lasts {format_duration(left)}"
    if bot.settings is not None and bot.settings.token is not None and left < SOON:
        return warning("token", text, "replace it in time: nothing here can renew it")
    return ok("token", text)
