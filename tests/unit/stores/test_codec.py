import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatbot import actions, events
from chatbot.actions import Action, ActionKey, AddParticipants, SendMessage, SendReadReceipt, UpdateTopic
from chatbot.errors import CannotStore, StoreError, StoreTooNew
from chatbot.events import Event
from chatbot.model import Attachment, ChatMessage, MessageId, MessageType, Participant, Receipt, ThreadId, UserId
from chatbot.stores import codec

HALF = "\ud83d"  # the first half of an emoji

texts = st.text(st.characters(exclude_categories=["Cs"]))
times = st.datetimes(
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-9))]),
    min_value=datetime(1990, 1, 1),
    max_value=datetime(2200, 1, 1),
)
participants = st.builds(Participant, user=texts, display_name=st.none() | texts, share_history_time=st.none() | times)
maybe = st.none() | texts
any_action = st.one_of(
    st.builds(
        actions.SendMessage,
        content=texts,
        type=st.sampled_from(["text", "html"]),
        thread=maybe,
        display_name=maybe,
        metadata=st.dictionaries(texts, texts),
    ),
    st.builds(actions.EditMessage, message=texts, content=texts, thread=maybe),
    st.builds(actions.DeleteMessage, message=texts, thread=maybe),
    st.builds(actions.SendReadReceipt, message=texts, thread=maybe),
    st.builds(actions.AddParticipants, participants=st.lists(participants, max_size=4).map(tuple), thread=maybe),
    st.builds(actions.RemoveParticipant, user=texts, thread=maybe),
    st.builds(actions.UpdateTopic, topic=texts, thread=maybe),
)


@given(any_action)
def test_every_action_comes_back_as_it_was(action):
    stored = codec.encode_action(action)

    assert codec.decode_action(stored) == action
    stored.encode()


@given(any_action)
def test_an_action_that_came_back_is_stored_the_same_again(action):
    stored = codec.encode_action(action)

    assert codec.encode_action(codec.decode_action(stored)) == stored


@pytest.mark.parametrize(("kinds", "module", "base"), [(codec.ACTIONS, actions, Action), (codec.EVENTS, events, Event)])
def test_every_class_has_a_name_to_be_stored_under(kinds, module, base):
    """Classes with subclasses are never made themselves."""
    classes = {one for one in vars(module).values() if isinstance(one, type) and issubclass(one, base)}
    bases = {one for cls in classes for one in cls.__mro__[1:]}

    assert set(kinds.named.values()) == classes - bases


def test_the_stored_form_is_readable_and_carries_its_version():
    stored = codec.encode_action(SendMessage("grüß dich", metadata={"a": "1"}))

    assert stored == '{"v":1,"kind":"send_message","content":"grüß dich","type":"text","metadata":{"a":"1"}}'


@pytest.mark.parametrize(
    ("action", "sentence"),
    [
        (SendMessage(42), "SendMessage.content is of type int; expected text"),
        (SendMessage(None), "SendMessage.content is of type NoneType; expected text"),
        (SendMessage("a" + HALF), "SendMessage.content has half of a surrogate pair at 1, "),
        (SendMessage("a", type="markdown"), "SendMessage.type is 'markdown'; expected 'text' or 'html'"),
        (SendMessage("a", metadata={"n": 1}), "SendMessage.metadata['n'] is of type int; expected text"),
        (SendMessage("a", metadata={1: "n"}), "key of SendMessage.metadata is of type int; expected text"),
        (SendMessage("a", metadata=["n"]), "SendMessage.metadata is of type list; expected a mapping"),
        (SendReadReceipt(7), "SendReadReceipt.message is of type int; expected text"),
        (AddParticipants(["8:ann"]), "AddParticipants.participants is of type list; expected a tuple"),
        (
            AddParticipants(("8:ann",)),
            "AddParticipants.participants[0] is of type str; expected a Participant",
        ),
        (
            AddParticipants((Participant(UserId("8:ann")), Participant(UserId("8:bob"), display_name=3))),
            "AddParticipants.participants[1].display_name is of type int; expected text",
        ),
        (
            AddParticipants((Participant(UserId("8:ann"), share_history_time=datetime(2026, 1, 2)),)),
            "AddParticipants.participants[0].share_history_time is 2026-01-02T00:00:00 without a time zone",
        ),
        ("hello", "action is of type str; expected one of AddParticipants, DeleteMessage, "),
    ],
)
def test_what_cannot_be_stored_is_refused_with_its_place(action, sentence):
    with pytest.raises(CannotStore) as refusal:
        codec.encode_action(action)

    assert str(refusal.value).startswith(sentence)


def test_a_refusal_does_not_quote_message_text():
    with pytest.raises(CannotStore) as refusal:
        codec.encode_action(UpdateTopic("my secret " + HALF))

    assert "secret" not in str(refusal.value)


def test_an_action_class_of_a_plugins_own_is_refused():
    class Shout(SendMessage):
        pass

    with pytest.raises(CannotStore, match="action is of type Shout"):
        codec.encode_action(Shout("HEY"))


@pytest.mark.parametrize(
    "stored",
    [
        "",
        "hello",
        "[]",
        "null",
        '{"kind":"send_message","content":"a"}',
        '{"v":"1","kind":"send_message","content":"a"}',
        '{"v":1,"content":"a"}',
        '{"v":1,"kind":"sing","content":"a"}',
        '{"v":1,"kind":["send_message"],"content":"a"}',
        '{"v":1,"kind":"send_message"}',
        '{"v":1,"kind":"send_message","content":null}',
        '{"v":1,"kind":"send_message","content":"a","volume":11}',
        '{"v":1,"kind":"send_message","content":"a","metadata":["x"]}',
        '{"v":1,"kind":"add_participants","participants":3}',
        '{"v":1,"kind":"add_participants","participants":[{}]}',
        '{"v":1,"kind":"add_participants","participants":["8:ann"]}',
        '{"v":1,"kind":"add_participants","participants":[{"user":"8:ann","age":3}]}',
        '{"v":1,"kind":"add_participants","participants":[{"user":"8:ann","share_history_time":"soon"}]}',
        '{"v":1,"kind":"add_participants","participants":[{"user":"8:ann","share_history_time":"2026-01-02"}]}',
    ],
)
def test_a_stored_text_that_chatbot_did_not_write_is_never_half_read(stored):
    with pytest.raises(StoreError, match="damaged"):
        codec.decode_action(stored)


MESSAGE = ChatMessage(
    id=MessageId("1700000000123"),
    version=1700000000456,
    type=MessageType.HTML,
    created_on=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    content="<b>hi</b>",
    sequence_id=7,
    sender=UserId("8:ann"),
    attachments=(Attachment("1", "file", "plan.pdf", "https://x/plan"),),
    metadata={"a": "1"},
)
WHO = {"bot": UserId("8:bot"), "occurred_on": datetime(2026, 1, 2, tzinfo=UTC)}
WHERE = {**WHO, "thread": ThreadId("19:hall")}
PEOPLE = (Participant(UserId("8:ann"), "Ann"), Participant(UserId("8:bob")))

ALL_EVENTS = [
    events.MessageReceived(**WHERE, message=MESSAGE),
    events.MessageEdited(**WHERE, message=MESSAGE),
    events.MessageDeleted(**WHERE, message=replace(MESSAGE, content="", deleted_on=MESSAGE.created_on)),
    events.ParticipantsAdded(**WHERE, message=replace(MESSAGE, participants=PEOPLE), participants=PEOPLE),
    events.ParticipantsRemoved(**WHERE, message=MESSAGE, participants=(), initiator=UserId("8:ann")),
    events.TopicUpdated(**WHERE, message=MESSAGE, topic="Plans"),
    events.ReadReceiptReceived(**WHERE, receipt=Receipt(UserId("8:ann"), MESSAGE.id, MESSAGE.created_on)),
    events.ThreadJoined(**WHERE, arrival=MESSAGE.id),
    events.ThreadLeft(**WHERE, is_deleted=True, floor=5),
    events.ActionFailed(**WHERE, action=SendMessage("hi"), action_key=ActionKey("k"), reason="refused (403)"),
    events.TimerFired(
        **WHERE, timer="a.remind", id="t", due=MESSAGE.created_on, payload='{"x":1}', caused_by=UserId("8:ann")
    ),
    events.DialogTimedOut(**WHERE, dialog="d", user=UserId("8:ann"), step=3),
    events.ScheduleFired(**WHO, schedule="a.sweep", due=MESSAGE.created_on),
    events.BotStarted(**WHO),
    events.BotStopping(**WHO),
]


@pytest.mark.parametrize("event", ALL_EVENTS, ids=lambda event: type(event).__name__)
def test_every_event_comes_back_as_it_was(event):
    assert codec.decode_event(codec.encode_event(event)) == event


def test_no_event_is_left_out_here():
    assert {type(event) for event in ALL_EVENTS} == set(codec.EVENTS.named.values())


@settings(max_examples=30)
@given(content=st.text(), metadata=st.dictionaries(st.text(), st.text()), time=times)
def test_an_event_with_any_text_can_be_stored(content, metadata, time):
    """Or a message that cannot be stored could not be buried as a dead letter either."""
    message = replace(MESSAGE, content=content, metadata=metadata, edited_on=time)
    event = events.MessageEdited(**WHERE, message=message)

    stored = codec.encode_event(event)

    assert codec.decode_event(stored) == event
    assert stored.isascii()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["user", "display_name", "x"]), inner),
)


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from(["kind", "participants", "thread", "x"]), json_values))
def test_damage_never_passes_for_another_value(fields):
    form = {"v": 1, "kind": "add_participants"} | fields
    try:
        action = codec.decode_action(json.dumps(form))
    except StoreError:
        return

    written = json.loads(codec.encode_action(action))
    assert {"thread": None} | written == {"thread": None} | form


def test_a_form_of_a_newer_chatbot_says_so():
    with pytest.raises(StoreTooNew, match="has version 2, but this chatbot reads up to 1: run a newer chatbot"):
        codec.decode_action('{"v":2,"kind":"send_message","content":"a"}')


@given(st.integers(-(2**63), 2**63 - 1))
def test_integers_of_64_bits_are_stored(value):
    assert codec.integer(value, "x") == value


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, True, 1.0, "1", None])
def test_other_numbers_are_not(value):
    with pytest.raises(CannotStore, match=r"^ThreadRecord\.base is "):
        codec.integer(value, "ThreadRecord.base")


@pytest.mark.parametrize("value", ["", "m1", "-5", "007", "٣", "1.5", "9" * 19, "9" * 5000, HALF, 12])
def test_a_message_id_is_epoch_milliseconds_in_decimal(value):
    with pytest.raises(CannotStore, match=r"MarkReceiptDue\.message"):
        codec.number(value, "MarkReceiptDue.message")


@given(st.integers(0, 2**63 - 1))
def test_message_ids_come_back_as_they_were(value):
    assert str(codec.number(MessageId(str(value)), "x")) == str(value)


def test_a_column_takes_no_nul():
    with pytest.raises(CannotStore, match=r"BotRecord\.name has a NUL character at 1; remove it"):
        codec.text("a\0b", "BotRecord.name")


@given(st.none() | st.text())
def test_a_diagnostic_is_always_storable(reason):
    storable = codec.diagnostic(reason)

    assert codec.optional_text(storable, "reason") == storable
