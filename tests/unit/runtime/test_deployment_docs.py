"""The unit and the manifests run what there is, and never the emulator in silence."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from chatbot.cli.app import app
from chatbot.config import Config, load_config
from chatbot.errors import ConfigError
from chatbot.stores import open_store

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs" / "deployment"
AZURE = "endpoint=https://my.communication.azure.com/;accesskey=c2VjcmV0"


def unit() -> configparser.SectionProxy:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DOCS / "systemd" / "chatbot.service")
    return parser["Service"]


KINDS = {"chatbot.yaml": "StatefulSet", "chatbot-postgresql.yaml": "Deployment"}
SHARED = "chatbot-postgresql.yaml"
STORE = "postgresql://bots:secret@db.example.com/bots"


def manifests(file: str = "chatbot.yaml") -> dict[str, Any]:
    documents = yaml.safe_load_all((DOCS / "kubernetes" / file).read_text())
    return {f"{document['kind']} {document['metadata']['name']}": document for document in documents}


def workload(file: str = "chatbot.yaml") -> dict[str, Any]:
    """The specification of what runs the pods."""
    found: dict[str, Any] = manifests(file)[f"{KINDS[file]} chatbot"]["spec"]
    return found


def container(file: str = "chatbot.yaml") -> dict[str, Any]:
    (only,) = workload(file)["template"]["spec"]["containers"]
    assert isinstance(only, dict)
    return only


def config_of_manifest(tmp_path: Path, environ: dict[str, str], file: str = "chatbot.yaml") -> Config:
    """As the pod has it, each file where it is mounted, below this directory."""
    mounts = {mount["name"]: mount for mount in container(file)["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in workload(file)["template"]["spec"]["volumes"]}
    for name in ("config", "bots"):
        mount, files = mounts[name], manifests(file)[f"ConfigMap {volumes[name]['configMap']['name']}"]["data"]
        for key, text in files.items():
            path = tmp_path / mount["mountPath"].lstrip("/")
            path = path if mount.get("subPath") == key else path / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("/etc/chatbot/", f"{tmp_path}/etc/chatbot/"))
    return load_config(tmp_path / container(file)["command"][-1].lstrip("/"), environ)


def stages() -> dict[str, list[str]]:
    """The lines of the Dockerfile's stages, by name, without comments."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    found = re.split(r"^FROM .* AS (\w+)$", text, flags=re.MULTILINE)[1:]
    return {name: body.splitlines() for name, body in zip(found[::2], found[1::2], strict=True)}


def instruction(stage: str, word: str) -> list[str]:
    """The words of a stage's instruction in JSON form."""
    (line,) = [line for line in stages()[stage] if line.startswith(f"{word} ")]
    words = json.loads(line.removeprefix(f"{word} "))
    assert isinstance(words, list)
    return words


def commands() -> list[list[str]]:
    image = [*instruction("bots", "ENTRYPOINT"), *instruction("bots", "CMD")]
    return [shlex.split(unit()["ExecStart"]), *(container(file)["command"] for file in KINDS), image]


@pytest.mark.parametrize("command", commands())
def test_every_command_is_one_that_there_is_and_refuses_the_emulator(command: list[str]) -> None:
    _, bound, *_ = app.parse_args(command[1:])

    assert Path(command[0]).name == "chatbot"
    assert bound.arguments["require_azure"] is True
    assert bound.arguments["log_format"] == "json"


def test_each_configuration_says_what_to_set_where_nothing_is_set(tmp_path: Path) -> None:
    of_unit = DOCS / "systemd" / "bots.yaml"

    assert not load_config(of_unit, {"ACS_CONNECTION_STRING": AZURE}).uses_emulator
    with pytest.raises(ConfigError, match=r"set it in /etc/chatbot\.env to the connection string of your resource"):
        load_config(of_unit, {"ACS_CONNECTION_STRING": ""})
    with pytest.raises(ConfigError, match="set it to the connection string of your Communication Services resource"):
        config_of_manifest(tmp_path, {})


@pytest.mark.parametrize("file", KINDS)
def test_the_manifests_probes_ask_the_port_that_its_configuration_serves(tmp_path: Path, file: str) -> None:
    config = config_of_manifest(tmp_path, {"ACS_CONNECTION_STRING": AZURE, "CHATBOT_STORE": STORE}, file)
    ports = {port["name"]: port["containerPort"] for port in container(file)["ports"]}
    probes = {name: container(file)[f"{name}Probe"]["httpGet"] for name in ("liveness", "readiness", "startup")}

    assert config.server is not None
    assert config.server.listen == ("0.0.0.0", ports["status"])
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "liveness": "/healthz",
        "readiness": "/readyz",
        "startup": "/healthz",
    }
    assert {probe["port"] for probe in probes.values()} == {"status"}


def test_several_pods_share_a_store_whose_url_is_a_secret_and_move_threads_before_one_ends(tmp_path: Path) -> None:
    environ = {"ACS_CONNECTION_STRING": AZURE, "CHATBOT_STORE": STORE}
    config, pods = config_of_manifest(tmp_path, environ, SHARED), workload(SHARED)
    labels = pods["template"]["metadata"]["labels"]
    budget = manifests(SHARED)["PodDisruptionBudget chatbot"]["spec"]
    secrets = {one["name"]: one["valueFrom"]["secretKeyRef"] for one in container(SHARED)["env"] if "valueFrom" in one}

    assert config.store.get_secret_value() == STORE
    assert secrets.keys() == environ.keys()
    assert pods["replicas"] > 1
    assert pods["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    assert pods["selector"]["matchLabels"] == budget["selector"]["matchLabels"] == labels
    assert budget["maxUnavailable"] == 1
    assert pods["template"]["spec"]["terminationGracePeriodSeconds"] > config.drain_timeout.total_seconds()
    assert pods["template"]["spec"]["securityContext"]["runAsNonRoot"] is True
    assert container(SHARED)["securityContext"]["readOnlyRootFilesystem"] is True
    assert not any("persistentVolumeClaim" in volume for volume in pods["template"]["spec"]["volumes"])


def test_the_page_scales_and_tries_out_what_the_manifest_has() -> None:
    page = (ROOT / "docs" / "how-to" / "kubernetes.md").read_text()
    canary, scaler = (yaml.safe_load(text) for text in re.findall(r"^```yaml\n(.*?)^```", page, re.M | re.S))

    _, bound, *_ = app.parse_args(canary["command"][1:])

    assert bound.arguments["canary"] == 0.05
    assert [word for word in canary["command"] if word not in ("--canary", "5%")] == container(SHARED)["command"]
    assert f"{scaler['spec']['scaleTargetRef']['kind']} chatbot" in manifests(SHARED)
    assert scaler["spec"]["metrics"][0]["resource"]["name"] in container(SHARED)["resources"]["requests"]
    for command in re.findall(r"kubectl create secret generic chatbot .*(?:\n .*)?", page)[1:]:
        keys = set(re.findall(r"--from-literal=([\w-]+)=", command))
        env = container(SHARED)["env"]
        assert keys == {one["valueFrom"]["secretKeyRef"]["key"] for one in env if "valueFrom" in one}


def test_the_manifests_bots_are_in_a_file_that_may_change_while_the_pod_runs(tmp_path: Path) -> None:
    config = config_of_manifest(tmp_path, {"ACS_CONNECTION_STRING": AZURE})
    mount = next(mount for mount in container()["volumeMounts"] if mount["name"] == "bots")

    assert list(config.bots) == ["echo"]
    assert config.document.place(("bots", "echo")).source.name == str(tmp_path / "etc" / "chatbot" / "bots.yaml")
    assert "subPath" not in mount


def test_both_wait_longer_for_the_end_than_the_bots_take_for_it(tmp_path: Path) -> None:
    drain = config_of_manifest(tmp_path, {"ACS_CONNECTION_STRING": AZURE}).drain_timeout.total_seconds()
    grace = manifests()["StatefulSet chatbot"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]

    assert int(unit()["TimeoutStopSec"]) > drain
    assert grace > drain


def test_both_run_as_an_ordinary_user_on_a_read_only_file_system_and_one_at_a_time() -> None:
    pods = manifests()["StatefulSet chatbot"]["spec"]

    assert unit()["User"] == "chatbot"
    assert unit()["ProtectSystem"] == "strict"
    assert pods["template"]["spec"]["securityContext"]["runAsNonRoot"] is True
    assert container()["securityContext"]["readOnlyRootFilesystem"] is True
    assert pods["replicas"] == 1
    assert pods["volumeClaimTemplates"][0]["spec"]["accessModes"] == ["ReadWriteOncePod"]
    assert container()["workingDir"] == "/bots"


def test_systemd_restarts_what_may_recover_by_itself_and_nothing_else() -> None:
    assert unit()["Type"] == "notify-reload"
    assert unit()["Restart"] == "on-failure"
    assert unit()["RestartPreventExitStatus"].split() == ["2", "78"]


def test_the_images_run_as_an_ordinary_user_and_say_how_they_are() -> None:
    assert "USER 10001:10001" in stages()["base"]
    for stage in ("bots", "emulator"):
        assert not any(line.startswith("USER") for line in stages()[stage])
        assert sum(line.startswith("HEALTHCHECK") for line in stages()[stage]) == 1
    assert list(stages())[-1] == "bots"  # what a build without a target makes


def test_the_composed_bots_know_the_emulator_by_the_name_and_key_that_it_has() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    bots, emulator = services["bots"], services["emulator"]
    key = emulator["environment"]["CHATBOT_EMULATOR_KEY"]
    named = f"https://{emulator['environment']['CHATBOT_PUBLIC_HOST']}/;accesskey={key}"

    _, bound, *_ = app.parse_args(bots["command"])

    assert bound.arguments["log_format"] == "json"
    assert named in bots["environment"]["ACS_CONNECTION_STRING"]
    ours = {name: service for name, service in services.items() if "image" not in service}
    assert {name: service["build"]["target"] for name, service in ours.items()} == {
        "emulator": "emulator",
        "bots": "bots",
        "bots-1": "bots",
        "bots-2": "bots",
    }
    assert all(service["read_only"] and service["cap_drop"] == ["ALL"] for service in ours.values())


def test_the_composed_bots_reach_the_postgresql_beside_them() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    postgres, bots = services["postgres"], services["bots"]
    page = (ROOT / "docs" / "how-to" / "postgresql.md").read_text()
    url = re.search(r"export CHATBOT_STORE='(.+)'", page)
    assert url is not None
    given = {
        name: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value)  # what Compose takes where nothing is set
        for name, value in postgres["environment"].items()
    }

    expected = f"postgresql://{given['POSTGRES_USER']}:{given['POSTGRES_PASSWORD']}@postgres/{given['POSTGRES_DB']}"
    assert url[1] == f"{expected}?sslmode=disable"
    open_store(url[1], base_dir=ROOT)
    assert postgres["profiles"] == ["postgres", "replicas"]
    assert bots["environment"]["CHATBOT_STORE"] == "${CHATBOT_STORE:-sqlite:///chatbot.db}"
    assert bots["depends_on"]["postgres"]["required"] is False  # without the profile there is no such service
    assert "store: ${CHATBOT_STORE:-" in (ROOT / "bots.yaml").read_text()


def test_the_composed_replicas_share_a_store_and_nothing_else() -> None:
    composed = yaml.safe_load((ROOT / "compose.yaml").read_text())
    replicas = [composed["services"][name] for name in ("bots-1", "bots-2")]
    page = (ROOT / "docs" / "how-to" / "postgresql.md").read_text()
    own = [volume.partition(":")[0] for one in replicas for volume in one["volumes"] if volume.endswith(":/bots")]
    stores = {re.sub(r"\$\{\w+:-(.*?)\}", r"\1", one["environment"]["CHATBOT_STORE"]) for one in replicas}
    bots = composed["services"]["bots"]

    assert len(set(own)) == len(own) == 2
    assert {"emulator", *own, "state", "postgres"} == set(composed["volumes"])
    assert stores == set(re.findall(r"export CHATBOT_STORE='(.+)'", page))
    for one in replicas:
        assert one["profiles"] == ["replicas"]
        assert one["command"] == bots["command"]
        assert one["environment"] | {"CHATBOT_STORE": ""} == bots["environment"] | {"CHATBOT_STORE": ""}
        assert set(one["depends_on"]) == {"emulator", "postgres"}
    for command in re.findall(r"docker compose --profile replicas \w+ .*", page):
        assert {word for word in command.split() if word.startswith("bots")} <= {"bots-1", "bots-2"}


def test_systemd_itself_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not here: the unit is read by the real systemd only where there is one")
    version = int(subprocess.run([analyze, "--version"], capture_output=True, text=True, check=True).stdout.split()[1])
    text = (DOCS / "systemd" / "chatbot.service").read_text()
    if version < 253:  # as before-253.conf makes it
        older = (DOCS / "systemd" / "before-253.conf").read_text().partition("[Service]\n")[2]
        text = text.replace("Type=notify-reload\n", older)
    program = tmp_path / "chatbot"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (tmp_path / "chatbot.service").write_text(text.replace("/opt/chatbot/bin/chatbot", str(program)))

    verified = subprocess.run(
        [analyze, "verify", str(tmp_path / "chatbot.service")], capture_output=True, text=True, check=False
    )

    assert (verified.returncode, verified.stderr) == (0, "")
