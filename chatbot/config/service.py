"""`service:` in bots.yaml: one text, or a mapping that holds no key but says where the bots' tokens come from."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Discriminator, SecretStr, Tag, field_validator, model_validator

from chatbot.config.settings import Secret, Settings, Text, checked
from chatbot.service.connection import check_endpoint, check_token_endpoint


def _entra(value: object) -> object:
    return {"credential": value} if isinstance(value, str) else value


class EntraConfig(Settings):
    """Microsoft Entra ID, which lets the bots in without a key; needs the extra `chatbot[entra]`.

    Args:
        credential: who the bots are: a `managed-identity`, a `workload-identity` of Kubernetes, whoever is logged in
            to the Azure `cli`, or `default`: the first of these, and of azure-identity's others, that there is.
        client_id: of a user-assigned managed identity, or of the workload's application.
    """

    credential: Literal["default", "managed-identity", "workload-identity", "cli"]
    client_id: Text | None = None

    @model_validator(mode="after")
    def _client_is_used(self) -> Self:
        if self.client_id is not None and self.credential == "cli":
            message = "client_id does nothing for the Azure cli; remove it, or take another credential"
            raise ValueError(message)
        return self


class TokenEndpointConfig(Settings):
    """An endpoint of your own that gives out tokens of the bots' users; docs/identity.md says how it is asked.

    Args:
        url: where it is; https, or http to this machine.
        authorization: what to send as `Authorization` header, such as "Bearer …", as `!secret`.
    """

    url: SecretStr
    authorization: Secret | None = None

    @field_validator("url")
    @classmethod
    def _known_url(cls, value: SecretStr) -> SecretStr:
        checked(lambda: check_token_endpoint(value.get_secret_value()))
        return value


class ServiceConfig(Settings):
    """A resource, and how the bots come by their tokens without its key; with neither, each bot has a `token`.

    Args:
        endpoint: of the resource, https://NAME.communication.azure.com.
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
    def _one_way(self) -> Self:
        if self.entra is not None and self.token_endpoint is not None:
            message = "entra and token_endpoint are two ways to come by tokens; keep one"
            raise ValueError(message)
        return self


def _kind(value: object) -> str:
    return "<mapping>" if isinstance(value, dict | ServiceConfig) else "<text>"


Service = Annotated[
    Annotated[SecretStr, Tag("<text>")] | Annotated[ServiceConfig, Tag("<mapping>")], Discriminator(_kind)
]
"""`service:` in bots.yaml; the tags are no keys of anybody's file."""
