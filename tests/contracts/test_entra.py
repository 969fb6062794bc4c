"""The real azure-identity, against endpoints like Azure's on this machine, and the emulator that takes what it gets."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from chatbot.calibration.calibrate import chosen, probe
from chatbot.calibration.intents import IntentJournal
from chatbot.calibration.scene import Meter
from chatbot.emulator import Emulator, World, serve
from chatbot.emulator.server import authority
from chatbot.errors import ConfigError, ServiceError, Unauthorized, Unreachable
from chatbot.service.acs import AcsResource
from chatbot.service.entra import Credential, Entra
from tests.support.loopback import Answered, Asked, site
from tests.support.machine import KEY, RESOURCE, entra_token, metadata, needs_azure_identity

pytestmark = needs_azure_identity


async def use(credential: Credential, client_id: str | None = None, **options: Path) -> list[tuple[str, int]]:
    """Make a user of the emulator by Entra, and let it look at its threads; what was asked, and how it went."""
    emulator = Emulator(World(access_key=KEY), entra=True)
    async with serve(emulator, tls=False) as running:
        resource = AcsResource(running.http_endpoint, entra=Entra(credential, client_id), **options)
        async with resource:
            user = await resource.create_user()
            page = await resource.chat(user, resource.issued_tokens(user)).list_threads()
            assert page.items == ()
            await resource.revoke_tokens(user)
        assert list(emulator.world.state.users) == [user]
        return [(call.operation, call.status) for call in emulator.calls]


WHOLE = [("create_user", 201), ("issue_token", 200), ("list_threads", 200), ("revoke_tokens", 204)]


async def test_a_managed_identity_of_an_app_service_makes_users_and_issues_tokens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with site(metadata) as machine:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{machine.url}/msi/token")
        monkeypatch.setenv("IDENTITY_HEADER", "the machine's own secret")

        assert await use("managed-identity", "11111111-aaaa") == WHOLE

    (asked,) = machine.requests  # once for all calls
    assert asked.headers["X-IDENTITY-HEADER"] == "the machine's own secret"
    assert asked.query == {"api-version": "2019-08-01", "resource": RESOURCE, "client_id": "11111111-aaaa"}


async def test_a_managed_identity_of_a_machine_asks_its_metadata_service(monkeypatch: pytest.MonkeyPatch) -> None:
    with site(metadata) as machine:
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", machine.url)

        assert await use("managed-identity") == WHOLE

    asked = machine.requests[-1]
    assert (asked.path, asked.query["resource"]) == ("/metadata/identity/oauth2/token", RESOURCE)
    assert asked.headers["Metadata"] == "true"


async def test_a_workload_identity_shows_the_pods_token_to_entra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def entra(asked: Asked) -> Answered:
        return Answered(200, {"access_token": entra_token(), "expires_in": 3600, "token_type": "Bearer"})

    trust = await anyio.to_thread.run_sync(authority, tmp_path)
    pod = tmp_path / "token"
    await anyio.Path(pod).write_text("the pod's own token")
    with site(entra, tls=await anyio.to_thread.run_sync(trust.server_context, ["127.0.0.1"])) as login:
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", login.url)
        monkeypatch.setenv("AZURE_TENANT_ID", "our-tenant")
        monkeypatch.setenv("AZURE_CLIENT_ID", "our-application")
        monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(pod))

        assert await use("workload-identity", ca_file=trust.ca_file) == WHOLE

    asked = login.requests[-1]
    assert asked.path == "/our-tenant/oauth2/v2.0/token"
    assert "client_id=our-application" in asked.body
    assert "scope=https%3A%2F%2Fcommunication.azure.com%2F%2F.default" in asked.body
    assert "client_assertion=the+pod%27s+own+token" in asked.body


@pytest.mark.skipif(os.name != "posix", reason="the Azure CLI's stand-in is a shell's script")
async def test_a_login_of_the_azure_cli_is_accepted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answer = {"accessToken": entra_token(), "expires_on": int(time.time()) + 3600, "tokenType": "Bearer"}
    await _program(tmp_path, f"print({json.dumps(json.dumps(answer))})")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    assert await use("cli") == WHOLE


async def test_the_default_credential_uses_what_the_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    with site(metadata) as machine:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{machine.url}/msi/token")
        monkeypatch.setenv("IDENTITY_HEADER", "the machine's own secret")

        assert await use("default") == WHOLE


async def test_a_resource_is_probed_by_entra_but_for_its_signatures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    emulator = Emulator(World(access_key=KEY), entra=True)
    meter = Meter(time.monotonic)
    with site(metadata) as machine:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{machine.url}/msi/token")
        monkeypatch.setenv("IDENTITY_HEADER", "the machine's own secret")
        async with (
            serve(emulator, tls=False) as running,
            AcsResource(running.http_endpoint, entra=Entra("managed-identity")) as resource,
        ):
            result = await probe(resource, IntentJournal(tmp_path / "journal"), meter, chosen(["answers", "deletion"]))

    assert (result.findings.differences, result.left) == ({}, [])
    assert result.findings.found["deleted_thread"].value == "not-found"
    assert all(user.deleted for user in emulator.world.state.users.values())


async def test_a_machine_without_the_identity_is_an_error_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with site(lambda _: Answered(400, {"error": "invalid_request", "error_description": "Identity not found"})) as it:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{it.url}/msi/token")
        monkeypatch.setenv("IDENTITY_HEADER", "the machine's own secret")

        with pytest.raises(Unauthorized, match="managed identity") as caught:
            await use("managed-identity")

    assert "check that this machine has a managed identity" in str(caught.value)
    assert "the machine's own secret" not in str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="the Azure CLI's stand-in is a shell's script")
async def test_a_missing_login_is_an_error_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    await _program(tmp_path, "import sys; sys.exit('ERROR: Please run az login to setup account.')")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    with pytest.raises(Unauthorized, match="az login"):
        await use("cli")


async def test_a_silent_metadata_service_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    with site(metadata) as gone:
        pass
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{gone.url}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", "x")

    with pytest.raises(Unreachable, match="Microsoft Entra ID issues no token"):
        await use("managed-identity")


@pytest.mark.parametrize("claims", [{"exp": 1}, {"aud": "https://management.azure.com/"}])
async def test_the_emulator_refuses_what_entra_gave_out_for_others_or_long_ago(
    claims: Mapping[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(asked: Asked) -> Answered:
        return Answered(200, {**metadata(asked).body, "access_token": entra_token(**claims)})

    with site(stale) as machine:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{machine.url}/msi/token")
        monkeypatch.setenv("IDENTITY_HEADER", "x")

        with pytest.raises(ServiceError, match="cannot create a user: the service answered 401"):
            await use("managed-identity")


def test_a_workload_identity_outside_of_a_pod_is_refused_before_anything_is_asked() -> None:
    with pytest.raises(ConfigError, match=r"needs AZURE_TENANT_ID, AZURE_FEDERATED_TOKEN_FILE, AZURE_CLIENT_ID"):
        Entra("workload-identity").check({})
    Entra("workload-identity", "x").check({"AZURE_TENANT_ID": "t", "AZURE_FEDERATED_TOKEN_FILE": "f"})


def test_a_missing_library_is_said_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatbot.service.entra.find_spec", lambda _name: None)

    with pytest.raises(ConfigError, match=r"pip install 'chatbot-acs\[entra\]'"):
        Entra("default").check({})


def test_azure_identity_is_loaded_only_when_it_is_needed() -> None:
    program = "import sys, chatbot.runtime.daemon; sys.exit('azure.identity' in sys.modules)"

    assert os.spawnl(os.P_WAIT, sys.executable, sys.executable, "-c", program) == 0


async def _program(directory: Path, source: str) -> None:
    """A program called az."""
    program = anyio.Path(directory / "az")
    await program.write_text(f"#!{sys.executable}\n{source}\n")
    await program.chmod(0o755)
