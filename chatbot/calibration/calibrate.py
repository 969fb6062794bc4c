"""The groups of a probe, what they cost, and the run: groups, watches, cleanup."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import anyio

from chatbot.calibration import change_checks, limit_checks, list_checks
from chatbot.calibration.findings import Findings
from chatbot.calibration.intents import Cleanup, IntentJournal
from chatbot.calibration.scene import CHAT_VERSIONS, MAX_REQUESTS, MAX_SECONDS, LimitReached, Meter, Scene
from chatbot.errors import ConfigError, ServiceError, described
from chatbot.service.acs import AcsResource


@dataclass(frozen=True, slots=True)
class Group:
    """One part of a probe, which can be left out.

    Args:
        name: for `--only` and `--skip`.
        what: what it looks at.
        requests: about how many requests it sends.
        users: the throw-away users that it needs.
        threads: the threads that it creates.
        quirks: the fields of `Quirks` that it observes.
        run: observes them.
    """

    name: str
    what: str
    requests: int
    users: tuple[str, ...]
    threads: int
    quirks: tuple[str, ...]
    run: Callable[[Scene], Awaitable[None]]


GROUPS: Final = (
    Group(
        "identities",
        "how long tokens of revoked and deleted users are accepted, and signatures that are late",
        20,
        ("eve", "fay"),
        0,
        ("revocation_delay_seconds", "deletion_delay_seconds", "delete_user_again", "hmac_skew_seconds"),
        limit_checks.identities,
    ),
    Group(
        "repeatability",
        "creating a thread again with the same repeatability id",
        8,
        ("ann", "ben"),
        2,
        ("repeatability_seconds", "repeatability_conflict"),
        limit_checks.repeatability,
    ),
    Group(
        "answers",
        "ids, headers, error envelopes, 401, unsupported versions",
        10,
        ("ann",),
        1,
        (
            "thread_ids",
            "location_host",
            "date_behind_seconds",
            "hsts",
            "edge_headers",
            "mise_correlation",
            "identifier_kind",
            "retention_none",
            "error_envelope",
            "unauthorized_body",
            "www_authenticate",
            "unsupported_version",
            "identity_vector",
        ),
        list_checks.answers,
    ),
    Group(
        "reading",
        "startTime, page sizes and nextLinks of messages",
        42,
        ("ann", "ben"),
        1,
        (
            "start_time",
            "start_time_field",
            "start_time_precision",
            "page_size_over_max",
            "page_size_below_one",
            "negative_skip",
            "bad_start_time",
            "default_page_size",
            "default_participants",
            "default_receipts",
            "link_after_last",
            "cursor_seconds",
        ),
        list_checks.reading,
    ),
    Group(
        "editing",
        "edits and deletions of messages",
        19,
        ("ann", "ben"),
        1,
        (
            "edited_sequence",
            "equal_versions",
            "edit_of_others",
            "delete_of_others",
            "tombstone_metadata",
            "edit_of_deleted",
            "delete_again",
        ),
        change_checks.editing,
    ),
    Group(
        "membership",
        "removed participants, those who leave, and strangers",
        14,
        ("ann", "ben", "cat", "dan"),
        1,
        (
            "remove_stranger",
            "unknown_participant",
            "removal_activity",
            "removed_reads",
            "removed_participants",
            "removed_writes",
            "removed_removal",
            "leave_initiator",
        ),
        change_checks.membership,
    ),
    Group(
        "deletion",
        "deleted threads",
        12,
        ("ann", "ben"),
        1,
        (
            "delete_thread_by",
            "deleted_thread",
            "deleted_thread_messages",
            "deleted_thread_participants",
            "deleted_thread_writes",
        ),
        change_checks.deletion,
    ),
    Group(
        "content",
        "large and empty messages, metadata, html, topics",
        13,
        ("ann",),
        1,
        ("too_large_status", "blank_content", "system_type", "empty_topic", "metadata_limit_bytes"),
        change_checks.content,
    ),
    Group(
        "thread-lists",
        "what moves a thread in people's lists",
        20,
        ("ann", "dan"),
        3,
        ("stampless_seconds", "phantom_threads", "stamp_behind_seconds", "thread_start_time", "activity"),
        list_checks.thread_lists,
    ),
    Group(
        "quotas",
        "what a 429 looks like and how requests are counted; provokes refusals, in its own thread only",
        45,
        ("ann", "ben", "cat"),
        1,
        limit_checks.QUOTA_QUIRKS,
        limit_checks.quotas,
    ),
)

NOT_PROBED: Final[dict[str, str]] = {}
"""Quirks that cannot be observed from outside, and why. Every other one belongs to a group."""

AWAITED: Final = frozenset({"revocation_delay_seconds", "deletion_delay_seconds", "stampless_seconds"})
"""What bots depend on, and a probe waits for longer."""

AWAITED_SECONDS: Final = 75.0
PATIENCE_SECONDS: Final = 45.0
"""How long a probe lasts at least while something that it watches has not ended."""


def chosen(only: Sequence[str] = (), skip: Sequence[str] = ()) -> list[Group]:
    """Return the groups to run.

    Raises:
        ConfigError: there is no group of such a name, or none is left.
    """
    names = {group.name for group in GROUPS}
    for name in (*only, *skip):
        if name not in names:
            msg = f"there is no group {name!r} of the probe; there are: {', '.join(group.name for group in GROUPS)}"
            raise ConfigError(msg)
    groups = [group for group in GROUPS if (not only or group.name in only) and group.name not in skip]
    if not groups:
        msg = "no group of the probe is left: --skip names all of --only"
        raise ConfigError(msg)
    return groups


def plan(groups: Iterable[Group], endpoint: str) -> list[str]:
    """Return what a probe would do and cost, as lines for people."""
    groups = list(groups)
    users = sorted({name for group in groups for name in group.users})
    threads = sum(group.threads for group in groups)
    requests = min(MAX_REQUESTS, sum(group.requests for group in groups) + 2 * len(users) + threads + 10)
    return [
        f"This probes {endpoint}: it creates {len(users)} throw-away users and {threads} threads of their own, acts in "
        "these threads only, and deletes them at the end. Existing users and threads are not touched or read.",
        "",
        *(f"  {group.name:<14} {group.what} (about {group.requests} requests)" for group in groups),
        "",
        f"It sends about {requests} requests, never more than {MAX_REQUESTS}, in at most {MAX_SECONDS / 60:.0f} "
        "minutes, among them fewer than 100 messages. Azure bills messages that are sent: a few cents at most, see "
        "the pricing page of Communication Services. Quotas of the resource as a whole are not exhausted.",
    ]


@dataclass(slots=True)
class ProbeResult:
    """What a probe found, and what it left behind.

    Args:
        findings: what was observed.
        requests: how many requests were sent.
        seconds: how long it took.
        left: what could not be deleted, and why.
        redact: replaces ids and names of the resource in a text.
    """

    findings: Findings
    requests: int
    seconds: float
    version: str
    left: list[str] = field(default_factory=list)
    redact: Callable[[str], str] = str


async def probe(
    resource: AcsResource,
    journal: IntentJournal,
    meter: Meter,
    groups: Iterable[Group],
    *,
    clock: Callable[[], float] = time.time,
    tell: Callable[[str], None] = lambda _line: None,
) -> ProbeResult:
    """Run the groups, then delete everything that they created.

    Args:
        resource: the resource, entered; its transport asks the meter.
        journal: records what is created before it is.
        meter: limits requests and time.
        groups: what to look at.
        clock: epoch seconds, as fast as the event loop's.
        tell: shows progress.
    """
    await journal.begin(resource.endpoint)
    scene = Scene(resource, journal, meter, clock)
    left: list[str] = []
    try:
        await _observe(scene, list(groups), tell)
        tell("waiting for what ends by itself")
        await _outlast(scene)
    finally:
        # Whatever happened, also if the person gave up: what was created is deleted.
        with anyio.CancelScope(shield=True):
            tell("deleting the users and threads")
            left = await scene.clean_up()
    return ProbeResult(scene.findings, meter.count, meter.seconds, scene.version, left, scene.redact)


async def _observe(scene: Scene, groups: list[Group], tell: Callable[[str], None]) -> None:
    scene.findings.miss(NOT_PROBED, "not observable")
    left = list(groups)
    try:
        await _choose_version(scene, groups[0])
        while left:
            tell(f"{left[0].name}: {left[0].what}")
            await _run_group(scene, left[0])
            left.pop(0)
    except LimitReached as error:
        for group in left:
            scene.findings.miss(group.quirks, f"not probed: {error}")


async def _run_group(scene: Scene, group: Group) -> None:
    """Run one group; an answer that it cannot make sense of ends this group alone."""
    try:
        await group.run(scene)
        await scene.look()
    except (ServiceError, KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
        unlike = f"an answer was unlike any known: {described(error)}"
        reason = str(error) if isinstance(error, ServiceError) else unlike
        scene.findings.miss(group.quirks, f"the group {group.name} ended early: {reason}")


async def _choose_version(scene: Scene, first: Group) -> None:
    """Use the newest api-version of chat that the resource takes."""
    user = await scene.user(next(iter(first.users)))
    for version in CHAT_VERSIONS:
        scene.version = version
        if (await scene.ask(user, "GET", "", query={"maxPageSize": 1})).status == 200:
            return


async def _outlast(scene: Scene) -> None:
    try:
        await scene.outlast(PATIENCE_SECONDS, AWAITED_SECONDS, AWAITED)
    except LimitReached:
        await scene.outlast(0.0, 0.0, ())


async def clean_up(
    resource: AcsResource, journal: IntentJournal, pause: Callable[[float], Awaitable[Any]] = anyio.sleep
) -> list[str]:
    """Delete what an earlier probe created and did not delete; return what is left and why."""
    await journal.begin(resource.endpoint)
    return await Cleanup(journal, resource.raw_requests(), pause).run()
