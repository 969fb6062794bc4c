"""What the gate makes of pip-audit's report."""

from __future__ import annotations

import runpy
from pathlib import Path

JUDGE = runpy.run_path(str(Path(__file__).parents[2] / ".ci" / "audit"))["judge"]


def test_each_vulnerability_is_one_line_and_unaudited_packages_are_listed_separately() -> None:
    report = {
        "dependencies": [
            {"name": "fine", "version": "1.0", "vulns": []},
            {
                "name": "holey",
                "version": "2.0",
                "vulns": [
                    {"id": "PYSEC-2026-1", "fix_versions": ["2.1", "3.0"]},
                    {"id": "PYSEC-2026-2", "fix_versions": []},
                ],
            },
            {"name": "ours", "skip_reason": "Dependency not found on PyPI"},
        ]
    }

    assert JUDGE(report) == (
        ["holey 2.0: PYSEC-2026-1, fixed in 2.1, 3.0", "holey 2.0: PYSEC-2026-2, no fixed version yet"],
        2,
        1,
    )
