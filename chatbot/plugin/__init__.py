"""What a bot author writes, a `Plugin`; and how plugins are found and loaded."""

from typing import TYPE_CHECKING

from chatbot.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from chatbot.plugin.loading import load_plugin, plugin_settings
    from chatbot.plugin.plugin import Plugin

__all__ = ["Plugin", "load_plugin", "plugin_settings"]

if not TYPE_CHECKING:  # type checkers know the names from above, and flag those that do not exist
    __getattr__ = lazy_exports(
        __name__,
        {
            "Plugin": "chatbot.plugin.plugin",
            "load_plugin": "chatbot.plugin.loading",
            "plugin_settings": "chatbot.plugin.loading",
        },
    )
