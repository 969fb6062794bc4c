"""Conversations in files, as tests in a user's project that has no configuration at all."""

from __future__ import annotations

import pytest

import chatbot.testing.chat_files.difference  # noqa: F401 -- a run within a run forgets what it was the first to import

BOT = """
from datetime import timedelta
from chatbot import Context, ParticipantsAdded, Plugin, TimerFired

plugin = Plugin("bot")

@plugin.on(ParticipantsAdded)
async def greet(ctx: Context[ParticipantsAdded]) -> str:
    return "hello, " + ", ".join(one.display_name for one in ctx.event.participants)

@plugin.command("fail")
async def fail(ctx: Context) -> str:
    raise RuntimeError("no luck")

@plugin.command("topic")
async def topic(ctx: Context, name: str) -> None:
    await ctx.update_topic(name)

@plugin.command("remind")
async def remind(ctx: Context) -> str:
    await ctx.later(timedelta(hours=1), ring)
    return "I will"

@plugin.timer
async def ring(ctx: Context[TimerFired]) -> str:
    return "it is time"

@plugin.command("html")
async def html(ctx: Context) -> None:
    await ctx.reply(html="<b>bold</b> &amp; more")

@plugin.message()
async def echo(ctx: Context) -> str:
    return ctx.text
"""

GREETED = "plugins: parlour.talker\nTalker: hello, Ann\nAnn: hi\nTalker: hi\n"

QUIET = ("-p", "no:hypothesispytest", "-o", "asyncio_default_fixture_loop_scope=function")


@pytest.fixture(autouse=True)
def project(pytester: pytest.Pytester) -> None:
    """A plugin of a name that nothing else has."""
    pytester.mkpydir("parlour")
    (pytester.path / "parlour" / "talker.py").write_text(BOT, encoding="utf-8")


def run(pytester: pytest.Pytester, conversation: str, *arguments: str) -> pytest.RunResult:
    (pytester.path / "tests").mkdir(exist_ok=True)
    (pytester.path / "tests" / "talk.chat").write_text(conversation, encoding="utf-8")
    return pytester.runpytest(*QUIET, *arguments)


def test_a_whole_conversation_is_a_test_and_needs_no_configuration(pytester: pytest.Pytester) -> None:
    conversation = """\
plugins: parlour.talker

* Ann joins
Talker: hello, Ann
Ann: hi
Talker: hi
* Ben joins
Talker: hello, Ben
Ben: old
Talker: old
* Ben deletes
Ann: first
Talker: first
Ann: second
Talker: second
* Ann edits "first": changed
* Ann adds Cat, Dan
Talker: hello, Cat, Dan
* Ann removes Cat
* Ben leaves
Ann: /html
Talker: bold & more
Ann: /topic Lunch
* Talker sets the topic: Lunch
* Ann sets the topic: Dinner
Ann: /remind
Talker: I will
(restart)
(59 minutes later)
(2 minutes later)
Talker: it is time
* Ann removes Talker
Ann: alone
"""
    result = run(pytester, conversation, "-v")

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["tests/talk.chat::conversation PASSED*"])


def test_what_a_bot_says_otherwise_is_shown_with_the_lines_of_the_file(pytester: pytest.Pytester) -> None:
    result = run(pytester, "plugins: parlour.talker\nTalker: hello, Ann\nAnn: hi\nTalker: ho\nAnn: bye\n")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "tests/talk.chat:4: the bots replied differently (- expected, + actual)",
            "  3  Ann: hi",
            "- 4  Talker: ho",
            "+    Talker: hi",
            "  5  Ann: bye",
            "+    Talker: bye",
        ]
    )
    assert "Traceback" not in result.stdout.str()


RECORDED = """\
plugins: parlour.talker
compare: replies

* Talker sets the topic: Lobby
* Ann joins
Ann: one
Ann: two
Talker: hello, Ann
Talker: one
Ann: three
Talker: two
Talker: {}
"""


def test_a_recording_passes_although_its_people_did_not_wait_for_the_bot(pytester: pytest.Pytester) -> None:
    run(pytester, RECORDED.format("three")).assert_outcomes(passed=1)


def test_another_reply_than_a_recorded_one_is_shown_where_it_is_given_now(pytester: pytest.Pytester) -> None:
    result = run(pytester, RECORDED.format("four"))

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "tests/talk.chat: Talker replied differently (- expected, + actual)",
            "   7  Ann: two",
            "  11  Talker: two",
            "  10  Ann: three",
            "- 12  Talker: four",
            "+     Talker: three",
        ]
    )


def test_a_handler_that_fails_fails_the_test_with_its_own_error_and_the_line(pytester: pytest.Pytester) -> None:
    result = run(pytester, "plugins: parlour.talker\nAnn: /fail\n")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*RuntimeError: no luck", "*at tests/talk.chat:2: Ann: /fail"])


def test_a_line_that_is_wrong_is_an_error_of_collection(pytester: pytest.Pytester) -> None:
    result = run(pytester, "plugins: parlour.talker\nhello\n")

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["tests/talk.chat:2: 'hello' is not a line of a conversation; expected*"])


def test_a_file_that_is_no_text_is_refused(pytester: pytest.Pytester) -> None:
    (pytester.path / "binary.chat").write_bytes(b"\xff\xfe\x00")

    result = pytester.runpytest(*QUIET)

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["binary.chat: not UTF-8 text*save it as UTF-8"])


def test_a_missing_plugin_is_reported_with_the_line_that_names_it(pytester: pytest.Pytester) -> None:
    result = run(pytester, "# no such plugin\nplugins: parlour.talkr\nAnn: hi\n")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["tests/talk.chat:2: plugin parlour.talkr: there is no such module*"])


def test_a_plugin_is_searched_next_to_the_file_and_above_it(pytester: pytest.Pytester) -> None:
    inner = pytester.path / "part" / "tests"
    inner.mkdir(parents=True)
    (pytester.path / "part" / "nearby.py").write_text(BOT, encoding="utf-8")
    (inner / "talk.chat").write_text("plugins: nearby\nNearby: hello, Ann\nAnn: hi\nNearby: hi\n", encoding="utf-8")

    pytester.runpytest(*QUIET).assert_outcomes(passed=1)


def test_conversations_need_no_pytest_asyncio_and_leave_other_tests_in_real_time(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_sync(): pass")

    result = run(pytester, GREETED, "-p", "no:asyncio", "-W", "default")

    result.assert_outcomes(passed=2)
