"""Read and validate bots.yaml, and return it as frozen settings.

The names below are imported on first use: pydantic takes long to import, and commands that must answer soon, such as
`chatbot status`, need only `source_location`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chatbot.config.load import load_config
    from chatbot.config.schema import BotConfig, Config, EmulatorConfig, LogConfig, PluginConfig, PollConfig
    from chatbot.config.service import EntraConfig, ServiceConfig

__all__ = [
    "BotConfig",
    "Config",
    "EmulatorConfig",
    "EntraConfig",
    "LogConfig",
    "PluginConfig",
    "PollConfig",
    "ServiceConfig",
    "load_config",
]

_MODULES = {"load_config": "load", "EntraConfig": "service", "ServiceConfig": "service"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    value = getattr(import_module(f"{__name__}.{_MODULES.get(name, 'schema')}"), name)
    globals()[name] = value
    return value
