"""`chatbot doctor`: each thing that can be wrong, wrong for real, and what it says to do."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from chatbot.cli import main
from tests.cli.conftest import Demo, Run, copy_of_the_clone
from tests.cli.doctor_report import Doctor, bots_yaml, keyed
from tests.cli.resource import Azure
from tests.support.loopback import Answered, site

Out = pytest.CaptureFixture[str]


# ── well ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_fresh_clone_is_well_and_nothing_is_changed(tmp_path: Path, capsys: Out) -> None:
    copy_of_the_clone(tmp_path)
    before = sorted(path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts)

    assert main(["doctor", str(tmp_path / "bots.yaml")]) == 0

    shown = capsys.readouterr().out
    assert sorted(path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts) == before
    assert {line[0] for line in shown.splitlines()[:-2]} == {"✓"}
    assert "chatbot.db: does not exist yet; it is created at the first start" in shown
    assert "runs in the bots' process" in shown
    assert shown.endswith("\nNo problems.\n")


def test_running_bots_on_the_emulator_are_well(demo: Demo, doctor: Doctor) -> None:
    report = doctor(demo.directory)

    assert (report.code, report.ills) == (0, [])
    assert "is healthy and ready" in report.one("bots")[1]
    assert "chatbot.db: in use" in report.one("store")[1]
    assert report.one("service")[1].startswith("the emulator, at http://127.0.0.1:")
    assert [text.partition(":")[0] for _, text, _ in report.all("token")] == ["echo", "helpdesk"]
    assert [text.partition(":")[0] for _, text, _ in report.all("quota")] == ["echo", "helpdesk"]


def test_a_resource_is_well_before_the_first_start_and_nothing_is_made_there(
    resource: Azure, tmp_path: Path, doctor: Doctor
) -> None:
    resource.bots_yaml(tmp_path)
    users = resource.control("GET", "status")["users"]

    report = doctor(tmp_path)

    assert (report.code, report.ills) == (0, [])
    assert "a trusted certificate until" in report.one("tls")[1]
    assert report.one("clock")[1] == "agrees with the service's"
    assert report.one("access")[1] == "the service grants access with its access key"
    assert "parrot has no known user yet" in report.one("token")[1]
    assert resource.control("GET", "status")["users"] == users
    assert not (tmp_path / "chatbot.db").exists()


def test_terminals_without_symbols_get_letters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    bots_yaml(tmp_path, keyed("https://nowhere.invalid"))
    command = [sys.executable, "-m", "chatbot", "doctor", str(tmp_path / "bots.yaml")]

    finished = subprocess.run(
        command, env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, text=True, check=False
    )

    assert finished.returncode == 69
    assert "x dns " in finished.stdout
    assert "+ python " in finished.stdout


# ── the configuration ─────────────────────────────────────────────────────────────────────────────────────────────


def test_mistakes_in_bots_yaml_are_its_problems_and_exit_78(tmp_path: Path, doctor: Doctor) -> None:
    report = doctor(bots_yaml(tmp_path, "emulatr", more="retention: soon\n"))

    assert report.code == 78
    assert [state for state, _, _ in report.all("configuration")] == ["failed", "failed"]
    assert "bots.yaml:2:10: service:" in report.all("configuration")[0][1]
    assert report.one("service")[1].startswith("not checked")


def test_a_key_in_a_file_that_others_may_read_is_a_warning(
    tmp_path: Path, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    bots_yaml(tmp_path, "emulator", more="include: [more.yaml]\n")
    (tmp_path / "more.yaml").write_text("store: sqlite:///chatbot.db # not postgresql://bot:hunter2@host/db\n")
    (tmp_path / "more.yaml").chmod(0o644)

    report = doctor(tmp_path)
    (tmp_path / "more.yaml").chmod(0o600)
    fixed = doctor(tmp_path)

    state, text, remedy = report.all("configuration")[1]
    assert (report.code, state) == (0, "warning")
    assert "more.yaml, which contains a secret in plain text" in text
    assert remedy.startswith(f"chmod 600 {tmp_path / 'more.yaml'}")
    assert "hunter2" not in json.dumps(report.findings)
    assert [one[0] for one in fixed.all("configuration")] == ["ok"]


def test_a_plugin_that_cannot_be_loaded_is_one(tmp_path: Path, doctor: Doctor) -> None:
    report = doctor(bots_yaml(tmp_path, "emulator", "plugins: [nowhere]"))

    assert (report.code, report.ills) == (78, ["plugins"])
    assert "bots.yaml:3:27: bots.parrot.plugins[0]: plugin nowhere" in report.one("plugins")[1]


def test_a_missing_ca_file_and_a_taken_port_are_reported_with_their_place(tmp_path: Path, doctor: Doctor) -> None:
    missing = doctor(bots_yaml(tmp_path, keyed("https://127.0.0.1:9"), more="ca_file: none.pem\n"))
    with site(lambda _: Answered()) as taken:
        port = taken.url.rpartition(":")[2]
        busy = doctor(bots_yaml(tmp_path, "emulator", more=f"emulator: {{port: {port}}}\n"))

    assert (missing.code, missing.ills) == (78, ["tls"])
    assert "none.pem cannot be used" in missing.one("tls")[1]
    assert (busy.code, busy.ills) == (78, ["emulator"])
    assert f"emulator.port: port {port} is in use" in busy.all("emulator")[0][1]


# ── the way to the service ────────────────────────────────────────────────────────────────────────────────────────


def test_a_name_that_nobody_knows(tmp_path: Path, doctor: Doctor) -> None:
    report = doctor(bots_yaml(tmp_path, keyed("https://nowhere.invalid")))

    assert (report.code, report.ills) == (69, ["dns"])
    assert report.one("dns")[1].startswith("nowhere.invalid has no address")
    assert "check the spelling of the endpoint" in report.one("dns")[2]
    assert report.one("token")[:2] == ("warning", "not checked: the service cannot be reached")


def test_a_port_that_takes_no_connections(tmp_path: Path, doctor: Doctor) -> None:
    with site(lambda _: Answered()) as gone:
        pass

    report = doctor(bots_yaml(tmp_path, keyed(gone.url.replace("http:", "https:"))))

    assert (report.code, report.ills) == (69, ["tcp"])
    assert "does not accept connections: Connection refused" in report.one("tcp")[1]
    assert "firewall" in report.one("tcp")[2]


def test_an_unreachable_or_refusing_proxy_is_reported(
    tmp_path: Path, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    bots_yaml(tmp_path, keyed("https://my.invalid"))
    with site(lambda _: Answered()) as proxy:  # it knows no CONNECT
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("//", "//me:hunter2@"))
        refusing = doctor(tmp_path)
    gone = doctor(tmp_path)

    assert refusing.ills == ["http"]
    assert "through the proxy 127.0.0.1:" in refusing.one("http")[1]
    assert gone.ills == ["tcp"]
    assert "correct HTTPS_PROXY and NO_PROXY" in gone.one("tcp")[2]
    assert "hunter2" not in json.dumps(refusing.findings + gone.findings)


@contextmanager
def secure(tmp_path: Path, name: str = "127.0.0.1", **options: datetime) -> Iterator[tuple[str, str]]:
    """An https server with a certificate of this name: its address, and a line that trusts its authority."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name, **options).configure_cert(context)  # type: ignore[arg-type]
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with site(lambda _: Answered(401), tls=context) as it:
        yield it.url, "ca_file: ca.pem\n"


def test_an_authority_that_is_not_trusted(tmp_path: Path, doctor: Doctor) -> None:
    with secure(tmp_path) as (url, trust):
        unknown = doctor(bots_yaml(tmp_path, keyed(url)))
        known = doctor(bots_yaml(tmp_path, keyed(url), more=trust))

    assert (unknown.code, unknown.ills) == (69, ["tls"])
    assert "the certificate of 127.0.0.1 is not trusted: unable to get local issuer" in unknown.one("tls")[1]
    assert "ca_file in bots.yaml, or SSL_CERT_FILE" in unknown.one("tls")[2]
    assert known.one("tls")[0] == "ok"


def test_authorities_that_the_environment_names_and_that_are_not_there(
    tmp_path: Path, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    with secure(tmp_path) as (url, _):
        report = doctor(bots_yaml(tmp_path, keyed(url)))

    assert [state for state, _, _ in report.all("tls")] == ["warning", "failed"]
    assert report.all("tls")[0][1] == "SSL_CERT_FILE names /nowhere/ca.pem, which does not exist"


def test_a_certificate_of_another_name_or_of_another_time(tmp_path: Path, doctor: Doctor) -> None:
    now = datetime.now(UTC)
    past = {"not_before": now - timedelta(days=9), "not_after": now - timedelta(days=1)}
    with secure(tmp_path, "elsewhere.example") as (url, trust):
        other = doctor(bots_yaml(tmp_path, keyed(url), more=trust))
    with secure(tmp_path, **past) as (url, trust):
        expired = doctor(bots_yaml(tmp_path, keyed(url), more=trust))
    with secure(tmp_path, not_after=now + timedelta(days=3)) as (url, trust):
        dying = doctor(bots_yaml(tmp_path, keyed(url), more=trust))

    assert "use the host name that the certificate contains" in other.one("tls")[2]
    assert "certificate has expired" in expired.one("tls")[1]
    assert "renew the certificate" in expired.one("tls")[2]
    assert dying.one("tls")[0] == "warning"
    assert ", in 2 days" in dying.one("tls")[1]


def test_a_port_with_another_protocol_is_reported(tmp_path: Path, doctor: Doctor) -> None:
    with site(lambda _: Answered()) as plain:
        report = doctor(bots_yaml(tmp_path, keyed(plain.url.replace("http:", "https:"))))

    assert report.ills == ["tls"]
    assert "check that this is the port of an https server" in report.one("tls")[2]


@pytest.mark.parametrize(
    ("seconds", "state", "text"),
    [
        (5, "ok", "agrees with the service's"),
        (-120, "warning", "s ahead of the service's"),
        (3600, "failed", "s behind the service's"),
    ],
)
def test_a_clock_that_is_off(
    resource: Azure, tmp_path: Path, doctor: Doctor, seconds: int, state: str, text: str
) -> None:
    resource.bots_yaml(tmp_path)
    resource.control("PUT", "clock", {"offset": seconds})
    try:
        report = doctor(tmp_path)
    finally:
        resource.control("PUT", "clock", {"offset": 0})

    assert report.one("clock")[0] == state
    assert text in report.one("clock")[1]
    assert report.code == (69 if state == "failed" else 0)
    assert report.one("access")[0] == "ok"  # the rest is looked at all the same


def test_a_service_that_does_not_say_the_time(tmp_path: Path, doctor: Doctor) -> None:
    with site(lambda _: Answered(401, date="soon")) as it:
        assert doctor(bots_yaml(tmp_path, keyed(it.url))).one("clock")[0] == "warning"


# ── being let in ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_key_of_another_resource(resource: Azure, tmp_path: Path, doctor: Doctor) -> None:
    report = doctor(resource.bots_yaml(tmp_path, keyed(resource.endpoint)).parent)

    assert (report.code, report.ills) == (69, ["access"])
    assert "copy the resource's connection string again" in report.one("access")[2]
    assert "c2VjcmV0" not in json.dumps(report.findings)


def test_a_token_that_is_not_given_out_or_has_expired(resource: Azure, tmp_path: Path, doctor: Doctor) -> None:
    bot = "  parrot: {plugins: [parrot], user: '8:acs:a_b'%s}"
    with site(lambda _: Answered(403, {"error": {"code": "Forbidden", "message": "Not for you."}})) as endpoint:
        own = f"{{endpoint: '{resource.endpoint}', token_endpoint: {{url: '{endpoint.url}/'}}}}"
        refused = doctor(resource.bots_yaml(tmp_path, own, bot % "").parent)
    (tmp_path / "token").write_text("e30.eyJleHAiOiAxNzAwMDAwMDAwfQ.c2ln")
    old = bot % ", token: !secret file:token"
    expired = doctor(resource.bots_yaml(tmp_path, f"{{endpoint: '{resource.endpoint}'}}", old).parent)

    assert (refused.code, refused.ills) == (69, ["token"])
    assert "Not for you." in refused.one("token")[1]
    assert "ask the operator of the token endpoint" in refused.one("token")[2]
    assert expired.ills == ["token"]
    assert "expired at 2023-11-14" in expired.one("token")[1]


def test_a_token_that_nothing_renews_is_a_warning_in_its_last_hour(
    resource: Azure, tmp_path: Path, doctor: Doctor, capsys: Out
) -> None:
    file = str(resource.bots_yaml(tmp_path))
    assert main(["identity", "create", file, "--token", "--lifetime", "1h"]) == 0
    user, token = capsys.readouterr().out.split()
    (tmp_path / "token").write_text(token)
    bot = f"  parrot: {{plugins: [parrot], user: '{user}', token: !secret file:token}}"

    report = doctor(resource.bots_yaml(tmp_path, f"{{endpoint: '{resource.endpoint}'}}", bot).parent)

    assert report.code == 0
    assert report.one("token")[0] == "warning"
    assert "it cannot be renewed automatically" in report.one("token")[2]


def test_a_quota_that_is_used_up(resource: Azure, tmp_path: Path, doctor: Doctor) -> None:
    file = resource.bots_yaml(tmp_path)
    assert main(["identity", "create", str(file), "--bot", "parrot"]) == 0
    resource.control("PUT", "faults", {"faults": ["list_threads:429"]})
    try:
        report = doctor(tmp_path)
    finally:
        resource.control("DELETE", "faults")

    assert report.code == 0
    assert report.one("quota")[0] == "warning"
    assert "throttles its requests (429)" in report.one("quota")[1]


def test_running_bots_report_what_was_refused_for_a_quota(
    resource: Azure, tmp_path: Path, doctor: Doctor, run: Run
) -> None:
    resource.bots_yaml(tmp_path)
    resource.control("PUT", "faults", {"faults": ["list_threads:429,times=3"]})
    bots = run(tmp_path)
    bots.event("daemon.started")
    try:
        resource.wait_until(lambda: "429" in str(doctor(tmp_path).all("quota")))
    finally:
        resource.control("DELETE", "faults")
    assert bots.stop() == 0
