"""The api-versions of Chat and Identity and what each of them knows.

From the published specifications (stable and preview folders) and the `api-supported-versions` headers
recorded in 2023. Thread metadata was recorded on 2023-07-01-preview and 2023-11-15-preview and is stable
since 2025-03-15.
"""

from __future__ import annotations

CHAT = (
    "2021-03-07",
    "2021-04-05-preview6",
    "2021-09-07",
    "2021-10-01-preview7",
    "2023-04-01-preview",
    "2023-07-01-preview",
    "2023-11-07",
    "2023-11-15-preview",
    "2024-03-01-preview",
    "2024-03-07",
    "2024-06-05-preview",
    "2025-03-15",
)

IDENTITY = (
    "2020-07-20-preview2",
    "2021-02-22-preview1",
    "2021-03-07",
    "2021-03-31-preview1",
    "2021-10-31-preview",
    "2021-11-01",
    "2022-06-01",
    "2022-10-01",
    "2023-08-01",
    "2023-10-01",
)

TEAMS_EXCHANGE = tuple(version for version in IDENTITY if version >= "2021-10-31-preview")

CHAT_HEADER = (b"api-supported-versions", ", ".join(CHAT).encode())
IDENTITY_HEADER = (b"api-supported-versions", ", ".join(IDENTITY).encode())
TEAMS_HEADER = (b"api-supported-versions", ", ".join(TEAMS_EXCHANGE).encode())

_METADATA = frozenset(
    {"2023-07-01-preview", "2023-11-15-preview", "2024-03-01-preview", "2024-06-05-preview", "2025-03-15"}
)
_RETENTION = frozenset({"2023-11-15-preview", "2024-06-05-preview", "2025-03-15"})
_ATTACHMENTS = frozenset({"2023-07-01-preview", "2023-11-15-preview", "2024-03-01-preview"})


def has_metadata(version: str) -> bool:
    """Whether threads and participants carry metadata."""
    return version in _METADATA


def has_retention(version: str) -> bool:
    """Whether threads have a retention policy."""
    return version in _RETENTION


def is_recent(version: str) -> bool:
    """Whether nothing was ever recorded of this version, so that quirks decide."""
    return version >= "2024-03-07"


def has_attachments(version: str) -> bool:
    """Whether texts were recorded with an empty list of attachments."""
    return version in _ATTACHMENTS
