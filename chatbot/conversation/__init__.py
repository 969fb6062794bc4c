"""Durable conversations: state, dialogs and timers."""

from chatbot.conversation.conversations import Conversations
from chatbot.conversation.dialog import Dialog
from chatbot.conversation.state import BotState, ProfileState, State, UserState, migration
from chatbot.conversation.unit_of_work import UnitOfWork

__all__ = ["BotState", "Conversations", "Dialog", "ProfileState", "State", "UnitOfWork", "UserState", "migration"]
