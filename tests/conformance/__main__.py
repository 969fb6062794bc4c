"""Run the conformance scenarios: `python -m tests.conformance --endpoint URL --access-key-file FILE`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.conformance.runner import DIRECTORY, Failure, Run, Scenario, Target, default_quirks, scenarios


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--endpoint", required=True, help="https://HOST, or http://HOST:PORT of this machine")
    parser.add_argument("--access-key-file", required=True, type=Path, help="a file that holds the resource's key")
    parser.add_argument("--ca-file", type=Path, help="the authority that signed its certificate")
    parser.add_argument("--quirks", type=Path, help="how it behaves where that is not documented; quirks.yaml here")
    parser.add_argument("--only", default="", help="run the scenarios whose title contains this")
    parser.add_argument("--no-key-order", action="store_true", help="accept the keys of objects in any order")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of words")
    given = parser.parse_args()
    quirks = default_quirks()
    if given.quirks is not None:
        quirks |= yaml.safe_load(given.quirks.read_text("utf-8")) or {}
    key = given.access_key_file.read_text("utf-8").strip()
    target = Target(given.endpoint.rstrip("/"), key, quirks, given.ca_file, not given.no_key_order)
    results = [_result(target, one) for one in scenarios(DIRECTORY) if given.only in one.title]
    failed = sum(one["result"] == "failed" for one in results)
    if given.json:
        print(json.dumps({"results": results, "failed": failed}, indent=2))
    else:
        for one in results:
            print(f"{one['result']:<8} {one['scenario']}{one['text']}")
        skipped = sum(one["result"] == "skipped" for one in results)
        print(f"\n{len(results)} scenarios, {failed} failed, {skipped} skipped because of other quirks.")
    return 1 if failed or not results else 0


def _result(target: Target, scenario: Scenario) -> dict[str, Any]:
    if not target.holds(scenario.when):
        return {"scenario": scenario.title, "result": "skipped", "text": ""}
    run = Run(target, scenario)
    try:
        run()
    except Failure as failure:
        return {"scenario": scenario.title, "result": "failed", "text": f"\n  {failure}"}
    text = f" (without {run.skipped} steps, because of other quirks)" if run.skipped else ""
    return {"scenario": scenario.title, "result": "passed", "text": text}


if __name__ == "__main__":
    sys.exit(main())
