"""The Python SDK's own live tests, as published, against the emulator; those that need Entra ask a fake issuer.

They are part of the source distributions on the package index, and are downloaded, never kept here. Of Microsoft's test
utilities they get a stand-in (`sdk_shim/`), in which everything is live. The fake issuer is this test: it gives out
tokens as a managed identity does, and as an authority for users with a password does; the emulator takes them because
they are signed with its secret, and expire as real ones do.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import tarfile
import time
import venv
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import pytest

from chatbot.emulator import World
from chatbot.emulator.server import authority
from tests.contracts.clients import ran_as_installed
from tests.support.loopback import Answered, Asked, site
from tests.support.machine import KEY, metadata, needs_azure_identity

pytestmark = [pytest.mark.sdk, pytest.mark.timeout(900), needs_azure_identity]

SHIM: Final = Path(__file__).parent / "sdk_shim"
APPLICATION: Final = "11111111-2222-3333-4444-555555555555"
TEAMS_USER: Final = "99999999-8888-7777-6666-555555555555"


@dataclass(frozen=True)
class Sources:
    """Where the tests of both packages are, and what they need besides."""

    identity: Path
    chat: Path
    libraries: Path


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """The source distributions of the installed versions, unpacked."""
    directory = tmp_path_factory.mktemp("sdk")
    venv.create(directory / "pip", with_pip=True)
    pip = [directory / "pip" / ("Scripts" if sys.platform == "win32" else "bin") / "pip", "--disable-pip-version-check"]
    found = {}
    for name in ("identity", "chat"):
        package = f"azure-communication-{name}=={version(f'azure-communication-{name}')}"
        options = ["download", "-q", "--no-deps", "--no-binary", ":all:", "-d", directory, package]
        subprocess.run([*pip, *options], check=True, timeout=300)
        (archive,) = directory.glob(f"azure[-_]communication[-_]{name}-*.tar.gz")
        with tarfile.open(archive) as file:
            file.extractall(directory, filter="data")
        found[name] = directory / archive.name.removesuffix(".tar.gz") / "tests"
    libraries = directory / "libraries"
    subprocess.run([*pip, "install", "-q", "--target", libraries, "python-dateutil>=2.9,<3"], check=True, timeout=300)
    return Sources(found["identity"], found["chat"], libraries)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a live run: the emulator over https, and the fake issuer in Entra's place."""
    directory = tmp_path_factory.mktemp("ca")
    trust = authority(directory)
    command = [sys.executable, "-m", "chatbot", "emulator", "--json", "--tls", "--entra", "--no-quotas"]
    command += ["--access-key", KEY, "--certificates", str(directory)]
    with (
        site(metadata) as machine,
        site(login, tls=trust.server_context(["127.0.0.1"])) as entra,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as emulator,
    ):
        assert emulator.stdout is not None
        facts = json.loads(emulator.stdout.readline())
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AZURE_", "PYTEST_"))}
        yield {
            **kept,
            "COMMUNICATION_LIVETEST_DYNAMIC_CONNECTION_STRING": facts["connection_string"],
            "IDENTITY_ENDPOINT": f"{machine.url}/msi/token",
            "IDENTITY_HEADER": "the machine's own secret",
            "COMMUNICATION_M365_APP_ID": APPLICATION,
            "COMMUNICATION_M365_AAD_AUTHORITY": entra.url,
            "COMMUNICATION_M365_AAD_TENANT": "adfs",  # an authority that MSAL does not look up at Microsoft's
            "COMMUNICATION_MSAL_USERNAME": "ann@example.com",
            "COMMUNICATION_MSAL_PASSWORD": "a password",
            "COMMUNICATION_EXPIRED_TEAMS_TOKEN": teams_token(int(time.time()) - 3600),
            "SKIP_INT_IDENTITY_EXCHANGE_TOKEN_TEST": "false",
            "SSL_CERT_FILE": str(trust.ca_file),
            "REQUESTS_CA_BUNDLE": str(trust.ca_file),
        }
        emulator.terminate()


def teams_token(expires: int) -> str:
    """A Teams user's token of the fake issuer."""
    return World(access_key=KEY).identities.issue_entra(expires, app=APPLICATION, user=TEAMS_USER)


def login(asked: Asked) -> Answered:
    """What the authority answers that MSAL asks for a user's token."""
    host = f"https://{asked.headers['Host']}/adfs"
    if asked.method == "GET":
        names = {"authorization_endpoint": "authorize", "token_endpoint": "token", "issuer": ""}
        return Answered(200, {name: f"{host}/{path}".rstrip("/") for name, path in names.items()})
    now = int(time.time())
    claims = {"aud": APPLICATION, "iss": host, "exp": now + 3600, "nbf": now, "oid": TEAMS_USER, "sub": TEAMS_USER}
    tokens = {"access_token": teams_token(now + 3600), "id_token": f"{_part({'alg': 'none'})}.{_part(claims)}.x"}
    return Answered(200, {**tokens, "token_type": "Bearer", "expires_in": 3600})


def _part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@dataclass(frozen=True)
class Outcome:
    """How a run of the SDK's tests ended."""

    passed: tuple[str, ...]
    failed: tuple[str, ...]
    skipped: tuple[str, ...]
    report: str


def run(tests: Path, environment: dict[str, str], libraries: Path, *files: str) -> Outcome:
    """Run test files of the SDK in a process of their own."""
    results = tests.parent / f"{files[0]}.xml"
    options = ["-p", "sdk_live", "-p", "no:chatbot", "-p", "no:cacheprovider", "-q", "--tb=short", f"--rootdir={tests}"]
    path = os.pathsep.join(map(str, (SHIM, tests, libraries)))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-o", "asyncio_mode=auto", f"--junitxml={results}", *files],
        cwd=tests,
        env={**environment, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    cases: dict[str, list[str]] = {"passed": [], "failed": [], "skipped": []}
    for case in ElementTree.parse(results).iter("testcase"):
        kinds = {child.tag for child in case}
        kind = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        cases[kind].append(f"{case.get('classname')}.{case.get('name')}")
    return Outcome(*(tuple(cases[kind]) for kind in ("passed", "failed", "skipped")), done.stdout[-8000:] + done.stderr)


def test_the_live_tests_of_identity_pass_also_those_that_need_entra(
    sources: Sources, environment: dict[str, str]
) -> None:
    files = ("test_communication_identity_client.py", "test_communication_identity_client_async.py")

    outcome = run(sources.identity, environment, sources.libraries, *files)

    assert outcome.failed == (), outcome.report
    assert outcome.skipped == (), outcome.report
    need_entra = [name for name in outcome.passed if re.search("token_credential|teams_user", name)]
    assert len(need_entra) >= 46, outcome.report
    what = f"its own {len(outcome.passed)} live tests, {len(need_entra)} of them by Microsoft Entra ID"
    ran_as_installed("`azure-communication-identity`", version("azure-communication-identity"), what)


def test_the_live_tests_of_chat_pass(sources: Sources, environment: dict[str, str]) -> None:
    files = tuple(sorted(path.name for path in sources.chat.glob("*_e2e*.py") if path.name.startswith("test_")))

    outcome = run(sources.chat, environment, sources.libraries, *files)

    assert outcome.failed == (), outcome.report
    assert outcome.skipped == (), outcome.report
    what = f"its own {len(outcome.passed)} live tests"
    ran_as_installed("`azure-communication-chat`", version("azure-communication-chat"), what)
