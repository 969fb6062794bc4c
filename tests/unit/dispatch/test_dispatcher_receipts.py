"""When a message is shown as read: after its answer, or when its handler says so."""

import pytest

from chatbot import (
    Ack,
    ChatMessage,
    Context,
    Dialog,
    Event,
    MessageReceived,
    Plugin,
    SendMessage,
    SendReadReceipt,
    text,
)
from chatbot.testing import EventStream
from tests.unit.dispatch.talk import talk


def message_of(event: Event) -> ChatMessage:
    assert isinstance(event, MessageReceived)
    return event.message


@pytest.mark.parametrize("ack", [Ack.HANDLED, Ack.RECEIVED])
async def test_a_receipt_comes_last_whether_anybody_answered_or_not(ack: Ack) -> None:
    plugin = Plugin("a")

    @plugin.message(text("hi"))
    async def greet(ctx: Context) -> str:
        return "hello"

    stream = talk("hi", "bye")
    hi, bye = map(message_of, stream.events)

    handled = await stream.into(plugin, ack=ack)

    assert handled.actions == [SendMessage("hello"), SendReadReceipt(hi.id), SendReadReceipt(bye.id)]


async def test_only_received_messages_are_acknowledged() -> None:
    stream = EventStream()
    ann = stream.user("Ann")
    ann.said("a")
    stream += [ann.edited("b"), ann.deleted(), ann.joined()]

    assert (await stream.into(Plugin("a"))).actions == []


async def test_a_failed_message_is_shown_as_read_only_if_receiving_it_is_enough() -> None:
    plugin = Plugin("a")

    @plugin.message()
    async def fail(ctx: Context) -> None:
        raise ValueError

    for ack, count in ((Ack.RECEIVED, 1), (Ack.HANDLED, 0), (Ack.MANUAL, 0)):
        handled = await talk("hi").into(plugin, ack=ack, should_raise=False)
        assert len(handled.actions) == count


async def test_manual_receipts_are_sent_when_the_handler_says_so() -> None:
    plugin = Plugin("a")

    @plugin.message(text("yes"))
    async def acknowledged(ctx: Context) -> str:
        await ctx.acknowledge()
        await ctx.acknowledge()
        return "ok"

    @plugin.message(text("no"), ack=Ack.HANDLED)
    async def automatic(ctx: Context) -> None: ...

    @plugin.message()
    async def silent(ctx: Context) -> None: ...

    stream = talk("yes", "no", "perhaps")
    yes, no, _ = map(message_of, stream.events)

    handled = await stream.into(plugin, ack=Ack.MANUAL)

    assert handled.actions == [SendMessage("ok"), SendReadReceipt(yes.id), SendReadReceipt(no.id)]


@pytest.mark.parametrize(("of_bot", "of_dialog"), [(Ack.MANUAL, Ack.HANDLED), (Ack.HANDLED, Ack.MANUAL)])
async def test_the_answers_in_a_dialog_are_acknowledged_as_the_dialog_says(of_bot: Ack, of_dialog: Ack) -> None:
    plugin = Plugin("a")

    @plugin.command("ask", ack=of_dialog)
    async def ask(talk: Dialog) -> str:
        return f"Hi {await talk.ask('Who?')}"

    handled = await talk("/ask", "Ann").into(plugin, ack=of_bot)

    assert handled.replies == ["Who?", "Hi Ann"]
    receipts = [action for action in handled.actions if isinstance(action, SendReadReceipt)]
    assert len(receipts) == (2 if of_dialog is Ack.HANDLED else 0)
    assert len(set(handled.handlers)) == 1
