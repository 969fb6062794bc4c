"""A real Prometheus scrapes a real daemon. Needs Debian's package `prometheus`, which has promtool in it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.conftest import PATIENCE, ROOT, Chat, Run, copy_of_the_clone

MONITORING = ROOT / "docs" / "monitoring"

pytestmark = [pytest.mark.prometheus, pytest.mark.timeout(120)]


class Prometheus:
    """A server that runs, asked over its HTTP API."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._pause = threading.Event()

    def ask(self, path: str, **values: str) -> Any:
        """The data of an answer; an answer that is an error fails the test with its text."""
        url = f"{self._address}/api/v1/{path}?{urllib.parse.urlencode(values)}"
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            pytest.fail(f"{values}: {error.read().decode()}")

    def query(self, text: str) -> dict[str, float]:
        """A query's values, each by the label `bot` of its series, or ""."""
        found = self.ask("query", query=text)["result"]
        return {one["metric"].get("bot", ""): float(one["value"][1]) for one in found}

    def awaits(self, is_so: Callable[[], bool]) -> None:
        """Ask again and again; the test's own time limit is the limit."""
        while True:
            try:
                if is_so():
                    return
            except urllib.error.URLError:
                pass  # it is starting
            self._pause.wait(0.2)


@pytest.fixture
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Prometheus]]:
    program = shutil.which("prometheus")
    assert program, "this is tested with a real Prometheus, which is not here: apt-get install prometheus"
    directory = tmp_path_factory.mktemp("prometheus")
    started: list[subprocess.Popen[bytes]] = []

    def start(target: str) -> Prometheus:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(MONITORING / "alerts.yaml")],
            "scrape_configs": [{"job_name": "chatbot", "static_configs": [{"targets": [target]}]}],
        }
        (directory / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
        options = ["--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address=127.0.0.1:{port}"]
        with (directory / "log").open("wb") as log:
            started.append(subprocess.Popen([program, *options], cwd=directory, stdout=log, stderr=log))
        return Prometheus(f"http://127.0.0.1:{port}")

    yield start
    for process in started:
        process.terminate()
        process.wait(PATIENCE)


def test_promtool_accepts_the_alert_rules() -> None:
    checked = subprocess.run(
        ["promtool", "check", "rules", str(MONITORING / "alerts.yaml")], capture_output=True, text=True, check=False
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "SUCCESS" in checked.stdout


def test_every_alert_fires_when_it_should_and_not_otherwise(tmp_path: Path) -> None:
    """`promtool test rules` over the rules, without their annotations: it would have every text written twice."""
    rules_file = yaml.safe_load((MONITORING / "alerts.yaml").read_text())
    for rule in rules_file["groups"][0]["rules"]:
        del rule["annotations"]
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump(rules_file))
    cases = yaml.safe_load((Path(__file__).parent / "alert_rules.yaml").read_text())
    (tmp_path / "cases.yaml").write_text(yaml.safe_dump({**cases, "rule_files": ["alerts.yaml"]}))

    tested = subprocess.run(
        ["promtool", "test", "rules", "cases.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert tested.returncode == 0, tested.stdout + tested.stderr
    checks = [check for case in cases["tests"] for check in case["alert_rule_test"]]
    names = {rule["alert"] for rule in rules_file["groups"][0]["rules"]}
    assert names == {check["alertname"] for check in checks if check.get("exp_alerts")}
    assert names == {check["alertname"] for check in checks if not check.get("exp_alerts")}


def test_a_real_prometheus_scrapes_the_bots_and_understands_rules_and_dashboard(
    tmp_path: Path, run: Run, chat: Chat, prometheus: Callable[[str], Prometheus]
) -> None:
    with (copy_of_the_clone(tmp_path) / "bots.yaml").open("a") as file:
        file.write("\nserver: {listen: '127.0.0.1:0'}\n")
    bots = run(tmp_path)
    server = prometheus(bots.event("status.served")["address"].removeprefix("http://"))
    bots.event("daemon.started")
    assert chat(tmp_path, "--as", "Ann", typed="hello\n").code == 0

    sent = 'chatbot_service_calls_total{bot="echo",operation="send_message",outcome="ok"}'
    server.awaits(lambda: server.query(sent) == {"echo": 1.0})
    server.awaits(lambda: all(rule["health"] == "ok" for rule in rules(server)))

    with urllib.request.urlopen(f"{bots.event('status.served')['address']}/metrics", timeout=PATIENCE) as answer:
        checked = subprocess.run(
            ["promtool", "check", "metrics"], input=answer.read(), capture_output=True, timeout=PATIENCE, check=False
        )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
    assert server.query("up") == {"": 1.0}
    server.awaits(lambda: server.query("chatbot_ready") == {"": 1.0})
    assert server.query("chatbot_emulator") == {"": 1.0}
    assert server.query("chatbot_threads") == {"echo": 1.0, "helpdesk": 1.0}
    assert {rule["name"] for rule in rules(server) if rule["state"] == "firing"} == set()
    assert server.query('chatbot_quota_left{bot="echo",operation="write_message"}')["echo"] > 0
    assert server.query("chatbot_tasks")[""] > 3
    assert server.query("chatbot_memory_bytes")[""] == pytest.approx(
        server.query("process_resident_memory_bytes")[""], rel=0.2
    )
    for panel in json.loads((MONITORING / "dashboard.json").read_text())["panels"]:
        for target in panel["targets"]:
            server.query(target["expr"].replace("$instance", ".*").replace("$bot", ".*"))


def rules(server: Prometheus) -> list[dict[str, Any]]:
    return [rule for group in server.ask("rules")["groups"] for rule in group["rules"]]
