"""What a handler returns."""

from __future__ import annotations

from enum import Enum
from typing import Final, TypeAlias


class Pass(Enum):
    """The type of `PASS`, for return annotations: `-> str | Pass`."""

    PASS = "pass"  # noqa: S105 -- not a password


PASS: Final = Pass.PASS
"""Returned by a handler that does not want to answer after all: the next one that matches gets the event."""

Reply: TypeAlias = str | Pass | None
"""What a handler returns: a text is a reply, None is none, PASS hands the event on."""
