"""Which of a handler's parameters are state: `cart: State[Cart]`. Decided once, when plugins are loaded."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from chatbot.conversation.kind import Kind, kind_of, misfit
from chatbot.dispatch.signature import Function, name_of, refuse
from chatbot.events import Event

States: TypeAlias = Mapping[str, Kind]
"""The parameters of a handler that are state, by name."""


def states_of(function: Function, event: type[Event], parameters: Iterable[inspect.Parameter]) -> States:
    """Which parameters are state, and of which kind.

    Raises:
        PluginError: the value cannot be stored, or events of this class have no such state.
    """
    states: dict[str, Kind] = {}
    for one in parameters:
        try:
            kind = kind_of(one.annotation)
        except TypeError as error:
            refuse(function, f"parameter {one.name!r} of {name_of(function)}: {error}")
        if kind is None:
            continue
        reason = misfit(kind.handle, event)
        if reason is not None:
            refuse(function, f"parameter {one.name!r} of {name_of(function)} is a {kind.handle.__name__}, but {reason}")
        states[one.name] = kind
    return states
