"""uvloop is used where it is installed, unless the environment says otherwise."""

from __future__ import annotations

import sys

import anyio
import pytest

from chatbot.errors import ConfigError
from chatbot.runtime import event_loop

needs_uvloop = pytest.mark.skipif(sys.platform == "win32", reason="uvloop does not exist for Windows")


@pytest.fixture
def without_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "uvloop", raising=False)
    monkeypatch.setattr(sys, "path", [])


@needs_uvloop
def test_what_is_installed_is_used() -> None:
    assert event_loop.chosen({}) == "uvloop"


@pytest.mark.usefixtures("without_uvloop")
def test_without_it_python_s_own_is_used() -> None:
    assert event_loop.chosen({}) == "asyncio"


@needs_uvloop
@pytest.mark.parametrize("name", ["asyncio", "uvloop"])
def test_the_environment_may_name_it(name: str) -> None:
    assert event_loop.chosen({"CHATBOT_EVENT_LOOP": name}) == name


def test_a_name_that_is_none_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="CHATBOT_EVENT_LOOP is 'trio'; it can be asyncio or uvloop"):
        event_loop.chosen({"CHATBOT_EVENT_LOOP": "trio"})


@pytest.mark.usefixtures("without_uvloop")
def test_asked_for_but_not_installed_it_is_named_with_what_installs_it() -> None:
    with pytest.raises(ConfigError, match=r"not installed: pip install 'chatbot-acs\[uvloop\]'"):
        event_loop.chosen({"CHATBOT_EVENT_LOOP": "uvloop"})


@needs_uvloop
@pytest.mark.parametrize("name", ["asyncio", "uvloop"])
def test_what_runs_is_what_was_chosen(name: str) -> None:
    async def look(delay: float) -> str:
        await anyio.sleep(delay)
        return event_loop.running()

    assert event_loop.run(name, look, 0.0) == name


def test_streams_that_handlers_replace_are_put_back() -> None:
    async def replaces() -> None:
        sys.stdout = sys.stderr = None

    streams = sys.stdout, sys.stderr
    event_loop.run("asyncio", replaces)

    assert (sys.stdout, sys.stderr) == streams
