"""Reminders: `/remind 2h tea` reminds in two hours, `/reminders` lists them, `/forget 1` cancels one."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from chatbot import Context, Plugin, Rest, TimerFired, TimerId, UserState

plugin = Plugin("reminders")

MOST = 20


@dataclass(frozen=True)
class Reminder:
    """A text and the time of its reminder."""

    text: str
    due: datetime
    timer: TimerId


@dataclass
class Reminders:
    """The reminders of one person in one thread."""

    coming: list[Reminder] = field(default_factory=list)


@plugin.command("remind")
async def remind(ctx: Context, delay: timedelta, text: Rest, mine: UserState[Reminders]) -> str:
    """Be reminded of TEXT after DELAY, such as 90m or 2h."""
    if len(mine.value.coming) >= MOST:
        return f"You have {MOST} reminders already. /forget one first."
    timer = await ctx.later(delay, ring, text=text)
    mine.value.coming.append(Reminder(text, ctx.message.created_on + delay, timer))
    return f"I will remind you of “{text}”."


@plugin.timer
async def ring(ctx: Context[TimerFired], text: str, mine: UserState[Reminders]) -> str:
    """Send a reminder."""
    mine.value.coming = [reminder for reminder in mine.value.coming if reminder.timer != ctx.event.id]
    return f"You wanted to be reminded: {text}"


@plugin.command("reminders")
async def list_reminders(ctx: Context, mine: UserState[Reminders]) -> str:
    """List what you will be reminded of."""
    lines = [
        f"{number}. {reminder.text} ({reminder.due:%d %b %H:%M} UTC)"
        for number, reminder in enumerate(mine.value.coming, 1)
    ]
    return "\n".join(lines) or "You have no reminders."


@plugin.command("forget")
async def forget(ctx: Context, number: int, mine: UserState[Reminders]) -> str:
    """Take a reminder back, by its NUMBER in /reminders."""
    if not 1 <= number <= len(mine.value.coming):
        return "There is no such reminder. /reminders lists them."
    reminder = mine.value.coming.pop(number - 1)
    await ctx.cancel(reminder.timer)
    return f"I will not remind you of “{reminder.text}”."
