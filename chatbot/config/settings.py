"""What all models of bots.yaml are made of."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, SecretStr, StringConstraints

from chatbot.durations import parse_duration
from chatbot.errors import ConfigError


class Settings(BaseModel):
    """One mapping of bots.yaml: frozen, and without keys that nobody knows."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def checked(read: Callable[[], object], remedy: str = "") -> None:
    """Let whoever will use the value judge it; their refusal gets its place in the file."""
    try:
        read()
    except ConfigError as error:
        message = f"{error}{remedy}"
        raise ValueError(message) from None


def _only_secret(value: object) -> object:
    if isinstance(value, SecretStr) and value.get_secret_value().strip():
        return value
    message = "this is secret and does not stand in the file: write !secret env:NAME, or !secret file:PATH"
    raise ValueError(message)


Text = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Secret = Annotated[SecretStr, BeforeValidator(_only_secret)]

Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
"""A `timedelta` in a pydantic model, written as `parse_duration` reads it."""
