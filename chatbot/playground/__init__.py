"""The playground: a page on loopback on which an author talks to bots on the emulator, and sees how they think.

It talks to the emulator over its routes and control API, and to the bots over the interfaces in `channel.py`; it knows
neither of their internals.
"""

from chatbot.playground.channel import BotsApi, Notes, Playground
from chatbot.playground.emulator_client import EmulatorApi
from chatbot.playground.page import serve_playground

__all__ = ["BotsApi", "EmulatorApi", "Notes", "Playground", "serve_playground"]
