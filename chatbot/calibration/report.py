"""What a probe found, for people, as a file to send in, and as quirks for the emulator. Contains no secrets."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import yaml

from chatbot.calibration.calibrate import ProbeResult
from chatbot.calibration.findings import QuirkFinding, question_of
from chatbot.distribution import version
from chatbot.emulator.quirks import Quirks


def quirks_yaml(result: ProbeResult, now: float) -> str:
    """Return the observed quirks as a document for `chatbot emulator --quirks`, bots.yaml and `chat()`.

    Args:
        result: of a probe.
        now: epoch seconds.
    """
    observed = {name: getattr(result.findings.quirks, name) for name in sorted(result.findings.found)}
    head = (
        f"# The service as `chatbot doctor --probe` found it on {_date(now)}, api-version {result.version}.\n"
        "# Quirks that are not listed were not observed: the emulator's defaults hold for them.\n"
    )
    return head + yaml.safe_dump({_dashed(name): value for name, value in observed.items()}, sort_keys=False)


def document(result: ProbeResult, now: float) -> dict[str, Any]:
    """Return the report as JSON; ids, names and tokens of the resource are replaced.

    Args:
        result: of a probe.
        now: epoch seconds.
    """
    findings = result.findings
    return {
        "chatbot": version(),
        "date": _date(now),
        "api_version": result.version,
        "requests": result.requests,
        "seconds": round(result.seconds, 1),
        "quirks": {_dashed(name): _entry(result, one) for name, one in sorted(findings.found.items())},
        "answers": [
            {"question": one.question, "subject": one.subject, "answer": result.redact(one.text)}
            for one in sorted(findings.answers, key=lambda one: _order(one.question))
        ],
        "not_probed": {_dashed(name): result.redact(why) for name, why in sorted(findings.missing.items())},
    }


def lines(result: ProbeResult) -> Iterator[str]:
    """Return what people want to know: differences first, then answers, then what was not seen."""
    findings = result.findings
    differences = findings.differences
    total = len(dataclasses.fields(Quirks))
    cost = f"{result.requests} requests in {result.seconds:.0f} s"
    yield f"{len(findings.found)} of {total} quirks were observed, with {cost} (api-version {result.version})."
    yield ""
    yield "Different from the emulator's defaults:" if differences else "Nothing differs from the emulator's defaults."
    for name, one in sorted(differences.items()):
        default = QuirkFinding(name, getattr(Quirks(), name), getattr(Quirks(), name), "")
        yield f"  {_dashed(name)}: {one.text} (emulator: {default.text})"
        yield f"      {result.redact(one.evidence)}"
    watched = {name: one for name, one in findings.found.items() if not one.is_exact and name not in differences}
    if watched:
        yield ""
        yield "Only bounded, and in agreement with the defaults:"
        yield from (f"  {_dashed(name)}: {one.text}" for name, one in sorted(watched.items()))
    if findings.answers:
        yield ""
        yield "Answers to open questions:"
        for answer in sorted(findings.answers, key=lambda one: _order(one.question)):
            yield f"  {answer.question + ': ' if answer.question else ''}{answer.subject}: {result.redact(answer.text)}"
    if findings.missing:
        yield ""
        yield "Not probed:"
        yield from (f"  {_dashed(name)}: {result.redact(why)}" for name, why in sorted(findings.missing.items()))


def _entry(result: ProbeResult, one: QuirkFinding) -> dict[str, Any]:
    default = getattr(Quirks(), one.quirk)
    question = question_of(one.quirk)
    return {
        **({"question": question} if question else {}),
        "found": one.text,
        "emulator": default,
        "differs": not one.fits(default),
        "evidence": result.redact(one.evidence),
    }


def _order(question: str) -> int:
    return int(question[1:]) if question else 99


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _date(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d")
