"""Who caused an event: the bot itself, another bot, or people. Pure; this is what keeps bots from talking to bots.

Rules:
    1. What the bot itself wrote or changed never comes back to it.
    2. What another chatbot caused (it carries a reply key, or comes from a bot of the same daemon) is for handlers
       with `from_bots=True` only.
    3. Bots that come into a thread or leave it are not people: they are taken out of the participants; an event
       that is left without any is no event for people.
"""

from __future__ import annotations

from dataclasses import replace

from chatbot.dispatch.occasion import BotInfo
from chatbot.events import (
    Event,
    MessageEvent,
    MessageReceived,
    ParticipantsAdded,
    ParticipantsRemoved,
    ReadReceiptReceived,
    SystemEvent,
    TopicUpdated,
)
from chatbot.model import UserId


def is_own(event: Event, bot: BotInfo) -> bool:
    """Whether the bot caused it itself."""
    return _author(event) == bot.user


def among_people(event: Event, bot: BotInfo) -> Event | None:
    """The event as it concerns people: without the daemon's other bots; None if nothing is left of it."""
    if isinstance(event, SystemEvent) and isinstance(event, ParticipantsAdded | ParticipantsRemoved):
        people = tuple(one for one in event.participants if one.user not in bot.siblings)
        if len(people) == len(event.participants):
            return event
        return replace(event, participants=people) if people else None
    if _author(event) in bot.siblings:
        return None
    if isinstance(event, MessageEvent) and event.message.reply_key is not None:
        return None
    return event


def _author(event: Event) -> UserId | None:
    if isinstance(event, MessageReceived):  # nearly always
        return event.message.sender
    match event:
        case ParticipantsAdded() | ParticipantsRemoved():
            return None
        case TopicUpdated():
            return event.initiator
        case ReadReceiptReceived():
            return event.receipt.reader
        case MessageEvent():
            return event.message.sender
        case _:
            return None
