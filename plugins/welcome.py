"""Welcomes people who come into the thread, by name where they gave one."""

from chatbot import Context, ParticipantsAdded, Plugin

plugin = Plugin("welcome")


@plugin.on(ParticipantsAdded)
async def welcome(ctx: Context[ParticipantsAdded]) -> str:
    """Greet everybody who came in together with one message."""
    names = [person.display_name or "there" for person in ctx.event.participants]
    return f"Welcome, {' and '.join(names)}!"
