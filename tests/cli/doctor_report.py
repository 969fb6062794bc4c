"""What `chatbot doctor` says of a bots.yaml of one bot, for the tests of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.cli.resource import PLUGIN


class Report(NamedTuple):
    """What doctor said."""

    code: int
    findings: list[dict[str, Any]]

    def one(self, subject: str) -> tuple[str, str, str]:
        """State, text and remedy of the only finding about this."""
        ((state, text, remedy),) = self.all(subject)
        return state, text, remedy

    def all(self, subject: str) -> list[tuple[str, str, str]]:
        return [(one["state"], one["text"], one["remedy"] or "") for one in self.findings if one["subject"] == subject]

    @property
    def ills(self) -> list[str]:
        return [one["subject"] for one in self.findings if one["state"] == "failed"]


Doctor = Callable[[Path], Report]


def bots_yaml(directory: Path, service: str, bot: str = "plugins: [parrot]", more: str = "") -> Path:
    """Write a bots.yaml of one bot."""
    (directory / "parrot.py").write_text(PLUGIN)
    (directory / "bots.yaml").write_text(f"version: 1\nservice: {service}\nbots: {{parrot: {{{bot}}}}}\n{more}")
    return directory


def keyed(endpoint: str) -> str:
    return f'"endpoint={endpoint}/;accesskey=c2VjcmV0"'
