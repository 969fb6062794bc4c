from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot.errors import ConfigError
from chatbot.testing.chat_files.script import Role, ScriptStep, Verb, as_written, final_replies, parse_script

HEAD = "plugins: plugins.echo\n"


def steps(text: str) -> list[ScriptStep]:
    return list(parse_script(HEAD + text, "a.chat").steps)


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_script(text, "a.chat")
    return list(caught.value.problems)


def test_every_kind_of_line_is_understood() -> None:
    found = steps(
        "# a comment\n"
        "Ann: hello\n"
        'Ann Lee: "quoted": text\n'
        "* Ann edits: hi\n"
        '* Ann edits "hi": ho\n'
        "* Ann deletes\n"
        '* Ann Lee deletes ""quoted": text"\n'
        "* Ben joins\n"
        "* Ben leaves\n"
        "* Ann adds Ben, Cat\n"
        "* Ann removes Echo\n"
        "* Ann sets the topic: Lunch\n"
        "(1 day, 2 hours and 30 minutes later)\n"
        "(restart)\n"
    )

    assert found == [
        ScriptStep(Verb.SAYS, "Ann", "hello", number=3),
        ScriptStep(Verb.SAYS, "Ann Lee", '"quoted": text', number=4),
        ScriptStep(Verb.EDITS, "Ann", "hi", number=5),
        ScriptStep(Verb.EDITS, "Ann", "ho", "hi", number=6),
        ScriptStep(Verb.DELETES, "Ann", number=7),
        ScriptStep(Verb.DELETES, "Ann Lee", target='"quoted": text', number=8),
        ScriptStep(Verb.JOINS, "Ben", number=9),
        ScriptStep(Verb.LEAVES, "Ben", number=10),
        ScriptStep(Verb.ADDS, "Ann", "Ben, Cat", number=11),
        ScriptStep(Verb.REMOVES, "Ann", "Echo", number=12),
        ScriptStep(Verb.RENAMES, "Ann", "Lunch", number=13),
        ScriptStep(Verb.WAITS, duration=timedelta(days=1, hours=2, minutes=30), number=14),
        ScriptStep(Verb.RESTARTS, number=15),
    ]


def test_a_message_goes_on_in_indented_lines_and_over_empty_ones() -> None:
    (step,) = steps("Ann: one\n\n  two\n# not of the message\n    three\n  # four\n\n\n")

    assert step.text == "one\n\ntwo\n  three\n# four"


def test_the_bot_is_called_after_its_first_plugin_unless_it_has_a_name() -> None:
    assert parse_script("plugins: plugins.echo, plugins.help\n", "a").bots == ["Echo"]
    assert parse_script("bot: Help desk\nplugins: plugins.echo\nbot: Poll\nplugins: poll\n", "a").roles == (
        Role("Help desk", ("plugins.echo",), number=2),
        Role("Poll", ("poll",), number=4),
    )


def test_a_plugin_can_have_settings() -> None:
    (role,) = parse_script("plugins: plugins.faq\nsettings: plugins.faq {language: fr}\n", "a").roles

    assert role.settings == {"plugins.faq": {"language": "fr"}}


def test_what_counts_of_a_recording_are_its_replies() -> None:
    recording = parse_script(f"compare: replies\n{HEAD}Ann: hi\n", "a")

    assert recording.has_loose_order
    assert not parse_script(f"{HEAD}Ann: hi\n", "a").has_loose_order
    assert parse_script(str(recording), "a").has_loose_order


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("hello", "a.chat:2: 'hello' is not a line of a conversation; expected \"Ann: hello\""),
        ("Ann:hello", "a.chat:2: 'Ann:hello' is not a line of a conversation"),
        ("  hello", "a.chat:2: 'hello' continues a message, but there is none above"),
        ("Ann:", "a.chat:2: Ann says nothing; write the text after the colon, or below it"),
        ("* Ann sings", "a.chat:2: '* Ann sings' is not an action; expected"),
        ("* Ann edits: x", "a.chat:2: Ann has said nothing yet that could be changed"),
        ('Ann: a\n* Ann deletes "b"', "a.chat:3: Ann has said nothing that begins with the line 'b'"),
        ("(tomorrow)", "a.chat:2: '(tomorrow)' is not a time that passes; expected \"(restart)\", or a time"),
        ("(1 day)", "a.chat:2: '(1 day)' is not a time that passes"),
        (f"({'9' * 30} weeks later)", "is too long"),
        (
            "Ann: hi\nplugins: plugins.help",
            "a.chat:3: `plugins:` comes too late: headers must precede the conversation",
        ),
        ("settings: plugins.faq {a: 1}", "a.chat:2: 'plugins.faq {a: 1}' are not valid settings of a plugin; expected"),
        (
            "settings: plugins.echo {a: [}",
            "a.chat:2: 'plugins.echo {a: [}' are not valid settings of a plugin; expected",
        ),
        ("compare: everything", "a.chat:2: 'everything' is not a way to compare; expected compare: replies"),
        ("bot: Poll", "a.chat:2: this bot has no plugins; add a line, as in plugins: plugins.echo"),
    ],
)
def test_a_wrong_line_is_reported_with_its_place_and_what_is_expected(text: str, problem: str) -> None:
    (told,) = problems(HEAD + text)

    assert problem in told


def test_all_mistakes_are_reported_at_once() -> None:
    assert [one.split(":")[1] for one in problems("Ann: hi\nhello\n(soon)\n")] == ["2", "3", "1"]


def test_a_file_without_a_bot_is_refused_with_the_remedy() -> None:
    assert problems("Ann: hi\n") == [
        "a.chat:1: there is no bot; name its plugins first, as in plugins: plugins.echo, plugins.help"
    ]


TEXTS = st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda text: as_written(text))


@given(TEXTS, TEXTS)
def test_what_is_written_down_is_read_again(said: str, edited: str) -> None:
    written = f"{ScriptStep(Verb.SAYS, 'Ann', said)}\n\n{ScriptStep(Verb.EDITS, 'Ann', edited)}\n"

    found = steps(written)

    assert [one.key for one in found] == [
        ScriptStep(Verb.SAYS, "Ann", said).key,
        ScriptStep(Verb.EDITS, "Ann", edited).key,
    ]


@given(st.integers(0, 10**9).map(lambda seconds: timedelta(seconds=seconds)))
def test_every_time_that_is_written_down_is_read_again(duration: timedelta) -> None:
    assert steps(f"{ScriptStep(Verb.WAITS, duration=duration)}\n")[0].duration == duration


def test_what_was_edited_and_deleted_reads_as_it_did_in_the_end() -> None:
    found = steps('A: one\nA: two\nB: x\nA: three\n* A edits "one": 1\n* A deletes "two"\n* A edits: 3\n')

    assert [one.text for one in final_replies(found, "A")] == ["1", "3"]
