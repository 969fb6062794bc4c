"""An emulator of Azure Communication Services Chat and Identity, for any language's SDK.

Shares no code with the bot: a shared model would share its mistakes.
"""

from chatbot.emulator.app import Call, Emulator
from chatbot.emulator.eventgrid import event_grid
from chatbot.emulator.faults import ConnectionLost, Fault, Faults
from chatbot.emulator.persistence import DataFileError, persist
from chatbot.emulator.quirks import Quirks
from chatbot.emulator.seed import SeedError
from chatbot.emulator.seed import apply_seed as plant_seed
from chatbot.emulator.seed import load as load_seed
from chatbot.emulator.server import PortTakenError, Running, serve
from chatbot.emulator.snapshots import SnapshotError
from chatbot.emulator.world import World

__all__ = [
    "Call",
    "ConnectionLost",
    "DataFileError",
    "Emulator",
    "Fault",
    "Faults",
    "PortTakenError",
    "Quirks",
    "Running",
    "SeedError",
    "SnapshotError",
    "World",
    "event_grid",
    "load_seed",
    "persist",
    "plant_seed",
    "serve",
]
