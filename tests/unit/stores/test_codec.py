import dataclasses
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot import actions
from chatbot.actions import AddParticipants, SendMessage, SendReadReceipt, UpdateTopic
from chatbot.errors import CannotStore, StoreError, StoreTooNew
from chatbot.model import MessageId, Participant, UserId
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


def test_every_action_and_each_of_its_fields_has_a_stored_form():
    """So that a field added to an action cannot be lost silently."""
    kinds = {kind.cls: set(kind.fields) for kind in codec._KINDS}

    classes = [one for one in vars(actions).values() if isinstance(one, type) and issubclass(one, actions.Action)]
    assert kinds == {
        one: {field.name for field in dataclasses.fields(one)} for one in classes if one is not actions.Action
    }


def test_the_stored_form_is_readable_and_carries_its_version():
    stored = codec.encode_action(SendMessage("grüß dich", metadata={"a": "1"}))

    assert stored == '{"v":1,"do":"send_message","content":"grüß dich","type":"text","metadata":{"a":"1"}}'


@pytest.mark.parametrize(
    ("action", "sentence"),
    [
        (SendMessage(42), "SendMessage.content is of type int; expected text"),
        (SendMessage(None), "SendMessage.content is of type NoneType; expected text"),
        (SendMessage("a" + HALF), "SendMessage.content has half of a surrogate pair at 1, "),
        (SendMessage("a", type="markdown"), "SendMessage.type is of type str; expected 'text' or 'html'"),
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


def test_a_refusal_does_not_tell_what_was_said():
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
        '{"do":"send_message","content":"a"}',
        '{"v":"1","do":"send_message","content":"a"}',
        '{"v":1,"content":"a"}',
        '{"v":1,"do":"sing","content":"a"}',
        '{"v":1,"do":["send_message"],"content":"a"}',
        '{"v":1,"do":"send_message"}',
        '{"v":1,"do":"send_message","content":null}',
        '{"v":1,"do":"send_message","content":"a","volume":11}',
        '{"v":1,"do":"send_message","content":"a","metadata":["x"]}',
        '{"v":1,"do":"add_participants","participants":3}',
        '{"v":1,"do":"add_participants","participants":[{}]}',
        '{"v":1,"do":"add_participants","participants":["8:ann"]}',
        '{"v":1,"do":"add_participants","participants":[{"user":"8:ann","age":3}]}',
        '{"v":1,"do":"add_participants","participants":[{"user":"8:ann","share_history_time":"soon"}]}',
        '{"v":1,"do":"add_participants","participants":[{"user":"8:ann","share_history_time":"2026-01-02"}]}',
    ],
)
def test_a_stored_text_that_chatbot_did_not_write_is_never_half_read(stored):
    with pytest.raises(StoreError, match="damaged"):
        codec.decode_action(stored)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["user", "display_name", "x"]), inner),
)


@given(st.dictionaries(st.sampled_from(["do", "participants", "thread", "x"]), json_values))
def test_damage_never_passes_for_another_value(fields):
    form = {"v": 1, "do": "add_participants"} | fields
    try:
        action = codec.decode_action(json.dumps(form))
    except StoreError:
        return

    written = json.loads(codec.encode_action(action))
    assert {"thread": None} | written == {"thread": None} | form


def test_a_form_of_a_newer_chatbot_says_so():
    with pytest.raises(StoreTooNew, match="form 2; this chatbot reads up to 1: run a newer one"):
        codec.decode_action('{"v":2,"do":"send_message","content":"a"}')


@given(st.integers(-(2**63), 2**63 - 1))
def test_integers_of_64_bits_are_stored(value):
    assert codec.integer(value, "x") == value


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, True, 1.0, "1", None])
def test_other_numbers_are_not(value):
    with pytest.raises(CannotStore, match=r"^ThreadRecord\.base is "):
        codec.integer(value, "ThreadRecord.base")


@pytest.mark.parametrize("value", ["", "m1", "-5", "007", "٣", "1.5", "9" * 19, "9" * 5000, HALF, 12])
def test_a_message_id_is_epoch_milliseconds_in_decimal(value):
    with pytest.raises(CannotStore, match=r"OweReceipt\.message"):
        codec.number(value, "OweReceipt.message")


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
