"""Quirks: named switches for behavior of the service that is unknown outside Microsoft.

The defaults are the readings best supported by the recorded sessions and the documentation; a bot should be
right under every other value too, and can be tested so: `chatbot emulator --quirk start-time=exclusive`. The
docstring of each switch says what is unknown; `U1` to `U12` number the open questions.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import yaml

DECADE_SECONDS = 315_360_000


def _quirk(default: Any, doc: str, least: int = 0, most: int = DECADE_SECONDS) -> Any:
    """A switch; `least` and `most` bound a number, which is a duration unless they are given."""
    return field(default=default, metadata={"doc": doc, "range": (least, most)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Quirks:
    """Switches for all behavior of the service that is not established."""

    start_time: Literal["inclusive", "exclusive"] = _quirk(
        "inclusive", "U1: whether list_messages returns a message exactly at startTime"
    )
    start_time_field: Literal["version", "created"] = _quirk(
        "version", "U1: whether startTime is compared with a message's version or its creation"
    )
    start_time_precision: Literal["seconds", "milliseconds"] = _quirk(
        "seconds", "U1: whether startTime is floored to the second, as the nextLink echoes it"
    )
    thread_start_time: Literal["inclusive", "exclusive"] = _quirk(
        "inclusive", "U1: whether list_chat_threads returns a thread last active exactly at startTime"
    )
    error_envelope: Literal["CommunicationError", "error"] = _quirk(
        "CommunicationError",
        "U2: the recorded envelope of chat errors, or the one the specification promises",
    )
    unauthorized_body: Literal["empty", "envelope"] = _quirk("empty", "U3: the body of chat's 401")
    deletion_delay_seconds: int = _quirk(
        5,
        "how long a deleted identity's token is still accepted and its threads keep it (in 18 recorded sessions it "
        "deleted a thread a moment after its own deletion)",
    )
    www_authenticate: bool = _quirk(True, "U3: whether 401 carries `WWW-Authenticate: Bearer`")
    revocation_delay_seconds: int = _quirk(
        0, "U3: how long chat still accepts a revoked token (documented: up to 15 minutes)"
    )
    retry_after: Literal["seconds", "none", "milliseconds"] = _quirk(
        "seconds", "U4: whether 429 and 503 carry Retry-After (the one recorded 429 does), or x-ms-retry-after-ms"
    )
    refused_requests: Literal["counted", "free"] = _quirk(
        "counted",
        "U4: whether requests that are refused for a quota count against it (documented: all requests accrue)",
    )
    quota_rows: Literal["shared", "each"] = _quirk(
        "shared", "U4: whether operations in one row of the quota table (send, edit, delete) count together"
    )
    throttled_body: Literal["envelope", "empty"] = _quirk("envelope", "U4: the body of 429 and 503")
    quota_window: Literal["sliding", "fixed"] = _quirk("sliding", "U4: how the service counts its quotas")
    too_large_status: Literal[400, 413] = _quirk(400, "U5: the status for a message above 28 KB")
    page_size_over_max: Literal["clamp", "reject"] = _quirk("clamp", "U5: maxPageSize above the maximum")
    page_size_below_one: Literal["reject", "default"] = _quirk("reject", "U5: maxPageSize of zero or less")
    removed_reads: Literal["history", "forbidden", "not-found", "server-error"] = _quirk(
        "history", "U6: whether a removed participant can still read up to the removal (documented: yes), or how not"
    )
    removed_participants: Literal["forbidden", "not-found", "server-error", "listed"] = _quirk(
        "forbidden",
        "U6: how listing the participants answers the removed one (reported: 403); listed is those who are still there",
    )
    removed_writes: Literal["forbidden", "not-found", "server-error"] = _quirk(
        "forbidden",
        "U6: how sending, and everything else, is refused to the removed one (recorded: 403 in 2023, 500 in 2024)",
    )
    deleted_thread_participants: Literal["not-found", "forbidden", "listed"] = _quirk(
        "not-found", "U6: how listing the participants of a deleted thread answers"
    )
    deleted_thread_writes: Literal["not-found", "forbidden"] = _quirk(
        "not-found", "U6: how sending to a deleted thread, and every other change, is refused"
    )
    deleted_thread: Literal["not-found", "properties"] = _quirk(
        "not-found", "U6: whether get of a deleted thread is 404 or 200 with deletedOn"
    )
    deleted_thread_messages: Literal["not-found", "readable"] = _quirk(
        "not-found", "U6: whether a deleted thread's messages can still be listed and got"
    )
    delete_thread_by: Literal["participants", "creator"] = _quirk(
        "participants", "who may delete a thread: any participant, or only its creator"
    )
    edit_of_others: Literal["forbidden", "allowed"] = _quirk("forbidden", "U6: editing another's message")
    delete_of_others: Literal["forbidden", "allowed"] = _quirk(
        "forbidden", "U6: deleting another's message (reported possible in 2021 and 2022)"
    )
    edit_of_deleted: Literal["not-found", "bad-request"] = _quirk("not-found", "U6: editing a tombstone")
    delete_again: Literal["no-content", "not-found"] = _quirk(
        "no-content", "U6: deleting a deleted message or thread again"
    )
    tombstone_metadata: Literal["drop", "keep"] = _quirk("drop", "U7: the metadata of a deleted message")
    metadata_limit_bytes: int = _quirk(
        0, "U7: maximum bytes of a message's metadata; 0 for the message's limit only", most=28 * 1024
    )
    blank_content: Literal["accept", "reject"] = _quirk("accept", "U7: a message of white space only")
    identifier_kind: bool = _quirk(False, "U8: whether identifiers carry `kind` since 2024-03-07")
    edited_sequence: Literal["kept", "next"] = _quirk(
        "kept", "the sequenceId of an edited or deleted message (until 2023 it took the next one of its thread)"
    )
    removal_activity: Literal["unmoved", "moved"] = _quirk(
        "unmoved", "whether the removal of a participant moves lastMessageReceivedOn (recorded since 2024: it does not)"
    )
    removed_removal: Literal["server-error", "forbidden", "not-found"] = _quirk(
        "server-error",
        "how a removal by somebody who is no longer in the thread is refused (403 in December 2023, 500 in April 2024)",
    )
    thread_ids: Literal["acsV1", "short"] = _quirk(
        "acsV1", "thread ids of 63 characters that begin 19:acsV1_ (2025), or of 57 (until 2024)"
    )
    retention_none: Literal["shown", "omitted"] = _quirk(
        "shown", "whether a thread without a retention policy shows `none` (omitted until early March 2024)"
    )
    location_host: Literal["request", "global"] = _quirk(
        "request",
        "whether Location has the host of the request, or another one (June 2025, Microsoft's pre-production only)",
    )
    hsts: Literal["year", "year-spaced", "month"] = _quirk(
        "year",
        "Strict-Transport-Security: a year and subdomains since March 2024 (with a space on Microsoft's test "
        "environment), a month until February 2024",
    )
    edge_headers: bool = _quirk(
        False, "the newer edge: `connection: keep-alive` on all answers and `accept-ranges: bytes` on every 200"
    )
    mise_correlation: bool = _quirk(False, "whether answers of chat carry mise-correlation-id (June 2024 only)")
    identity_vector: Literal["0", "2.0"] = _quirk(
        "0", "the end of identity's MS-CV (2.0 in December 2023 and in early April 2024)"
    )
    negative_skip: Literal["reject", "zero"] = _quirk("reject", "U5: a negative skip")
    bad_start_time: Literal["reject", "ignore"] = _quirk("reject", "U5: a startTime that is not a time")
    system_type: Literal["reject", "text"] = _quirk(
        "reject", "sending a message of a type of the service's own: refused, or stored as text"
    )
    leave_initiator: Literal["self", "absent"] = _quirk(
        "self", "U12: whether participantRemoved names an initiator when somebody leaves"
    )
    default_page_size: int = _quirk(
        10, "U9: list_messages without maxPageSize (10 recorded from 2021 to 2025, 6 reported in 2024)", 1, 200
    )
    default_participants: int = _quirk(100, "U9: list_participants without maxPageSize", 1, 250)
    default_receipts: int = _quirk(100, "U9: list_read_receipts without maxPageSize", 1, 250)
    link_after_last: bool = _quirk(
        True,
        "U10: whether a page that ends exactly at the last message has a nextLink to an empty page (three messages in "
        "pages of one took four requests in all recorded sessions that list them)",
    )
    cursor_seconds: int = _quirk(0, "U10: after how long a nextLink of messages is refused, 0 for never")
    repeatability_seconds: int = _quirk(86400, "U11: how long a repeatability-request-id is remembered")
    repeatability_conflict: Literal["same", "conflict"] = _quirk(
        "same", "U11: a known repeatability-request-id with another body: the same thread, or 409"
    )
    equal_versions: bool = _quirk(
        False, "whether two changes within one millisecond may share a version (ids stay distinct)"
    )
    activity: Literal["messages", "changes", "everything"] = _quirk(
        "messages",
        "whether edits and deletions (changes), and receipts and typing too (everything), bump lastMessageReceivedOn",
    )
    stamp_behind_seconds: int = _quirk(
        0, "by how much lastMessageReceivedOn is earlier than the last message (recorded: up to a second)"
    )
    date_behind_seconds: int = _quirk(
        0, "by how much the Date header is behind the clock that makes ids (recorded: up to a second)"
    )
    phantom_threads: int = _quirk(
        0,
        "how many conversations the service hides before each thread of a list: pages become short or empty although "
        "more follow (recorded: 94, 96 and 0 of 100 with a nextLink)",
        most=1_000,
    )
    stampless_seconds: int = _quirk(
        0,
        "how long a fresh thread is listed without lastMessageReceivedOn (recorded in 8 cases until 2023, and for two "
        "threads made up to two seconds earlier in 2025)",
    )
    unknown_participant: Literal["invalid", "accept"] = _quirk(
        "invalid",
        "whether a well-formed user id the resource does not know is reported in invalidParticipants",
    )
    remove_stranger: Literal["no-content", "not-found"] = _quirk(
        "no-content", "removing someone who is not in the thread"
    )
    delete_user_again: Literal["not-owned", "no-content"] = _quirk(
        "not-owned", "deleting a deleted identity: 401 like any unknown one, or 204"
    )
    empty_topic: Literal["reject", "accept"] = _quirk("reject", "an empty topic (the SDKs refuse it themselves)")
    unsupported_version: Literal["reject", "accept"] = _quirk(
        "reject", "U5: an api-version the service does not have, on chat"
    )
    hmac_skew_seconds: int = _quirk(
        0, "how far x-ms-date may be off, 0 for not checked (the service's tolerance is unknown)"
    )

    def __post_init__(self) -> None:
        """Check the values: wrong ones would answer like no service, and numbers out of range not at all.

        Raises:
            ValueError: a value is not possible; says what is.
        """
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if value != item.default or type(value) is not type(item.default):
                _check(item.name, value)

    @classmethod
    def parse(cls, switches: Iterable[str], base: Quirks | None = None) -> Quirks:
        """Parse `name=value` texts, with dashes or underscores in names; the ValueError lists the possible values."""
        changes: dict[str, Any] = {}
        for switch in switches:
            name, _, value = switch.partition("=")
            key = name.strip().replace("-", "_")
            changes[key] = _value(key, value.strip())
        return dataclasses.replace(base or cls(), **changes)

    @classmethod
    def load(cls, path: str | PathLike[str], base: Quirks | None = None) -> Quirks:
        """Read a YAML file of `name: value`, as `chatbot doctor --probe` writes it; names with dashes or underscores.

        Raises:
            ValueError: the file cannot be read, or names something that is no quirk; says what is possible.
        """
        try:
            document = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            msg = f"{path}: cannot be read as YAML: {error}"
            raise ValueError(msg) from error
        if document is not None and not isinstance(document, dict):
            msg = f"{path}: expected a mapping of quirks, such as `start-time: exclusive`"
            raise ValueError(msg)
        try:
            return cls.parse((f"{name}={_written(value)}" for name, value in (document or {}).items()), base)
        except ValueError as error:
            msg = f"{path}: {error}"
            raise ValueError(msg) from error

    @classmethod
    def describe(cls) -> list[tuple[str, str, str]]:
        """Return name, possible values (default first) and meaning of every switch."""
        return [
            (item.name.replace("_", "-"), " | ".join(_choices(item.name)), str(item.metadata["doc"]))
            for item in dataclasses.fields(cls)
        ]


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _choices(key: str) -> list[str]:
    hint = _hints()[key]
    default = next(item.default for item in dataclasses.fields(Quirks) if item.name == key)
    if hint is bool:
        values = ["true", "false"]
    elif hint is int:
        return [str(default), "…"]
    else:
        values = [str(value) for value in typing.get_args(hint)]
    first = str(default).lower() if hint is bool else str(default)
    return [first, *(value for value in values if value != first)]


def _range(key: str) -> tuple[int, int]:
    least, most = next(item.metadata["range"] for item in dataclasses.fields(Quirks) if item.name == key)
    return int(least), int(most)


def _check(key: str, value: object) -> None:
    hint = _hints()[key]
    if hint is bool:
        is_possible = isinstance(value, bool)
    elif hint is int:
        least, most = _range(key)
        is_possible = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
    else:
        is_possible = any(value == choice and type(value) is type(choice) for choice in typing.get_args(hint))
    if not is_possible:
        raise ValueError(_impossible(key, value))


def _impossible(key: str, value: object) -> str:
    possible = " | ".join(_choices(key))
    if _hints()[key] is int:
        least, most = _range(key)
        possible = f"a whole number from {least} to {most}"
    return f"quirk {key.replace('_', '-')} cannot be {value!r}; it can be: {possible}"


@functools.cache
def _hints() -> dict[str, Any]:
    return typing.get_type_hints(Quirks)


def _value(key: str, text: str) -> Any:
    hints = _hints()
    if key not in hints:
        names = ", ".join(sorted(hints)).replace("_", "-")
        msg = f"there is no quirk {key.replace('_', '-')!r}; there are: {names}"
        raise ValueError(msg)
    hint = hints[key]
    if hint is bool and text.lower() in {"true", "false", "on", "off", "yes", "no"}:
        return text.lower() in {"true", "on", "yes"}
    if hint is int and text.isascii() and text.isdecimal() and len(text) < 20:
        return int(text)  # its range is checked with the other values
    for choice in typing.get_args(hint):
        if text == str(choice):
            return choice
    raise ValueError(_impossible(key, text))
