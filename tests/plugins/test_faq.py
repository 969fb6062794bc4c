from pathlib import Path

import pytest

from chatbot.errors import PluginSettingsError
from chatbot.plugin import load_plugin
from chatbot.testing import EventStream, chat
from plugins import echo, faq

ROOT = Path(__file__).parents[2]

SETTINGS = faq.Settings(
    entries=[
        faq.Entry(question="When are you open?", answer="9 to 17.", words=["Hours"]),
        faq.Entry(question="How do I reset my password?", answer="Press Forgot."),
    ]
)


@pytest.mark.virtual_time
async def test_questions_are_answered_however_they_are_put_and_everything_else_is_left_to_others() -> None:
    async with chat(faq.plugin(SETTINGS), echo.plugin) as room:
        ann = room.user("Ann")
        await ann.says("when do you OPEN", "I must reset the password", "your hours?", "open sesame", "/faq")

    assert room.replies == [
        "9 to 17.",
        "Press Forgot.",
        "9 to 17.",
        "open sesame",
        "• When are you open?\n• How do I reset my password?",
    ]


async def test_a_higher_threshold_wants_more_of_the_question() -> None:
    stream = EventStream()
    stream += stream.user("Ann").said("my password")

    strict = SETTINGS.model_copy(update={"threshold": 1.0})
    lax = SETTINGS.model_copy(update={"threshold": 0.2})

    event = stream.events[0]
    assert (await stream.into(faq.plugin(strict))).replies == []
    stream += event
    assert (await stream.into(faq.plugin(lax))).replies == ["Press Forgot."]


def test_settings_that_do_not_fit_are_refused_when_the_plugin_is_loaded() -> None:
    with pytest.raises(PluginSettingsError) as refused:
        load_plugin("plugins.faq", base_dir=ROOT, settings={"entries": [{"question": "Why?"}], "treshold": 1})

    assert refused.value.problems == (
        (("treshold",), "there is no such setting; did you mean threshold?"),
        (("entries", 0, "answer"), "Field required"),
    )
