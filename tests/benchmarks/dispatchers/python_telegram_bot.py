"""python-telegram-bot: `Application.process_update`. It has no middleware; a handler in an earlier group is nearest."""

from __future__ import annotations

from datetime import UTC, datetime

from telegram import Bot, Chat, Message, MessageEntity, Update, User
from telegram.ext import Application, CommandHandler, MessageHandler, TypeHandler, filters
from work import COMMANDS, WORDS, Count, measure, pattern, run


async def main() -> None:
    count = Count()
    bot = Bot("1:token")
    bot._bot_user = User(1, "Bot", is_bot=True, username="bot")  # what getMe would have said
    bot._initialized = True
    application = Application.builder().bot(bot).build()
    application._initialized = True

    async def around(update: Update, context: object) -> None:
        count.passed += 1

    async def handler(update: Update, context: object) -> None:
        count.handled += 1

    application.add_handler(TypeHandler(Update, around), group=-1)
    for name in COMMANDS:
        application.add_handler(CommandHandler(name, handler))
    for word in WORDS:
        application.add_handler(MessageHandler(filters.Regex(pattern(word)), handler))

    ann, chat, now = User(2, "Ann", is_bot=False), Chat(2, "private"), datetime.now(UTC)

    def event(number: int, text: str) -> Update:
        entities = [MessageEntity("bot_command", 0, len(text))] if text.startswith("/") else []
        message = Message(number, now, chat, from_user=ann, text=text, entities=entities)
        message.set_bot(bot)
        update = Update(number, message=message)
        update.set_bot(bot)
        return update

    await measure(event, application.process_update, count)


run(main)
