"""Run the conformance scenarios: `python -m tests.conformance --endpoint URL --access-key-file FILE`."""

from __future__ import annotations

import argparse
import base64
import binascii
import http.client
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.conformance.runner import DIRECTORY, Failure, Run, Scenario, Target, default_quirks, scenarios


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--endpoint", required=True, help="https://HOST, or http://HOST:PORT of this machine")
    parser.add_argument("--access-key-file", required=True, type=Path, help="a file that holds the resource's key")
    parser.add_argument("--ca-file", type=Path, help="the authority that signed its certificate")
    parser.add_argument("--quirks", type=Path, help="how it behaves where that is not documented; quirks.yaml here")
    parser.add_argument("--only", default="", help="run the scenarios whose title contains this")
    parser.add_argument("--no-key-order", action="store_true", help="accept the keys of objects in any order")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of words")
    given = parser.parse_args(arguments)
    try:
        target = _target(given)
    except ValueError as error:
        parser.error(str(error))
    chosen = [one for one in scenarios(DIRECTORY) if given.only in one.title]
    if not chosen:
        parser.error(f"--only: no scenario has {given.only!r} in its title")
    results = [_result(target, one) for one in chosen]
    failed = sum(one["result"] == "failed" for one in results)
    if given.json:
        print(json.dumps({"results": results, "failed": failed}, indent=2))
    else:
        for one in results:
            print(f"{one['result']:<8} {one['scenario']}{one['text']}")
        skipped = sum(one["result"] == "skipped" for one in results)
        print(f"\n{len(results)} scenarios, {failed} failed, {skipped} skipped because of other quirks.")
    return 1 if failed else 0


def _target(given: argparse.Namespace) -> Target:
    """The implementation that is meant.

    Raises:
        ValueError: an option cannot be used; says which, and why.
    """
    if not given.endpoint.startswith(("https://", "http://")):
        msg = f"--endpoint: {given.endpoint!r} has no scheme; write https://HOST"
        raise ValueError(msg)
    try:
        key = given.access_key_file.read_text("utf-8").strip()
        base64.b64decode(key, validate=True)
    except (OSError, UnicodeDecodeError, binascii.Error) as error:
        msg = f"--access-key-file: {given.access_key_file} has no key in base64: {error}"
        raise ValueError(msg) from error
    if given.ca_file is not None and not given.ca_file.is_file():
        msg = f"--ca-file: there is no file {given.ca_file}"
        raise ValueError(msg)
    quirks = default_quirks() | (_quirks(given.quirks) if given.quirks is not None else {})
    return Target(given.endpoint.rstrip("/"), key, quirks, given.ca_file, not given.no_key_order)


def _quirks(path: Path) -> dict[str, Any]:
    try:
        quirks = yaml.safe_load(path.read_text("utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        msg = f"--quirks: {path} cannot be read: {error}"
        raise ValueError(msg) from error
    if not isinstance(quirks, dict):
        msg = f"--quirks: {path} is no mapping of quirks"
        raise ValueError(msg)
    unknown = sorted(map(str, set(quirks) - set(default_quirks())))
    if unknown:
        msg = f"--quirks: {path}: there is no quirk {', '.join(unknown)}; quirks.yaml beside the scenarios has all"
        raise ValueError(msg)
    return dict(quirks)


def _result(target: Target, scenario: Scenario) -> dict[str, Any]:
    if not target.holds(scenario.when):
        return {"scenario": scenario.title, "result": "skipped", "text": ""}
    run = Run(target, scenario)
    try:
        run()
    except Failure as failure:
        return {"scenario": scenario.title, "result": "failed", "text": f"\n  {failure}"}
    except (OSError, http.client.HTTPException) as error:
        text = f"\n  {target.endpoint} does not answer: {error or type(error).__name__}"
        return {"scenario": scenario.title, "result": "failed", "text": text}
    steps = "1 step" if run.skipped == 1 else f"{run.skipped} steps"
    text = f" (without {steps}, because of other quirks)" if run.skipped else ""
    return {"scenario": scenario.title, "result": "passed", "text": text}


if __name__ == "__main__":
    sys.exit(main())
