"""Durable conversations: state, dialogs and timers."""

from typing import TYPE_CHECKING

from chatbot.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from chatbot.conversation.conversations import Conversations
    from chatbot.conversation.dialog import Dialog
    from chatbot.conversation.state import BotState, ProfileState, State, UserState, migration
    from chatbot.conversation.unit_of_work import UnitOfWork

__all__ = ["BotState", "Conversations", "Dialog", "ProfileState", "State", "UnitOfWork", "UserState", "migration"]

if not TYPE_CHECKING:  # type checkers know the names from above, and flag those that do not exist
    __getattr__ = lazy_exports(
        __name__,
        {
            "BotState": "chatbot.conversation.state",
            "Conversations": "chatbot.conversation.conversations",
            "Dialog": "chatbot.conversation.dialog",
            "ProfileState": "chatbot.conversation.state",
            "State": "chatbot.conversation.state",
            "UnitOfWork": "chatbot.conversation.unit_of_work",
            "UserState": "chatbot.conversation.state",
            "migration": "chatbot.conversation.state",
        },
    )
