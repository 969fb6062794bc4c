"""Authentication with Microsoft Entra ID instead of an access key, through azure-identity.

Entra tokens are used with the identity service, which issues the user tokens that the chat service accepts, and with
databases of Azure, where they are passwords.
azure-identity is an optional extra. It is imported on first use, because its import takes as long as all others
together. It runs in worker threads, because its aio variant starts programs and reads files on the event loop.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal

import anyio
import anyio.to_thread
from azure.core.credentials import AccessToken
from azure.core.exceptions import AzureError, ServiceRequestError, ServiceResponseError

from chatbot.distribution import install_command
from chatbot.errors import ConfigError, Unauthorized, Unreachable
from chatbot.service import failures
from chatbot.service.transport import tls_context

INSTALL: Final = install_command("entra")

Credential = Literal["default", "managed-identity", "workload-identity", "cli"]

_WORKLOAD_VARIABLES: Final = ("AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE")
_REMEDIES: Final[Mapping[Credential, str]] = {
    "default": "log in with `az login`, or give this machine a managed or workload identity",
    "managed-identity": "check that this machine has a managed identity, and that client_id, if given, is one of its",
    "workload-identity": "check the pod's service account, its label azure.workload.identity/use, and the federation",
    "cli": "log in with `az login`",
}


@dataclass(frozen=True, slots=True)
class Entra:
    """The identity of this process in Microsoft Entra ID.

    Args:
        credential: the kind of credential: a managed identity, a workload identity of Kubernetes, the account of the
            Azure CLI, or the first of azure-identity's default chain that works.
        client_id: the client id of a user-assigned managed identity or of the workload's application; None uses the
            only one there is.
    """

    credential: Credential
    client_id: str | None = None

    def check(self, environ: Mapping[str, str]) -> None:
        """Check the configuration without a request.

        Args:
            environ: the environment, in which the cluster's webhook sets the variables of a workload identity.

        Raises:
            ConfigError: a package is not installed, or a variable is not set.
        """
        if find_spec("azure.identity") is None:
            msg = f"Microsoft Entra ID needs the package azure-identity: {INSTALL}"
            raise ConfigError(msg)
        if self.credential != "workload-identity":
            return
        names = _WORKLOAD_VARIABLES if self.client_id else (*_WORKLOAD_VARIABLES, "AZURE_CLIENT_ID")
        if missing := [name for name in names if not environ.get(name)]:
            msg = (
                f"a workload identity needs {', '.join(missing)}, which the cluster's webhook sets in pods with the "
                "label azure.workload.identity/use; is this one?"
            )
            raise ConfigError(msg)

    @asynccontextmanager
    async def open(self, ca_file: Path | None) -> AsyncIterator[EntraCredential]:
        """Open a credential for the SDK.

        Args:
            ca_file: a PEM file of certificate authorities to trust in addition to the system's.
        """
        made = await anyio.to_thread.run_sync(self._make, ca_file)
        try:
            yield EntraCredential(self, made)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(made.close)

    def _make(self, ca_file: Path | None) -> Any:
        library = import_module("azure.identity")
        way = {"transport": _transport(ca_file), "retry_total": 0}  # callers retry
        match self.credential:
            case "managed-identity":
                return library.ManagedIdentityCredential(client_id=self.client_id, **way)
            case "workload-identity":
                return library.WorkloadIdentityCredential(client_id=self.client_id, **way)
            case "cli":
                return library.AzureCliCredential()
        chosen = {"managed_identity_client_id": self.client_id, "workload_identity_client_id": self.client_id}
        return library.DefaultAzureCredential(**way, **{name: id for name, id in chosen.items() if id is not None})


def _transport(ca_file: Path | None) -> Any:
    """Return azure-core's blocking transport with our TLS context; it uses the proxies of the environment."""
    requests = import_module("requests")
    context = tls_context(ca_file)

    class Adapter(requests.adapters.HTTPAdapter):  # type: ignore[misc,name-defined]
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> Any:
            return super().init_poolmanager(*args, **kwargs, ssl_context=context)

    session = requests.Session()
    session.mount("https://", Adapter())
    return import_module("azure.core.pipeline.transport").RequestsTransport(session=session)


DATABASE_SCOPE: Final = "https://ossrdbms-aad.database.windows.net/.default"
"""The scope of tokens that databases of Azure accept as passwords."""


async def database_token(credential: Credential, client_id: str | None) -> AccessToken:
    """Return a token for databases.

    Raises:
        ConfigError: a package is not installed, or a variable is not set.
        Unreachable: see `EntraCredential.get_token`.
        Unauthorized: see there.
    """
    entra = Entra(credential, client_id)
    await anyio.to_thread.run_sync(entra.check, os.environ)
    async with entra.open(None) as opened:
        return await opened.get_token(DATABASE_SCOPE)


class EntraCredential:
    """Wraps a credential of azure-identity and converts its failures to `ServiceError`s.

    Args:
        entra: the identity.
        credential: azure-identity's credential.
    """

    def __init__(self, entra: Entra, credential: Any) -> None:
        self._entra = entra
        self._credential = credential

    async def get_token(self, *scopes: str, **kwargs: Any) -> AccessToken:
        """Return a token for the identity service.

        Raises:
            Unreachable: Entra or the machine's metadata service does not respond.
            Unauthorized: Entra does not accept the identity.
        """
        try:
            ask = partial(self._credential.get_token, *scopes, **kwargs)
            token: AccessToken = await anyio.to_thread.run_sync(ask, abandon_on_cancel=True)
        except (AzureError, ValueError, OSError) as error:
            kind = self._entra.credential
            reason = failures.clean(str(error)) or type(error).__name__
            msg = f"Microsoft Entra ID issues no token ({kind}): {reason}; {_REMEDIES[kind]}"
            is_silence = isinstance(error, ServiceRequestError | ServiceResponseError)
            raise (Unreachable if is_silence else Unauthorized)(msg) from error
        return token
