"""A delivery of Event Grid rings for threads, whatever else it says; it is relied upon while it tells everything."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot.model import ThreadId
from chatbot.polling.eventgrid import (
    MAX_BYTES,
    MAX_DELAY_SECONDS,
    MAX_EVENTS,
    PROBATION_SECONDS,
    REMEMBERED_SECONDS,
    Delivery,
    DeliveryReliability,
    InvalidDelivery,
    read_delivery,
)

HALL, YARD = ThreadId("19:hall@thread.v2"), ThreadId("19:yard@thread.v2")


def event(kind: str, **data: Any) -> dict[str, Any]:
    return {"id": "1", "eventType": kind, "subject": "…", "data": data, "dataVersion": "1.0"}


def said(thread: object) -> dict[str, Any]:
    return event("Microsoft.Communication.ChatMessageReceivedInThread", threadId=thread, messageBody="hi")


def delivery(*events: object) -> bytes:
    return json.dumps(events).encode()


def test_a_delivery_names_threads_once_each_and_ignores_what_is_of_no_chat() -> None:
    body = delivery(said(HALL), said(HALL), said(YARD), event("Microsoft.Communication.SMSReceived", threadId="x"))

    assert read_delivery(body) == Delivery(frozenset({HALL, YARD}), others=1)


def test_every_event_but_a_message_may_mean_a_new_participant() -> None:
    added = event("Microsoft.Communication.ChatThreadParticipantAdded", threadId=YARD)

    assert read_delivery(delivery(said(HALL), said(YARD), added)) == Delivery(
        frozenset({HALL, YARD}), frozenset({YARD})
    )


@pytest.mark.parametrize("code", ["\ud800", "a\udfff", "", "x" * 600])
def test_a_code_that_cannot_be_sent_back_is_refused(code: str) -> None:
    handshake = event("Microsoft.EventGrid.SubscriptionValidationEvent", validationCode=code)

    with pytest.raises(InvalidDelivery):
        read_delivery(delivery(said(HALL), handshake))


def test_a_thread_whose_id_is_no_text_belongs_to_no_bot() -> None:
    assert read_delivery(delivery(said("19:\ud800@thread.v2"), said(HALL))) == Delivery(frozenset({HALL}), others=1)


def test_the_handshake_is_recognised_by_its_type() -> None:
    handshake = event(
        "Microsoft.EventGrid.SubscriptionValidationEvent", validationCode="512d", validationUrl="https://…"
    )

    assert read_delivery(delivery(handshake)).validation == "512d"
    assert (
        read_delivery(delivery(event("Microsoft.Communication.ChatThreadCreated", validationCode="512d"))).validation
        is None
    )


@pytest.mark.parametrize("thread", [None, 7, "", "x" * 513, ["19:hall@thread.v2"], {}])
def test_an_impossible_thread_id_triggers_no_poll(thread: object) -> None:
    assert read_delivery(delivery(said(thread))) == Delivery(frozenset(), others=1)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"null",
        b"\xff\xfe",
        b"[1]",
        b'[{"eventType": 1}]',
        b'[{"type": "a cloud event"}]',
        b"[" * 100_000,
        b"[" + b"9" * 5000 + b"]",
        delivery(*[said(HALL)] * (MAX_EVENTS + 1)),
        b" " * (MAX_BYTES + 1),
    ],
)
def test_what_is_no_delivery_is_refused_and_not_quoted(body: bytes) -> None:
    with pytest.raises(InvalidDelivery) as refusal:
        read_delivery(body)
    assert len(str(refusal.value)) < 200


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["eventType", "data"]), inner),
)


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_every_request_is_a_delivery_or_refused(body: bytes) -> None:
    try:
        found = read_delivery(body)
    except InvalidDelivery:
        return
    assert isinstance(found, Delivery)


def test_event_grid_is_relied_upon_from_the_first_event_of_a_bots_thread() -> None:
    reliance = DeliveryReliability()
    assert not reliance.is_trusted(0.0)

    reliance.record_delivery(HALL, 0.0)

    assert reliance.is_trusted(0.0)


def test_a_missing_event_ends_the_reliance_on_event_grid() -> None:
    reliance = DeliveryReliability()
    reliance.record_delivery(HALL, 0.0)

    reliance.record_activity(YARD, MAX_DELAY_SECONDS + 1, 30.0)

    assert not reliance.is_trusted(30.0 + PROBATION_SECONDS - 1)
    assert reliance.is_trusted(30.0 + PROBATION_SECONDS)


def test_an_event_that_came_or_may_still_come_does_not_end_the_reliance() -> None:
    reliance = DeliveryReliability()
    reliance.record_delivery(HALL, 0.0)

    reliance.record_activity(HALL, MAX_DELAY_SECONDS + 1, REMEMBERED_SECONDS - 1)
    reliance.record_activity(YARD, MAX_DELAY_SECONDS, 30.0)

    assert reliance.is_trusted(30.0)


def test_an_old_event_does_not_count_for_a_new_message() -> None:
    reliance = DeliveryReliability()
    reliance.record_delivery(HALL, 0.0)

    reliance.record_activity(HALL, MAX_DELAY_SECONDS + 1, REMEMBERED_SECONDS)

    assert not reliance.is_trusted(REMEMBERED_SECONDS)


@given(st.lists(st.integers(0, 5000), max_size=300))
def test_event_grid_remembers_only_threads_of_recent_events(numbers: list[int]) -> None:
    reliance = DeliveryReliability()
    for second, number in enumerate(numbers):
        reliance.record_delivery(ThreadId(str(number)), float(second))

    assert reliance.remembered <= REMEMBERED_SECONDS + 1
