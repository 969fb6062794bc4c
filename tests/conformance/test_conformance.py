"""The conformance scenarios against the emulator, and whether they would notice an implementation that is wrong."""

from __future__ import annotations

import dataclasses
import json
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from chatbot.emulator import Quirks
from tests.conformance.__main__ import main
from tests.conformance.runner import DIRECTORY, KINDS, Failure, Run, Scenario, Target, default_quirks, scenarios
from tests.support.machine import KEY

ALL: Final = list(scenarios())


@dataclasses.dataclass
class Served:
    """An emulator in another process."""

    endpoint: str

    def target(self, **quirks: Any) -> Target:
        return Target(self.endpoint, KEY, default_quirks() | quirks)

    def behave(self, quirks: dict[str, Any]) -> None:
        headers = {"Authorization": f"Bearer {KEY}"}
        data = json.dumps(quirks).encode()
        request = urllib.request.Request(f"{self.endpoint}/emulator/quirks", data, headers, method="PATCH")
        with urllib.request.urlopen(request):
            pass


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    command = [sys.executable, "-m", "chatbot", "emulator", "--json", "--access-key", KEY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield Served(json.loads(process.stdout.readline())["endpoint"])
        process.terminate()


@pytest.mark.parametrize("scenario", ALL, ids=lambda one: one.title)
def test_the_emulator_conforms(scenario: Scenario, served: Served) -> None:
    run = Run(served.target(), scenario)

    run()

    assert run.skipped < len(scenario.steps)


def test_the_documented_quirks_are_the_emulators_defaults() -> None:
    assert default_quirks() == {name.replace("_", "-"): value for name, value in dataclasses.asdict(Quirks()).items()}


def test_the_manual_describes_every_key_and_kind() -> None:
    page = (DIRECTORY.parents[1] / "docs" / "reference" / "conformance.md").read_text()
    keys = {key for scenario in ALL for step in scenario.steps for key in step}

    assert [name for name in (*sorted(keys), *KINDS) if f"`{name}`" not in page] == []


def test_every_quirk_that_a_scenario_names_exists_with_that_value() -> None:
    for scenario in ALL:
        for when in (scenario.when, *(step.get("when", {}) for step in scenario.steps)):
            for name, values in when.items():
                for value in values if isinstance(values, list) else [values]:
                    shown = str(value).lower() if isinstance(value, bool) else str(value)
                    Quirks.parse([f"{name}={shown}"])


OTHERWISE: Final = sorted(
    {
        (name, str(value).lower() if isinstance(value, bool) else value)
        for scenario in ALL
        for step in scenario.steps
        for name, value in step.get("when", {}).items()
        if default_quirks()[name] != value
    }
    | {
        ("error-envelope", "error"),
        ("edited-sequence", "next"),
        ("unauthorized-body", "envelope"),
        ("identifier-kind", "true"),
        ("phantom-threads", 2),
        ("link-after-last", "false"),
        ("revocation-delay-seconds", 60),
        ("retry-after", "none"),
        ("thread-ids", "short"),
        ("location-host", "global"),
    },
    key=str,
)
SAMPLE: Final = {"error-envelope"}


@pytest.mark.parametrize(
    ("quirk", "value", "every"),
    [
        *(
            pytest.param(name, value, 1, marks=pytest.mark.calibration, id=f"{name}={value}")
            for name, value in OTHERWISE
        ),
        *(
            pytest.param(name, value, 6, id=f"{name}={value}, a sample of the scenarios")
            for name, value in OTHERWISE
            if name in SAMPLE
        ),
    ],
)
def test_an_implementation_with_other_quirks_conforms_if_it_says_so(
    quirk: str, value: Any, every: int, served: Served
) -> None:
    typed = yaml.safe_load(str(value))
    served.behave({quirk: typed})
    try:
        for scenario in ALL[::every]:
            target = served.target(**{quirk: typed})
            if target.holds(scenario.when):
                Run(target, scenario)()
    finally:
        served.behave({quirk: default_quirks()[quirk]})


@pytest.mark.parametrize(
    ("quirk", "value"),
    [
        ("removed-reads", "forbidden"),
        ("too-large-status", 413),
        ("edited-sequence", "next"),
        ("link-after-last", False),
    ],
)
def test_an_implementation_with_other_quirks_fails_if_it_does_not_say_so(
    quirk: str, value: Any, served: Served
) -> None:
    concerned = [one for one in ALL if quirk in one.when or any(quirk in step.get("when", {}) for step in one.steps)]
    served.behave({quirk: value})
    try:
        failures = []
        for scenario in concerned:
            try:
                Run(dataclasses.replace(served.target(), patience_seconds=0.5), scenario)()
            except Failure as failure:
                failures.append(str(failure))
    finally:
        served.behave({quirk: default_quirks()[quirk]})

    assert failures
    assert "expected" in failures[0]


def test_the_scenarios_leave_nothing_behind(served: Served) -> None:
    request = urllib.request.Request(f"{served.endpoint}/emulator/threads", headers={"Authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(request) as answer:
        threads = json.load(answer)["threads"]
    for thread in threads[-20:]:
        headers = {"Authorization": f"Bearer {KEY}"}
        one = urllib.request.Request(f"{served.endpoint}/emulator/threads/{thread}", headers=headers)
        with urllib.request.urlopen(one) as answer:
            assert "deleted" in json.load(answer)["thread"]


def test_the_command_reports_in_words_and_in_json(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "key"
    key.write_text(f"{KEY}\n")
    options = ["--endpoint", served.endpoint, "--access-key-file", str(key)]

    def run(*more: str) -> tuple[int, str]:
        return main([*options, *more]), capsys.readouterr().out

    process = subprocess.run(
        [sys.executable, "-m", "tests.conformance", *options, "--only", "messages: Html"],
        cwd=DIRECTORY.parents[1],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    code, data = run("--only", "messages: Html", "--json")
    wrong = run("--only", "messages: Others", "--quirks", str(_written(tmp_path, {"edit-of-others": "allowed"})))

    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith("passed   messages: Html is sanitized\n")
    assert code == 0
    assert json.loads(data)["results"] == [{"scenario": "messages: Html is sanitized", "result": "passed", "text": ""}]
    assert wrong[0] == 1
    assert "step 4, bob PATCH /chat/threads/$thread/messages/$message: expected 204, not 403" in wrong[1]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--only", "no such scenario"], "--only: no scenario has 'no such scenario' in its title"),
        (["--endpoint", "127.0.0.1:1"], "has no scheme; write https://HOST"),
        (["--access-key-file", "{missing}"], "has no key in base64"),
        (["--access-key-file", "{words}"], "has no key in base64"),
        (["--ca-file", "{missing}"], "--ca-file: there is no file"),
        (["--quirks", "{missing}"], "cannot be read"),
        (["--quirks", "{words}"], "is no mapping of quirks"),
        (["--quirks", "{misspelt}"], "there is no quirk start-tine"),
    ],
)
def test_the_command_explains_an_option_that_it_cannot_use(
    options: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"missing": tmp_path / "missing", "words": tmp_path / "words", "misspelt": tmp_path / "misspelt"}
    files["words"].write_text("no key, nor a mapping")
    files["misspelt"].write_text("start-tine: exclusive\n")
    (tmp_path / "key").write_text(KEY)
    given = [option.format(**files) for option in options]

    with pytest.raises(SystemExit, match="2"):
        main(["--endpoint", "https://127.0.0.1:1", "--access-key-file", str(tmp_path / "key"), *given])
    assert complaint in capsys.readouterr().err


def test_an_implementation_that_does_not_answer_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "key").write_text(KEY)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"

    code = main(["--endpoint", endpoint, "--access-key-file", str(tmp_path / "key"), "--only", "messages: Html"])

    assert code == 1
    assert f"{endpoint} does not answer" in capsys.readouterr().out


def _written(directory: Path, quirks: dict[str, Any]) -> Path:
    path = directory / "quirks.yaml"
    path.write_text(yaml.safe_dump(quirks))
    return path
