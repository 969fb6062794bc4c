"""discord.py's commands: `Bot.process_commands`. It has no handlers of texts; a check is nearest to a middleware."""

from __future__ import annotations

from types import SimpleNamespace

import discord
from discord.ext import commands
from work import COMMANDS, Count, measure, run


async def main() -> None:
    count = Count()
    bot = commands.Bot(command_prefix="/", intents=discord.Intents.none(), help_command=None)
    bot._connection.user = SimpleNamespace(id=1)  # type: ignore[assignment]  # who the bot is, known after a log-in

    @bot.check
    async def around(context: commands.Context) -> bool:
        count.passed += 1
        return True

    async def handler(context: commands.Context) -> None:
        count.handled += 1

    for name in COMMANDS:
        bot.command(name)(handler)

    ann = SimpleNamespace(bot=False, id=2)
    channel = SimpleNamespace(id=3)

    def event(number: int, text: str) -> SimpleNamespace:
        return SimpleNamespace(
            id=number, content=text, author=ann, channel=channel, guild=None, attachments=[], _state=bot._connection
        )

    await measure(event, bot.process_commands, count, has_texts=False)


run(main)
