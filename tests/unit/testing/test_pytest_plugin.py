from __future__ import annotations

import re
import subprocess
import sys

import pytest

CHECKS = """
    import asyncio, time
    import pytest, pytest_asyncio
    from chatbot.testing.virtual_time import VirtualTimeLoop

    def is_virtual():
        return isinstance(asyncio.get_running_loop(), VirtualTimeLoop)
"""

ASKING = """
    @pytest.mark.virtual_time
    async def test_marked():
        await asyncio.sleep(3600)
        assert is_virtual()

    async def test_with_the_fixture(virtual_time):
        began = virtual_time()
        await asyncio.sleep(3600)
        assert virtual_time() - began == 3600
        assert str(virtual_time.now()) == "2024-01-01 01:00:00+00:00"

    @pytest.fixture
    def clock(virtual_time):
        return virtual_time

    async def test_with_a_fixture_of_the_fixture(clock):
        assert is_virtual()

    class TestGroup:
        pytestmark = pytest.mark.virtual_time

        async def test_in_a_marked_class(self):
            assert is_virtual()

        @pytest.mark.parametrize("number", [1, 2])
        async def test_parametrised(self, number):
            assert is_virtual()
"""

NOT_ASKING = """
    @pytest.mark.asyncio
    async def test_that_does_not_ask():
        assert not is_virtual()

    def test_sync():
        pass
"""


QUIET = ("-p", "no:hypothesispytest", "-o", "asyncio_default_fixture_loop_scope=function")
"""Makes the runs within runs quick, and keeps a warning of pytest-asyncio out of ours."""


def write(pytester: pytest.Pytester, source: str) -> None:
    """Make a user's test module, with the checks above at hand."""
    pytester.makepyfile(f"{CHECKS}\n{source}")


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_only_tests_that_ask_run_on_virtual_time(pytester: pytest.Pytester, mode: str) -> None:
    write(pytester, ASKING + NOT_ASKING)

    result = pytester.runpytest(*QUIET, "--asyncio-mode", mode, "--strict-markers", "-v")

    result.assert_outcomes(passed=8)
    result.stdout.fnmatch_lines(["*::test_marked PASSED*", "*::test_parametrised[[]1[]] PASSED*"])


def test_a_project_without_any_configuration_needs_none(pytester: pytest.Pytester) -> None:
    write(pytester, ASKING + NOT_ASKING)

    pytester.runpytest_subprocess().assert_outcomes(passed=8)


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_the_projects_own_loops_stay_where_they_are(pytester: pytest.Pytester, mode: str) -> None:
    pytester.makeconftest(
        """
        import asyncio

        class Mine(asyncio.SelectorEventLoop):
            pass

        def pytest_asyncio_loop_factories(config, item):
            return {"mine": Mine, "plain": asyncio.new_event_loop}
        """
    )
    write(
        pytester,
        ASKING
        + """
    @pytest.mark.asyncio
    async def test_that_does_not_ask():
        assert not is_virtual()
        assert type(asyncio.get_running_loop()).__name__ in ("Mine", "_UnixSelectorEventLoop")
""",
    )

    result = pytester.runpytest(*QUIET, "--asyncio-mode", mode, "-v")

    result.assert_outcomes(passed=8)
    result.stdout.fnmatch_lines(["*does_not_ask[[]mine[]] PASSED*", "*does_not_ask[[]plain[]] PASSED*"])


def test_loops_that_outlive_a_test_do_not_mix(pytester: pytest.Pytester) -> None:
    """With loops of the session, a fixture on one kind of loop must not reach a test on the other kind."""
    pytester.makeini(
        """
        [pytest]
        asyncio_mode = auto
        asyncio_default_fixture_loop_scope = session
        asyncio_default_test_loop_scope = session
        """
    )
    write(
        pytester,
        """
    @pytest.fixture(scope="session")
    async def loop_of_the_session():
        yield asyncio.get_running_loop()

    async def test_before(loop_of_the_session):
        assert loop_of_the_session is asyncio.get_running_loop()
        assert not is_virtual()

    @pytest.mark.virtual_time
    async def test_virtual(loop_of_the_session):
        assert loop_of_the_session is asyncio.get_running_loop()
        assert is_virtual()

    async def test_after(loop_of_the_session):
        assert loop_of_the_session is asyncio.get_running_loop()
        assert not is_virtual()
""",
    )

    pytester.runpytest(*QUIET[:2]).assert_outcomes(passed=3)


def test_async_fixtures_live_on_the_loop_of_the_test(pytester: pytest.Pytester) -> None:
    write(
        pytester,
        """
    @pytest_asyncio.fixture
    async def loop():
        yield asyncio.get_running_loop()
        assert is_virtual()

    @pytest.mark.virtual_time
    async def test_it(loop):
        assert loop is asyncio.get_running_loop()
""",
    )

    pytester.runpytest(*QUIET, "--asyncio-mode", "strict").assert_outcomes(passed=1)


def test_each_test_begins_at_the_same_time(pytester: pytest.Pytester) -> None:
    write(
        pytester,
        """
    @pytest.mark.parametrize("number", [1, 2])
    async def test_it(virtual_time, number):
        assert str(virtual_time.now()) == "2024-01-01 00:00:00+00:00"
        await asyncio.sleep(60)
""",
    )

    pytester.runpytest(*QUIET).assert_outcomes(passed=2)


def test_a_hang_fails_its_test_and_not_the_next_one(pytester: pytest.Pytester) -> None:
    write(
        pytester,
        """
    pytestmark = pytest.mark.virtual_time

    async def test_hangs():
        await asyncio.Event().wait()

    async def test_next():
        await asyncio.sleep(1)
""",
    )

    result = pytester.runpytest(*QUIET)

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["E *Stuck: nothing is ready*", "E *test_*.py:* in test_hangs"])


def test_without_pytest_asyncio_only_tests_that_ask_fail_and_say_why(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.virtual_time
        async def test_asks():
            pass

        def test_sync():
            pass
        """
    )

    result = pytester.runpytest(*QUIET, "-p", "no:asyncio", "--strict-markers")

    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*needs pytest-asyncio 1.5 or later*pip install 'chatbot-acs[[]test[]]'*"])


def test_what_cannot_have_virtual_time_is_refused(pytester: pytest.Pytester) -> None:
    write(
        pytester,
        """
    import unittest

    @pytest.mark.virtual_time
    def test_sync():
        pass

    @pytest.mark.virtual_time
    class TestCase(unittest.IsolatedAsyncioTestCase):
        async def test_case(self):
            pass

    @pytest.mark.parametrize("number", [1, pytest.param(2, marks=pytest.mark.virtual_time)])
    async def test_parameter(number):
        pass
""",
    )

    result = pytester.runpytest(*QUIET, "--asyncio-mode", "auto")

    result.assert_outcomes(errors=3, passed=1)
    result.stdout.fnmatch_lines(["*only an `async def` test function can*"])


def test_loops_of_the_tests_own_choice_are_refused(pytester: pytest.Pytester) -> None:
    write(
        pytester,
        """
    @pytest.mark.virtual_time
    @pytest.mark.asyncio(loop_factories=["mine"])
    async def test_it():
        pass
""",
    )

    result = pytester.runpytest(*QUIET)

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*also for loop_factories=[[]'mine'[]] of its own*"])


def test_hypothesis_tests_can_have_virtual_time(pytester: pytest.Pytester) -> None:
    write(
        pytester,
        """
    from hypothesis import given, settings, strategies as st

    @pytest.mark.virtual_time
    @settings(max_examples=5, database=None)
    @given(seconds=st.integers(0, 10**6))
    async def test_it(seconds):
        await asyncio.sleep(seconds)
        assert is_virtual()
""",
    )

    pytester.runpytest(*QUIET[2:]).assert_outcomes(passed=1)


def test_the_plugin_loads_no_library_at_the_start_of_pytest() -> None:
    code = (
        "import sys, pytest; before = set(sys.modules); import chatbot.testing.pytest_plugin; "
        "loaded = {name.split('.')[0] for name in set(sys.modules) - before}; "
        "print(loaded & {'aiohttp', 'anyio', 'asyncio', 'azure', 'pydantic', 'structlog'}); "
        "print([name for name in sys.modules if name.startswith('chatbot.testing.')])"
    )

    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout

    assert loaded.splitlines() == ["set()", "['chatbot.testing.pytest_plugin']"]


FAILING = """
import pytest
from chatbot import Context, Plugin
from chatbot.testing import EventStream, chat

plugin = Plugin("unlucky")

@plugin.message()
async def unlucky(ctx: Context) -> str:
    raise RuntimeError("no luck")

@pytest.mark.virtual_time
async def test_whole_bot() -> None:
    async with chat(plugin) as room:
        await room.user("Ann").says("hi")

@pytest.mark.asyncio
async def test_handler_alone() -> None:
    stream = EventStream()
    stream += stream.user("Ann").said("hi")
    await stream.into(plugin)
"""


def test_a_handler_that_fails_is_shown_with_the_test_and_nothing_between(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(FAILING)

    result = pytester.runpytest(*QUIET, "--show-capture=no", "--tb=short", "-rN")  # CI shows failures a second time

    result.assert_outcomes(failed=2)
    shown = result.stdout.str()
    assert re.findall(r"^(\S+\.py):\d+: in (\w+)$", shown, re.MULTILINE) == [
        ("test_a_handler_that_fails_is_shown_with_the_test_and_nothing_between.py", name)
        for name in ("test_whole_bot", "unlucky", "test_handler_alone", "unlucky")
    ]
    assert shown.count("RuntimeError: no luck") == 2  # three attempts were made of the first one
    assert "Ann: hi" in shown


REFUSED = """
import pytest
from chatbot import Context, Plugin
from chatbot.testing import EventStream, chat

plugin = Plugin("wrong")

@plugin.message()
async def wrong(ctx: Context) -> int:
    return 1

@pytest.mark.virtual_time
async def test_whole_bot() -> None:
    async with chat(plugin):
        pass

@pytest.mark.asyncio
async def test_handler_alone() -> None:
    await EventStream().into(plugin)
"""


def test_a_plugin_that_is_refused_is_shown_without_how_chatbot_came_there(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(REFUSED)

    result = pytester.runpytest(*QUIET, "--show-capture=no", "--tb=short", "-rN")  # CI shows failures a second time

    result.assert_outcomes(failed=2)
    shown = result.stdout.str()
    assert shown.count(".py:7: handler wrong returns int; it may return str (a reply), None, or PASS") == 2
    assert "chatbot/dispatch" not in shown
