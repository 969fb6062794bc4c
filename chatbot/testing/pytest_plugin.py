"""The pytest plugin: virtual time for the tests that ask for it, and for no other test of the project.

A test asks with `@pytest.mark.virtual_time` (or `pytestmark` for a module) or with the fixture `virtual_time`. That
is all: it need not be marked `asyncio` too, in neither mode of pytest-asyncio, and nothing has to be configured.

pytest-asyncio chooses event loops through the hook `pytest_asyncio_loop_factories`. An implementation
gets *every* async test of the project and cannot decline one, so it is registered only while a test that asks is being
generated. The plugin is loaded at every start of pytest where chatbot is installed: nothing but pytest may be imported
before a test asks.

A file `*.chat` is a test, too: a recorded conversation (`chatbot.testing.chat_files.script` has the rules). It runs
on virtual time, on a loop of its own, and needs no pytest-asyncio.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from pathlib import Path

    from chatbot.testing.chat_files.chat_file import ChatFile
    from chatbot.testing.virtual_time import VirtualClock

NAME = "virtual_time"
USES_VIRTUAL_TIME = pytest.StashKey[bool]()

NO_PYTEST_ASYNCIO = (
    "this test asks for virtual time, which needs pytest-asyncio 1.5 or later, and that is not installed or not "
    "active here: {remedy}"
)
NOT_ASYNC = (
    "this test asks for virtual time and cannot have it: only an `async def` test function can (no sync function, no "
    "unittest.TestCase), and it asks as a whole (by a marker on the function, its class or module, or by the "
    "fixture), not by marks=… of one of its parameters"
)
OTHER_LOOPS = (
    "this test asks for virtual time and also for loop_factories={names!r} of its own; it can have only one of "
    "them: remove the virtual_time marker or fixture, or the loop_factories"
)


class VirtualLoops:
    """Hook implementation that gives pytest-asyncio the virtual loop, registered only for tests that ask for it."""

    @staticmethod
    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], AbstractEventLoop]]:
        """Return the factory of the virtual loop."""
        from chatbot.testing.virtual_time import VirtualTimeLoop

        return {"virtual": VirtualTimeLoop}


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, so that `--strict-markers` accepts it."""
    config.addinivalue_line(
        "markers", f"{NAME}: run this async test on virtual time, where nothing waits (chatbot.testing)"
    )


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> ChatFile | None:
    """Collect `.chat` files."""
    if file_path.suffix != ".chat":
        return None
    from chatbot.testing.chat_files.chat_file import ChatFile

    return ChatFile.from_parent(parent, path=file_path)


@pytest.fixture(name=NAME)
def virtual_time() -> VirtualClock:
    """Run the test on virtual time, and give it the clock: `virtual_time()` is epoch seconds, `.now()` a datetime."""
    from chatbot.testing.virtual_time import VirtualClock

    return VirtualClock()


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_pycollect_makeitem() -> Generator[None, Any, Any]:
    """Mark the tests that ask as `asyncio`, before pytest-asyncio looks for its marker."""
    made = yield
    for node in made if isinstance(made, list) else [made]:
        if isinstance(node, pytest.Function) and _wants_virtual_time(node, node.fixturenames):
            _mark_asyncio(node)
    return made


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> Generator[None, None, None]:
    """Choose the loop while a test that asks is generated."""
    if not _wants_virtual_time(metafunc.definition, metafunc.fixturenames) or not _can_choose(metafunc.config):
        return (yield)
    _refuse_other_loops(metafunc.definition)
    _mark_asyncio(metafunc.definition)
    metafunc.config.stash[USES_VIRTUAL_TIME] = True
    with _registered(metafunc.config):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Tell pytest-asyncio while tests run that loops differ.

    Where loops outlive a test (`loop_scope="session"`), it then looks first which loop a test needs, and rebuilds
    the async fixtures that live on another one. It does not ask for loops any more at this time.
    """
    if not session.config.stash.get(USES_VIRTUAL_TIME, False):
        return (yield)
    with _registered(session.config):
        return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse a test that asks and cannot have it, rather than let it run in real time."""
    if not _wants_virtual_time(item, getattr(item, "fixturenames", ())):
        return
    if not _can_choose(item.config):
        from chatbot.distribution import install_command

        pytest.fail(NO_PYTEST_ASYNCIO.format(remedy=install_command("test")), pytrace=False)
    from chatbot.testing.virtual_time import VirtualTimeLoop

    if VirtualTimeLoop not in getattr(getattr(item, "callspec", None), "params", {}).values():
        pytest.fail(NOT_ASYNC, pytrace=False)


def _wants_virtual_time(node: pytest.Item, fixtures: Collection[str]) -> bool:
    return NAME in fixtures or node.get_closest_marker(NAME) is not None


def _can_choose(config: pytest.Config) -> bool:
    """Return whether an active pytest-asyncio asks plugins for loops."""
    hook = getattr(config.hook, "pytest_asyncio_loop_factories", None)
    return hook is not None and hook.spec is not None


def _mark_asyncio(node: pytest.Item) -> None:
    if _can_choose(node.config) and node.get_closest_marker("asyncio") is None:
        node.add_marker(pytest.mark.asyncio)


def _refuse_other_loops(node: pytest.Item) -> None:
    marker = node.get_closest_marker("asyncio")
    if marker is not None and marker.kwargs.get("loop_factories") is not None:
        pytest.fail(OTHER_LOOPS.format(names=marker.kwargs["loop_factories"]), pytrace=False)


@contextmanager
def _registered(config: pytest.Config) -> Iterator[None]:
    loops = VirtualLoops()
    config.pluginmanager.register(loops)
    try:
        yield
    finally:
        config.pluginmanager.unregister(loops)
