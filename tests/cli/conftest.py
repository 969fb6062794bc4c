"""A directory like a fresh clone's, and bots that run in it as a process of their own."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

import chatbot.dispatch.source_location  # noqa: F401 - it notes where the program was started, before a test goes elsewhere
from chatbot.cli import main
from tests.cli.doctor_report import Doctor, Report
from tests.cli.resource import PATIENCE, Azure, azure

ROOT: Final = Path(__file__).parents[2]


class Running:
    """`chatbot run --log-format json` in a directory, with what it has logged."""

    def __init__(self, directory: Path, *arguments: str, home: Path | None = None, through: Sequence[str] = ()) -> None:
        """Start them.

        Args:
            directory: where.
            arguments: of `chatbot run`.
            home: the home of the process.
            through: a command that turns into the one behind it.
        """
        self.process = subprocess.Popen(
            [*through, sys.executable, "-m", "chatbot", "run", "--log-format", "json", *arguments],
            cwd=directory,
            env=os.environ | ({"HOME": str(home), "XDG_DATA_HOME": str(home)} if home else {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._arrived: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._arrived.put(line)
        self._arrived.put(None)

    def event(self, name: str, **values: object) -> dict[str, Any]:
        """The first log line of this name with these values, waiting for it if need be."""
        for line in self.lines:
            if _fits(found := json.loads(line), name, values):
                return found
        while (arrived := self._arrived.get(timeout=PATIENCE)) is not None:
            self.lines.append(arrived)
            if _fits(found := json.loads(arrived), name, values):
                return found
        pytest.fail(f"no {name} {values} in:\n{''.join(self.lines)}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, and return the exit code; `lines` is complete then."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        """Wait for its own end, and return the exit code."""
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        while (line := self._arrived.get(timeout=PATIENCE)) is not None:
            self.lines.append(line)
        return code

    def close(self) -> None:
        """Leave nothing behind, whatever the test did; pytest shows what was logged if it failed."""
        self.process.kill()
        self.process.communicate()
        self._reader.join()
        while not self._arrived.empty():
            self.lines.append(self._arrived.get() or "")
        print(*self.lines, sep="", end="")


def _fits(line: dict[str, Any], name: str, values: dict[str, object]) -> bool:
    return line["event"] == name and all(line.get(key) == value for key, value in values.items())


Run = Callable[..., Running]
"""Starts the bots of a directory, with these options."""


class Talk(NamedTuple):
    """How a talk went."""

    code: int
    out: str
    err: str


Chat = Callable[..., Talk]


@dataclass(frozen=True)
class Demo:
    """The project's own bots, running; shared by all tests that leave them as they are."""

    directory: Path
    bots: Running
    home: Path


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """Start the bots of a fresh clone, once for all."""
    directory = copy_of_the_clone(tmp_path_factory.mktemp("demo"))
    home = tmp_path_factory.mktemp("home_of_demo")
    running = Running(directory, home=home)
    running.event("daemon.started")
    yield Demo(directory, running, home)
    running.close()


@pytest.fixture(scope="module")
def resource(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azure]:
    """A resource of the service, for all tests of a module."""
    with azure(tmp_path_factory.mktemp("azure")) as it:
        yield it


def copy_of_the_clone(directory: Path) -> Path:
    """Put the project's own bots.yaml and plugins into a directory."""
    shutil.copy(ROOT / "bots.yaml", directory)
    shutil.copytree(ROOT / "plugins", directory / "plugins", ignore=shutil.ignore_patterns("__pycache__"))
    return directory


@pytest.fixture
def run() -> Iterator[Run]:
    """Start bots; they are gone after the test."""
    started: list[Running] = []

    def start(directory: Path, *arguments: str, through: Sequence[str] = ()) -> Running:
        started.append(Running(directory, *arguments, through=through))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Chat:
    """Run `chatbot chat`, in this process, for the bots of a directory, with this typed into a pipe, to its end."""

    def talk(directory: Path, *arguments: str, typed: str = "") -> Talk:
        read, write = os.pipe()
        os.write(write, typed.encode())
        os.close(write)
        with open(read) as stdin, monkeypatch.context() as patched:
            patched.setattr(sys, "stdin", stdin)
            code = main(["chat", str(directory / "bots.yaml"), *arguments])
        return Talk(code, *capsys.readouterr())

    return talk


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str]) -> Doctor:
    """Run `chatbot doctor --format json`."""

    def run(directory: Path) -> Report:
        capsys.readouterr()
        code = main(["doctor", str(directory / "bots.yaml"), "--format", "json"])
        found = json.loads(capsys.readouterr().out)
        assert found["is_well"] is (code == 0)
        return Report(code, found["findings"])

    return run
