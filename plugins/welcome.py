"""Welcome people who are added to the thread, by name if they have one."""

from chatbot import Context, ParticipantsAdded, Plugin

plugin = Plugin("welcome")


@plugin.on(ParticipantsAdded)
async def welcome(ctx: Context[ParticipantsAdded]) -> str:
    """Greet people who were added together in one message."""
    names = [person.display_name or "there" for person in ctx.event.participants]
    return f"Welcome, {' and '.join(names)}!"
