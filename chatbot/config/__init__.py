"""What operators write in bots.yaml: read, checked whole, and handed on as frozen settings."""

from chatbot.config.load import load_config
from chatbot.config.schema import BotConfig, Config, EmulatorConfig, LogConfig, PluginConfig, PollConfig

__all__ = ["BotConfig", "Config", "EmulatorConfig", "LogConfig", "PluginConfig", "PollConfig", "load_config"]
