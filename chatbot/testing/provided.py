"""Check the plugins that a test gives, and the objects it provides in place of what their providers make."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from chatbot.dispatch import HandlerSource
from chatbot.dispatch.handler import Handler
from chatbot.dispatch.parameters import type_name
from chatbot.dispatch.source_location import place_of
from chatbot.plugin import Plugin

__tracebackhide__ = True  # pytest: what is of interest is the author's test and code


class _Provided:
    """A plugin whose handlers get objects of the test.

    Args:
        plugin: the plugin with the handlers.
        provide: objects by type.
    """

    def __init__(self, plugin: Plugin, provide: Mapping[Any, object]) -> None:
        self._plugin = plugin
        self._provide = provide

    def handlers(self) -> Sequence[Handler]:
        return self._plugin.handlers(self._provide)


def with_provided(plugins: Sequence[Any], provide: Mapping[Any, object], caller: str) -> list[HandlerSource]:
    """Return the plugins, with these objects in place of those that their providers make.

    Args:
        plugins: the plugins that the test passed.
        provide: objects by type.
        caller: the function that it called.

    Raises:
        TypeError: one of them is not a plugin, but, for example, the function that makes it.
    """
    for plugin in [plugins] if isinstance(plugins, Plugin | str) or not isinstance(plugins, Sequence) else plugins:
        if not isinstance(plugin, Plugin) and not _has_handlers(plugin):
            raise TypeError(_not_a_plugin(plugin, caller))
    if isinstance(plugins, Plugin):
        msg = f"{caller} takes a list of plugins for each bot: write [plugin], not plugin"
        raise TypeError(msg)
    sources: list[Any] = [
        _Provided(plugin, provide) if provide and isinstance(plugin, Plugin) else plugin for plugin in plugins
    ]
    return sources


def check_provided(sources: Sequence[HandlerSource], provide: Mapping[Any, object]) -> None:
    """Check that a handler asks for each provided object.

    Raises:
        TypeError: no handler asks for one of the types, or a class is given instead of an instance.
    """
    if not provide:
        return
    asked = {provider.makes for source in sources for handler in source.handlers() for provider in handler.providers}
    for type_, thing in provide.items():
        if inspect.isclass(type_) and inspect.isclass(thing) and issubclass(thing, type_):
            name = thing.__name__
            msg = f"provide= gives the class {name} for {type_name(type_)}; give an instance, {name}()"
            raise TypeError(msg)
        if type_ not in asked:
            names = ", ".join(sorted(map(type_name, asked))) or "nothing"
            msg = f"provide= gives {type_name(type_)}, which no handler asks for; handlers ask for {names}"
            raise TypeError(msg)


def _has_handlers(one: object) -> bool:
    return not inspect.isclass(one) and callable(getattr(one, "handlers", None))


def _not_a_plugin(one: object, caller: str) -> str:
    if inspect.isfunction(one):
        call = f"{one.__name__}({'…' if inspect.signature(one).parameters else ''})"
        return f"{caller} was given the function {one.__name__} ({place_of(one)}), not a plugin; call it: {call}"
    if isinstance(one, ModuleType):
        return f"{caller} was given the module {one.__name__}; give it the plugin: {one.__name__}.plugin"
    return f"{caller} takes plugins, not {one!r}; write `from plugins.name import plugin`, and give it `plugin`"
