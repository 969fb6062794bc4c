"""What outlives a handler: state, dialogs and timers."""

from chatbot.conversation.conversations import Conversations
from chatbot.conversation.dialog import Dialog
from chatbot.conversation.memory import Memory
from chatbot.conversation.migrations import migration
from chatbot.conversation.state import BotState, ProfileState, State, UserState

__all__ = ["BotState", "Conversations", "Dialog", "Memory", "ProfileState", "State", "UserState", "migration"]
