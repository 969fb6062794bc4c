"""Arguments of timers: validates and stores the arguments of `ctx.later` until the timer is due."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chatbot.dispatch.arguments import Values
from chatbot.errors import CannotStore, StateError
from chatbot.stores.serialization import Form, check_size, from_json, to_json


@dataclass(frozen=True, slots=True)
class TimerPayload:
    """The arguments of a timer's function.

    Args:
        function: the function's name.
        forms: the stored form of each parameter.
        required: the parameters without a default.
    """

    function: str
    forms: Mapping[str, Form]
    required: frozenset[str]

    def encode(self, values: Mapping[str, Any]) -> str:
        """Convert arguments to their stored form.

        Raises:
            TypeError: the arguments do not fit the function's parameters.
            CannotStore: an argument is not of its declared type; the text names the argument.
        """
        if values.keys() - self.forms.keys() or self.required - values.keys():
            takes = ", ".join(self.forms) or "nothing"
            msg = f"timer {self.function} takes {takes}, but is to be called with {', '.join(values) or 'nothing'}"
            raise TypeError(msg)
        encoded = {name: self.forms[name].encode(one, f"{self.function}.{name}") for name, one in values.items()}
        return check_size(to_json(encoded), f"what timer {self.function} is to be called with")

    def decode(self, stored: str) -> Values:
        """Read arguments from their stored form.

        Raises:
            StateError: the function was changed and no longer accepts the stored arguments.
        """
        values = from_json(stored)
        try:
            if values.keys() - self.forms.keys() or self.required - values.keys():
                problem = f"{', '.join(values) or 'nothing'}"
                raise CannotStore(problem)
            return Values({name: self.forms[name].decode(one, name) for name, one in values.items()})
        except CannotStore as error:
            msg = f"timer {self.function} was set to be called with other arguments than it takes now: {error}"
            raise StateError(msg) from error
