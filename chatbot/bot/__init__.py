"""One bot: its thread list, its scheduler, and a lane for each of its threads."""

from chatbot.bot.bot import Bot
from chatbot.bot.environment import ALL_HISTORY, NO_HISTORY, BotSettings

__all__ = ["ALL_HISTORY", "NO_HISTORY", "Bot", "BotSettings"]
