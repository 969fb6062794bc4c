"""Plugin settings: validation against the pydantic model of a plugin's factory."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, get_type_hints

from chatbot.dispatch.source_location import place_of, place_of_error
from chatbot.errors import PluginError, PluginSettingsError, described
from chatbot.plugin.plugin import Plugin

if TYPE_CHECKING:
    from pydantic import BaseModel


def make_plugin(found: object, place: str, settings: Mapping[str, Any] | None) -> Plugin:
    """Return the plugin of a module, or call its factory with the settings.

    Args:
        found: the module's attribute `plugin`: a `Plugin` or a factory.
        place: the module's file.
        settings: the settings in bots.yaml; None if there are none.

    Raises:
        PluginSettingsError: the settings do not fit the factory's model.
        PluginError: `found` is neither a plugin nor a factory, or the factory fails.
    """
    if isinstance(found, Plugin):
        if settings:
            given = ", ".join(map(repr, settings))
            msg = (
                f"{found.place}: plugin {found.name!r} takes no settings, but has {given}; remove them, or make"
                " `plugin` a function that takes a pydantic model and returns the Plugin"
            )
            raise PluginError(msg)
        return found
    if isinstance(found, type) or not callable(found):
        msg = f"{place}: `plugin` is {found!r}; it must be a Plugin, or a function that creates one from settings"
        raise PluginError(msg)
    return _call(found, settings or {})


def settings_model(factory: Callable[..., object]) -> type[BaseModel] | None:
    """Return the pydantic model of a factory's settings, or None if it takes none.

    Raises:
        PluginError: its parameter is not a pydantic model.
    """
    from pydantic import BaseModel  # imported only for plugins with settings

    if inspect.iscoroutinefunction(factory):
        msg = f"{place_of(factory)}: the factory `plugin` is async; write a plain `def` that returns the Plugin"
        raise PluginError(msg)
    parameters = list(inspect.signature(factory).parameters.values())
    if not parameters:
        return None
    try:
        model = get_type_hints(factory).get(parameters[0].name)
    except Exception as error:  # evaluating an annotation may raise anything
        msg = f"{place_of(factory)}: the annotations of the factory `plugin` cannot be resolved: {error}"
        raise PluginError(msg) from error
    if len(parameters) > 1 or not (isinstance(model, type) and issubclass(model, BaseModel)):
        msg = (
            f"{place_of(factory)}: the factory `plugin` takes one parameter, its settings, typed as a pydantic model:"
            " `def plugin(settings: Settings) -> Plugin`"
        )
        raise PluginError(msg)
    return model


def _call(factory: Callable[..., object], settings: Mapping[str, Any]) -> Plugin:
    model = settings_model(factory)
    place = place_of(factory)
    if model is None and settings:
        msg = f"{place}: this plugin takes no settings, but has {', '.join(map(repr, settings))}; remove them"
        raise PluginError(msg)
    arguments = [] if model is None else [_validated(model, settings, place)]
    try:
        made = factory(*arguments)
    except PluginError:
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        where = place_of_error(error) or place
        msg = f"{where}: the factory `plugin` failed: {described(error)}; a plugin must load without that"
        raise PluginError(msg) from error
    if not isinstance(made, Plugin):
        msg = f"{place}: the factory `plugin` returned {made!r}; it must return a Plugin"
        raise PluginError(msg)
    return made


def _validated(model: type[BaseModel], settings: Mapping[str, Any], place: str) -> BaseModel:
    from pydantic import ValidationError  # imported only for plugins with settings

    problems = _unknown(model, settings)
    try:
        valid = model.model_validate(dict(settings))
    except ValidationError as error:
        problems += [(problem["loc"], problem["msg"]) for problem in error.errors(include_url=False)]
        raise PluginSettingsError(place, problems) from None
    if problems:
        raise PluginSettingsError(place, problems)
    return valid


def _unknown(model: type[BaseModel], settings: Mapping[str, Any]) -> list[tuple[tuple[int | str, ...], str]]:
    """Return settings that the model would silently ignore; a model that configures `extra` decides itself."""
    if model.model_config.get("extra") is not None:
        return []
    known = {name for field, info in model.model_fields.items() for name in (field, info.alias) if name}
    problems: list[tuple[tuple[int | str, ...], str]] = []
    for name in settings:
        if name not in known:
            import difflib  # here: nearly no daemon needs it

            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known)) or 'none'}"
            problems.append(((name,), f"there is no such setting; {hint}"))
    return problems
