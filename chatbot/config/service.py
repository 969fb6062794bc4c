"""Base classes and types of the models of bots.yaml, and the models of `service:`.

`service:` is one text, or a mapping without an access key that says where the bots' tokens come from.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    SecretStr,
    StringConstraints,
    Tag,
    field_validator,
    model_validator,
)

from chatbot.durations import parse_duration
from chatbot.errors import ConfigError
from chatbot.service.endpoint import check_endpoint, check_token_endpoint


class Settings(BaseModel):
    """Base of the models: frozen; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def checked(read: Callable[[], object], remedy: str = "") -> None:
    """Return a value as its later user reads it; a refusal becomes a problem with its place in the file."""
    try:
        read()
    except ConfigError as error:
        message = f"{error}{remedy}"
        raise ValueError(message) from None


def _only_secret(value: object) -> object:
    if isinstance(value, SecretStr) and value.get_secret_value().strip():
        return value
    message = "a secret must not be written in the file: use !secret env:NAME or !secret file:PATH"
    raise ValueError(message)


Text = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Secret = Annotated[SecretStr, BeforeValidator(_only_secret)]

Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
"""A `timedelta` in a pydantic model, written as `parse_duration` reads it."""


def _entra(value: object) -> object:
    return {"credential": value} if isinstance(value, str) else value


class EntraConfig(Settings):
    """Microsoft Entra ID, which authenticates the bots without a key; requires the extra `entra`.

    Args:
        credential: the identity to use: a `managed-identity`, a `workload-identity` of Kubernetes, the user who is
            logged in to the Azure `cli`, or `default`, the first that azure-identity finds.
        client_id: of a user-assigned managed identity, or of the workload's application.
    """

    credential: Literal["default", "managed-identity", "workload-identity", "cli"]
    client_id: Text | None = None

    @model_validator(mode="after")
    def _client_is_used(self) -> Self:
        if self.client_id is not None and self.credential == "cli":
            message = "client_id has no effect with the Azure cli; remove it, or use another credential"
            raise ValueError(message)
        return self


class TokenEndpointConfig(Settings):
    """An endpoint of your own that issues tokens of the bots' users; docs/how-to/authenticate.md has its protocol.

    Args:
        url: its URL; https, or http on this machine.
        authorization: the `Authorization` header to send, such as "Bearer …", as `!secret`.
    """

    url: SecretStr
    authorization: Secret | None = None

    @field_validator("url")
    @classmethod
    def _known_url(cls, value: SecretStr) -> SecretStr:
        checked(lambda: check_token_endpoint(value.get_secret_value()))
        return value


class ServiceConfig(Settings):
    """A resource, and the source of the bots' tokens without its key; without a source, each bot has a `token`.

    Args:
        endpoint: the endpoint of the resource, https://NAME.communication.azure.com.
        entra: Microsoft Entra ID.
        token_endpoint: an endpoint of your own.
    """

    endpoint: Text
    entra: Annotated[EntraConfig | None, BeforeValidator(_entra)] = None
    token_endpoint: TokenEndpointConfig | None = None

    @field_validator("endpoint")
    @classmethod
    def _known_endpoint(cls, value: str) -> str:
        checked(lambda: check_endpoint(value))
        return value

    @model_validator(mode="after")
    def _require_one_authentication(self) -> Self:
        if self.entra is not None and self.token_endpoint is not None:
            message = "entra and token_endpoint are both sources of tokens; keep one"
            raise ValueError(message)
        return self


def _kind(value: object) -> str:
    return "<mapping>" if isinstance(value, dict | ServiceConfig) else "<text>"


Service = Annotated[
    Annotated[SecretStr, Tag("<text>")] | Annotated[ServiceConfig, Tag("<mapping>")], Discriminator(_kind)
]
"""The type of `service:` in bots.yaml; the tags are not keys of the file."""
