import pytest

from chatbot.plugin.lint import findings
from chatbot.testing import chat
from plugins.triage import ask, plugin


@pytest.mark.virtual_time
async def test_a_ticket_is_asked_for_step_by_step_over_restarts_and_seen_by_everybody() -> None:
    async with chat(plugin) as room:
        ann, bob = room.user("Ann"), room.user("Bob")
        await ann.says("/ticket", "broken")
        await room.restart()
        await ann.says("The printer eats paper")
        await bob.says("/ticket", "No coffee since yesterday", "u", "no")
        await room.restart()
        await ann.says("URGENT", "yes")
        await bob.says("/tickets", "/close 1", "/close 1", "/tickets")

        assert room.replies == [
            "What is wrong?",
            "Please describe it in a few words.",
            "How urgent is it? (low / normal / urgent)",
            "What is wrong?",
            "How urgent is it? (low / normal / urgent)",
            "Does nobody get any work done? (yes / no)",
            "Thank you, Bob. That is ticket 1, normal.",
            "Does nobody get any work done? (yes / no)",
            "Thank you, Ann. That is ticket 2, urgent.",
            "2. The printer eats paper (urgent, Ann, 01 Jan)\n1. No coffee since yesterday (normal, Bob, 01 Jan)",
            "Ticket 1 is closed.",
            "There is no open ticket 1. /tickets lists them.",
            "2. The printer eats paper (urgent, Ann, 01 Jan)",
        ]


@pytest.mark.virtual_time
async def test_no_ticket_is_created_without_an_answer_or_after_a_cancellation() -> None:
    async with chat(plugin) as room:
        ann = room.user("Ann")
        await ann.says("/ticket")
        await room.advance(hours=2)
        await ann.says("/ticket", "cancel", "/tickets")

        assert room.replies == [
            "What is wrong?",
            "I take it that it can wait. /ticket starts again.",
            "What is wrong?",
            "Cancelled.",
            "Nothing is open.",
        ]


def test_the_dialog_does_the_same_every_time() -> None:
    assert findings(ask) == []
