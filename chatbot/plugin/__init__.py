"""What a bot author writes, a `Plugin`; and how plugins are found and loaded."""

from chatbot.plugin.loading import load_plugin, plugin_settings
from chatbot.plugin.plugin import Plugin

__all__ = ["Plugin", "load_plugin", "plugin_settings"]
