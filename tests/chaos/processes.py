"""Real processes: the emulator with its faults, and `chatbot run`, started again whenever it has ended.

Every process started here is ended here, at the latest with the block it belongs to; no other is touched.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import anyio
import anyio.to_thread
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from chatbot.errors import StateError
from chatbot.runtime import event_loop
from chatbot.runtime.control_client import ask, find_daemon
from chatbot.runtime.run_directory import ControlDirectory
from chatbot.service.acs import AcsResource

ROOT: Final = Path(__file__).parents[2]
PLUGIN: Final = Path(__file__).with_name("checkable.py")
LONGEST_LINE: Final = 1_000_000

BOTS_YAML: Final = """\
version: 1
service: {service}
store: {store}
drain_timeout: {drain}
bots:
  echo:
    plugins: [checkable]
    poll: {{interval: {interval}, idle: {idle}}}
    apology: "off"{user}
log: {{format: json, level: info}}
"""

STATUS_YAML: Final = """\
server: {{listen: {port}}}
"""


async def _end(process: Process) -> None:
    """Let nothing be left behind."""
    with anyio.CancelScope(shield=True):
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await process.aclose()


async def _open(*arguments: str, **pipes: Any) -> Process:
    return await anyio.open_process([sys.executable, "-m", "chatbot", *arguments], cwd=ROOT, **pipes)


# ── the service ───────────────────────────────────────────────────────────────────────────────────────────────


class Service:
    """The emulator in a process of its own, as tests control and observe it.

    Args:
        process: it.
        endpoint: where it is.
        connection_string: how to reach it, key included.
        session: for its control API.
    """

    def __init__(self, process: Process, endpoint: str, connection_string: str, session: aiohttp.ClientSession) -> None:
        self.endpoint = endpoint
        self.connection_string = connection_string
        self._process = process
        self._session = session

    def resource(self) -> AcsResource:
        """The resource, for people who talk there with the SDK."""
        return AcsResource.from_connection_string(self.connection_string)

    async def put_faults(self, faults: Sequence[str]) -> None:
        """Put these faults in force in the place of all others."""
        await self._ask("PUT", "faults", {"faults": list(faults)})

    async def add_faults(self, faults: Sequence[str]) -> None:
        """Put these faults in force, too."""
        await self._ask("POST", "faults", {"faults": list(faults)})

    async def threads(self) -> list[str]:
        """All threads there are."""
        return list((await self._ask("GET", "threads"))["threads"])

    async def messages(self, thread: str) -> list[dict[str, Any]]:
        """All messages of a thread, deleted ones included, as the emulator itself has them."""
        return list((await self._ask("GET", f"threads/{thread}"))["messages"])

    @property
    def memory(self) -> float:
        """What the process holds at the moment, in MiB."""
        return memory_of(self._process.pid)

    async def _ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        async with self._session.request(method, f"{self.endpoint}/emulator/{path}", json=body) as response:
            response.raise_for_status()
            return dict(await response.json())


@asynccontextmanager
async def running_service(
    *, seed: int = 0, data: Path | None = None, quirks: Sequence[str] = ()
) -> AsyncGenerator[Service]:
    """Run the emulator until the block ends.

    Args:
        seed: of its faults.
        data: the file that keeps its state; without it, the state is in memory.
        quirks: how it reads what is unknown of the service, `NAME=VALUE` each.
    """
    options = ["--data", str(data)] if data else []
    options += [word for quirk in quirks for word in ("--quirk", quirk)]
    process = await _open("emulator", "--json", "--fault-seed", str(seed), *options, stderr=None)
    try:
        assert process.stdout is not None
        with anyio.fail_after(120):
            line = await BufferedByteReceiveStream(process.stdout).receive_until(b"\n", LONGEST_LINE)
        facts = json.loads(line)
        key = facts["connection_string"].partition("accesskey=")[2]
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session:
            yield Service(process, facts["endpoint"], facts["connection_string"], session)
    finally:
        await _end(process)


# ── the bots ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class Daemon:
    """`chatbot run` of one directory: one process after the other, as systemd does with `Restart=always`.

    Args:
        directory: where bots.yaml, the plugin, the store and the log are.
        loop: the event loop to run on, `asyncio` or `uvloop`; by default what `chatbot run` chooses.
        port: where its status server listens, if it has one.
        store_url: its store.
        options: further options of `chatbot run`.

    Attributes:
        codes: the exit code of each process that has ended; negative is the signal that ended it.
        said: how often each log event was said.
    """

    directory: Path
    loop: str | None = None
    port: int | None = None
    store_url: str = "sqlite:///chatbot.db"
    options: tuple[str, ...] = ()
    codes: list[int] = field(default_factory=list)
    said: Counter[str] = field(default_factory=Counter)
    _process: Process | None = None
    _is_ready: bool = False
    _ended: anyio.Event = field(default_factory=anyio.Event)
    _told: anyio.Event = field(default_factory=anyio.Event)
    _is_wanted: bool = True

    @classmethod
    def set_up(
        cls,
        directory: Path,
        service: str,
        *,
        interval: str = "1s",
        idle: str = "10s",
        drain: str = "10s",
        loop: str | None = None,
        has_status_server: bool = False,
        store: str = "sqlite:///chatbot.db",
        user: str | None = None,
    ) -> Daemon:
        """Write what it runs: a bot with the `checkable` plugin.

        Args:
            directory: where.
            service: the connection string.
            interval: between two looks at a thread that speaks.
            idle: between two looks at a silent one.
            drain: how long a stop may take.
            loop: the event loop to run on, `asyncio` or `uvloop`.
            has_status_server: whether it serves /healthz and /status.
            store: the URL of the store.
            user: the bot's user; None lets the first process create one.
        """
        port = _free_port() if has_status_server else None
        own = f"\n    user: {user}" if user else ""
        text = BOTS_YAML.format(service=service, store=store, interval=interval, idle=idle, drain=drain, user=own)
        text += STATUS_YAML.format(port=port) if port else ""
        (directory / "bots.yaml").write_text(text)
        shutil.copy(PLUGIN, directory)
        return cls(directory, loop, port, store)

    @property
    def store(self) -> Path:
        """The file of its store."""
        return self.directory / "chatbot.db"

    @property
    def log(self) -> Path:
        """All that its processes have logged."""
        return self.directory / "daemon.log"

    @property
    def user(self) -> str:
        """The bot's user, once it has run."""
        return str(json.loads((self.directory / ".chatbot" / "run.json").read_text())["bots"][0]["user_id"])

    @property
    def is_running(self) -> bool:
        """Whether there is a process."""
        return self._process is not None

    @property
    def is_ready(self) -> bool:
        """Whether there is a process with its bots running."""
        return self._is_ready

    @property
    def pid(self) -> int | None:
        """The process that runs."""
        return self._process.pid if self._process else None

    @property
    def memory(self) -> float:
        """What the running process holds at the moment, in MiB; 0 if none runs."""
        return memory_of(self._process.pid) if self._process else 0.0

    async def keep_running(self) -> None:
        """Start it, and start it again whenever it has ended, until it was stopped."""
        self._is_wanted = True
        while self._is_wanted:
            await self.run_once()

    async def run_once(self) -> int:
        """Run one process to its end; returns its exit code."""
        self._ended = anyio.Event()
        env = os.environ | ({event_loop.VARIABLE: self.loop} if self.loop else {})
        process = await _open("run", *self.options, str(self.directory / "bots.yaml"), stdout=None, env=env)
        self._process = process
        try:
            await self._read(process)
            self.codes.append(await process.wait())
        finally:
            self._process = None
            await _end(process)
            self._is_ready = False
            self._ended.set()
        return self.codes[-1]

    async def ready(self) -> None:
        """Wait until a process has its bots running; not all get so far."""
        while not self._is_ready:
            await self._told.wait()

    async def has_said(self, event: str) -> None:
        """Wait until its log has had this event."""
        while not self.said[event]:
            await self._told.wait()

    async def ended(self) -> None:
        """Wait until the process that runs has ended."""
        await self._ended.wait()

    async def ask(self, *command: str, is_checked: bool = True) -> dict[str, Any]:
        """What `chatbot COMMAND… bots.yaml --format json` answers, beside the running daemon.

        Args:
            command: what to ask.
            is_checked: raise an error if it ends with another exit code than 0.
        """
        process = [sys.executable, "-m", "chatbot", *command, str(self.directory / "bots.yaml"), "--format", "json"]
        answer = await anyio.run_process(process, cwd=ROOT, check=is_checked)
        return dict(json.loads(answer.stdout))

    async def answer(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the running daemon answers on its control socket; faster than a command.

        Raises:
            ChatbotError: what it answered, or that none runs.
        """
        config = self.directory / "bots.yaml"
        daemon = await anyio.to_thread.run_sync(find_daemon, ControlDirectory(self.directory), config)
        if daemon is None:
            message = "no daemon runs"
            raise StateError(message)
        return await ask(daemon, question)

    def kill(self) -> bool:
        """`kill -9` the process that runs; False if none does."""
        self._is_ready = False
        return self._signal(signal.SIGKILL)

    def terminate(self) -> bool:
        """Ask the process that runs to end; it is started again if `keep_running` runs."""
        self._is_ready = False
        return self._signal(signal.SIGTERM)

    def reload(self) -> bool:
        """Ask the process that runs to take up what has changed; False if none does."""
        return self._signal(signal.SIGHUP)

    async def stop(self) -> int:
        """Ask the process to end, for good; returns its exit code."""
        self._is_wanted = False
        ended = self._ended
        self.terminate()
        await ended.wait()
        return self.codes[-1]

    def _signal(self, number: signal.Signals) -> bool:
        if self._process is None:
            return False
        with suppress(ProcessLookupError):
            self._process.send_signal(number)
        return True

    async def _read(self, process: Process) -> None:
        """Follow the log to its end."""
        assert process.stderr is not None
        lines = BufferedByteReceiveStream(process.stderr)
        with self.log.open("ab") as log, suppress(anyio.EndOfStream, anyio.IncompleteRead):
            while True:
                line = await lines.receive_until(b"\n", LONGEST_LINE)
                log.write(line + b"\n")
                self._note(line)

    def _note(self, line: bytes) -> None:
        try:
            said = json.loads(line)["event"]
        except (ValueError, KeyError):
            said = "(no log event)"
        self.said[said] += 1
        self._is_ready = self._is_ready or said == "daemon.started"
        self._told.set()
        self._told = anyio.Event()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def memory_of(pid: int) -> float:
    """What a process holds in memory, in MiB; 0 where the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    resident = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(resident[0]) / 1024 if resident else 0.0
