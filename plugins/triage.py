"""Support triage: `/ticket` asks what is wrong and how bad it is; `/tickets` lists what is open, `/close 1` closes it.

The questions are a dialog, which also survives a restart of the bot. The tickets are state of the thread: everybody in
it sees the same ones.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from chatbot import Context, Dialog, DialogTimeout, Plugin, State

plugin = Plugin("triage")

Urgency = Literal["low", "normal", "urgent"]
URGENCIES: tuple[Urgency, ...] = ("low", "normal", "urgent")

PATIENCE = timedelta(hours=1)


@dataclass(frozen=True)
class Ticket:
    """A problem that a person has reported."""

    number: int
    reporter: str
    what: str
    urgency: Urgency
    opened: datetime


@dataclass
class Desk:
    """The open tickets of one thread."""

    last_number: int = 0
    open: list[Ticket] = field(default_factory=list)

    def file(self, reporter: str, what: str, urgency: Urgency, now: datetime) -> Ticket:
        """Open a ticket."""
        self.last_number += 1
        ticket = Ticket(self.last_number, reporter, what, urgency, now)
        self.open.append(ticket)
        return ticket


@plugin.command("ticket")
async def ask(talk: Dialog, desk: State[Desk]) -> str:
    """Report that something is wrong; I will ask what."""
    try:
        what = await talk.ask("What is wrong?", validate=described, timeout=PATIENCE)
        urgency = await talk.ask("How urgent is it?", choices=URGENCIES, timeout=PATIENCE)
        if urgency == "urgent" and not await talk.confirm("Does nobody get any work done?", timeout=PATIENCE):
            urgency = "normal"
    except DialogTimeout:
        return "I take it that it can wait. /ticket starts again."
    reporter = talk.event.message.sender_display_name or "somebody"
    ticket = desk.value.file(reporter, what, urgency, await talk.now())
    return f"Thank you, {reporter}. That is ticket {ticket.number}, {ticket.urgency}."


def described(text: str) -> str:
    """Refuse descriptions of fewer than three words."""
    if len(text.split()) < 3:
        problem = "Please describe it in a few words."
        raise ValueError(problem)
    return text.strip()


@plugin.command("tickets")
async def list_tickets(ctx: Context, desk: State[Desk]) -> str:
    """List the open tickets, the most urgent first."""
    tickets = sorted(desk.value.open, key=lambda ticket: (-URGENCIES.index(ticket.urgency), ticket.number))
    lines = [
        f"{ticket.number}. {ticket.what} ({ticket.urgency}, {ticket.reporter}, {ticket.opened:%d %b})"
        for ticket in tickets
    ]
    return "\n".join(lines) or "Nothing is open."


@plugin.command("close")
async def close(ctx: Context, number: int, desk: State[Desk]) -> str:
    """Close a ticket, by its NUMBER in /tickets."""
    left = [ticket for ticket in desk.value.open if ticket.number != number]
    if len(left) == len(desk.value.open):
        return f"There is no open ticket {number}. /tickets lists them."
    desk.value.open = left
    return f"Ticket {number} is closed."
