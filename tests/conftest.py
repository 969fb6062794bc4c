"""What every test of the project lives in: no network, no home directory, no blocked loop, no left-over logging."""

from __future__ import annotations

import gc
import ipaddress
import os
import platform
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from blockbuster import BlockBuster, blockbuster_ctx
from hypothesis import settings

from tests.support.chromium import browser as browser
from tests.support.postgres import postgres_schema as postgres_schema
from tests.support.postgres import postgres_server as postgres_server
from tests.support.postgres import postgres_url as postgres_url

pytest_plugins = ["pytester"]

if sys.dont_write_bytecode:
    # Every worker and every `chatbot` that a test starts would compile all sources again, which is most of their work.
    # The bytecode goes where git ignores it: whoever forbids it wants a clean tree.
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(Path(__file__).parents[1] / ".bytecode")
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# How long an example takes says more about the machine's other work than about ours.
settings.register_profile("chatbot", deadline=None)
settings.load_profile("chatbot")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """Have `-n auto` start half as many workers again as there are cores: many tests wait for processes."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    return (os.cpu_count() or 1) * 3 // 2


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Let a worker that is done take tests from one that is not: the first of them start processes, and wait."""
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import WorkStealingScheduling  # type: ignore[import-untyped]

    return WorkStealingScheduling(config, log)


_MARKED_BY = {"chaos": "sample_and_all", "postgres": "reopen"}
"""What marks tests in files that do not name the marker itself."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import, for `-m node`, only files that name this marker: to import all takes longer than the tests."""
    marker = config.getoption("markexpr")
    if marker not in _markers_of_the_gate(config) or not collection_path.is_file():
        return None
    return None if _names(collection_path, marker) else True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse a marked test whose file does not name the marker: `pytest -m` would not find it."""
    markers = _markers_of_the_gate(config)
    for path, marker in sorted({(item.path, mark.name) for item in items for mark in item.iter_markers()}):
        if marker in markers and not _names(path, marker):
            msg = f"{path} has tests that are marked {marker}, and does not say `mark.{marker}` (tests/conftest.py)"
            raise pytest.UsageError(msg)


def _markers_of_the_gate(config: pytest.Config) -> set[str]:
    return {name for name, _, what in (line.partition(":") for line in config.getini("markers")) if ".ci/run" in what}


def _names(path: Path, marker: str) -> bool:
    text = path.read_text("utf-8", errors="replace")
    return f"mark.{marker}" in text or (marker in _MARKED_BY and _MARKED_BY[marker] in text)


def pytest_collection_finish() -> None:
    """Keep the garbage collector from looking at 5,000 collected tests again and again: a tenth of all work."""
    gc.collect()
    gc.freeze()


_MAY_READ = {
    # A traceback in the log shows source lines: read on the loop, at the rare moment of a failure.
    "linecache.py": {"checkcache", "updatecache"},
    "rich/traceback.py": {"_render_stack", "__rich_console__"},
    # A schedule reads its time zone when its plugin is loaded, which tests do on the loop.
    "chatbot/conversation/schedules.py": {"__post_init__"},
    # On the loop of the store's own thread, asyncpg looks for files of passwords whenever it connects.
    "chatbot/stores/postgres_server.py": {"_connect"},
}


@pytest.fixture(autouse=True, scope="session")
def no_blocking() -> Iterator[BlockBuster]:
    """Fail a test whose event loop is blocked by chatbot's own code: files, sockets, locks, SQL, `time.sleep`."""
    platform.platform()  # asks a child process; the SDK wants it for its user agent, once per process
    # The virtual loop's frames lie below everything that runs on it, the tests' own code included.
    with blockbuster_ctx("chatbot", excluded_modules=["chatbot.testing.virtual_time"]) as blocking:
        for name in ("os.stat", "io.TextIOWrapper.read", "io.BufferedReader.read"):
            for file, names in _MAY_READ.items():
                blocking.functions[name].can_block_in(file, names)
        # A store in memory has no disk to wait for, and works on the loop so that virtual time can stand still.
        for name, function in blocking.functions.items():
            if name.startswith("sqlite3."):
                function.can_block_in("chatbot/stores/memory.py", {"__aenter__", "_transact", "_read", "_database"})
                function.can_block_in(
                    "tests/cluster/database.py",
                    {"__init__", "claim", "release", "_row", "read", "write", "pending", "is_journalled"},
                )
        yield blocking


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every address but this machine's own."""
    connect = socket.socket.connect

    def connect_here(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple) and not _is_loopback(address[0]):
            msg = f"a test tried to reach {address[0]!r}; tests reach loopback addresses only"
            raise AssertionError(msg)
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", connect_here)


@pytest.fixture(autouse=True)
def no_home(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Give the test an empty home, and take away what the person at the keyboard has configured."""
    home = tmp_path_factory.getbasetemp() / "home"
    home.mkdir(exist_ok=True)
    for variable in ("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA"):
        monkeypatch.setenv(variable, str(home))
    for variable in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "ACS_CONNECTION_STRING"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(autouse=True)
def default_logging() -> Iterator[None]:
    """Forget what a test configured for structlog."""
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def imports_restored() -> Iterator[None]:
    """Forget the modules that a test has imported, and where it looked for them."""
    path, modules = list(sys.path), dict(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]
    sys.modules.update(modules)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in {"localhost", ""}
