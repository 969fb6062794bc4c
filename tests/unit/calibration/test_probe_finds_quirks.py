"""The probe against the emulator: it finds every value of every quirk that it says it observes."""

from __future__ import annotations

import dataclasses
import json
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
import pytest

from chatbot.calibration import report
from chatbot.calibration.calibrate import GROUPS, NOT_PROBED, Group
from chatbot.emulator import Quirks
from tests.unit.calibration.probing import emulator, remains, run

NUMBERS: Final = {
    "deletion_delay_seconds": (0, 3, 60, 900),
    "revocation_delay_seconds": (0, 1, 10, 900),
    "metadata_limit_bytes": (0, 256, 1000, 4096),
    "default_page_size": (6, 10, 50),
    "default_participants": (1, 100),
    "default_receipts": (1, 100),
    "cursor_seconds": (0, 5, 40),
    "repeatability_seconds": (2, 10, 86_400),
    "stamp_behind_seconds": (0, 1, 3),
    "date_behind_seconds": (0, 1, 2),
    "phantom_threads": (0, 1, 5, 40),
    "stampless_seconds": (0, 3, 20),
    "hmac_skew_seconds": (0, 45, 300, 20_000),
}
"""The values that are tried of quirks that are numbers, those within the probe's reach and beyond it."""

SAMPLE: Final = frozenset(
    {
        "start_time=exclusive",
        "activity=everything",
        "quota_window=fixed",
        "removed_reads=server-error",
        "deletion_delay_seconds=60",
        "hmac_skew_seconds=300",
        "repeatability_conflict=conflict",
        "metadata_limit_bytes=1000",
    }
)
"""What the default suite tries: one value of most groups."""


def values(quirk: str) -> tuple[Any, ...]:
    """The values of a quirk to try."""
    hint = typing.get_type_hints(Quirks)[quirk]
    if hint is bool:
        return (False, True)
    return NUMBERS[quirk] if hint is int else typing.get_args(hint)


def cases() -> Iterator[Any]:
    for group in GROUPS:
        for quirk in group.quirks:
            for value in values(quirk):
                name = f"{quirk}={value}"
                marks = () if name in SAMPLE else (pytest.mark.calibration,)
                yield pytest.param(group, quirk, value, id=name, marks=marks)


@pytest.mark.virtual_time
@pytest.mark.parametrize(("group", "quirk", "value"), list(cases()))
async def test_the_probe_finds_the_value_that_the_emulator_was_given(
    group: Group, quirk: str, value: Any, tmp_path: Path
) -> None:
    service = emulator(f"{quirk}={str(value).lower() if isinstance(value, bool) else value}")

    result = await run(service, tmp_path / "journal", [group.name])

    found = result.findings.found.get(quirk)
    assert found is not None, result.findings.missing[quirk]
    assert found.fits(value), found
    others = {other for other in values(quirk) if found.fits(other)}
    assert others == {value} or not found.is_exact
    assert set(result.findings.differences) <= {quirk}
    assert remains(service) == []


def test_every_quirk_is_observed_by_one_group_or_listed_with_the_reason_why_not() -> None:
    observed = [quirk for group in GROUPS for quirk in group.quirks]

    assert len(observed) == len(set(observed))
    assert sorted([*observed, *NOT_PROBED]) == sorted(item.name for item in dataclasses.fields(Quirks))


def test_the_manual_lists_every_group() -> None:
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "calibrate.md").read_text()

    listed = [line for line in page.splitlines() if line.startswith("| `") and not line.startswith("| `--")]

    assert listed == [f"| `{group.name}` | {group.what} |" for group in GROUPS]


@pytest.mark.virtual_time
async def test_a_probe_of_the_emulator_as_it_is_finds_no_difference(tmp_path: Path) -> None:
    service = emulator()

    result = await run(service, tmp_path / "journal")

    assert result.findings.differences == {}
    assert set(result.findings.missing) == set(NOT_PROBED)
    assert result.findings.quirks == Quirks()
    assert {f"U{number}" for number in (1, 4, 3, 6, 7, 8, 10, 11, 12)} <= {
        one.question for one in result.findings.answers
    }
    assert result.seconds < 180
    assert result.left == []
    assert remains(service) == []
    assert not (tmp_path / "journal").exists()


@pytest.mark.virtual_time
async def test_the_report_of_a_whole_probe_has_no_secrets_and_its_quirks_can_be_read(tmp_path: Path) -> None:
    service = emulator("removed-reads=not-found", "deletion-delay-seconds=60", "revocation-delay-seconds=900")

    result = await run(service, tmp_path / "journal")

    document = json.dumps(await anyio.to_thread.run_sync(report.document, result, service.clock()))
    shown = "\n".join(report.lines(result))
    for secret in ("8:acs:", "19:acsV1", "eyJ", "emulator.invalid", service.world.resource.id, service.access_key):
        assert secret not in document
        assert secret not in shown
    assert "removed-reads: not-found (emulator: history)" in shown
    assert "deletion-delay-seconds: between 30.0 and 60.0 s (emulator: 5 s)" in shown
    assert re.search(r"revocation-delay-seconds: longer than the probe, which watched it for \d+\.\d s", shown)
    file = anyio.Path(tmp_path / "quirks.yaml")
    await file.write_text(report.quirks_yaml(result, service.clock()))
    found = await anyio.to_thread.run_sync(Quirks.load, str(file))
    assert found == result.findings.quirks
    assert (found.removed_reads, found.deletion_delay_seconds) == ("not-found", 60)
    assert 60 < found.revocation_delay_seconds < 180
