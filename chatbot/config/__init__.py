"""What operators write in bots.yaml: read, checked whole, and handed on as frozen settings."""

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
