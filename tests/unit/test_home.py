"""The project's addresses are filled in by one command, everywhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
REPOSITORY, SITE = "https://example.org/owner/name", "https://owner.example.org/name/"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for file in ("pyproject.toml", "mkdocs.yml", "README.md"):
        shutil.copy(ROOT / file, tmp_path)
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "home", tmp_path / ".ci")
    return tmp_path


def fill_in(copy: Path, *addresses: str) -> int:
    script = [sys.executable, str(copy / ".ci" / "home"), *addresses]
    return subprocess.run(script, capture_output=True, check=False).returncode


@pytest.mark.parametrize("before", [(), ("https://old.example.org/x", "https://old.example.org/site/")])
def test_addresses_are_filled_in_everywhere_also_a_second_time(copy: Path, before: tuple[str, ...]) -> None:
    if before:
        assert fill_in(copy, *before) == 0
        shutil.copy(ROOT / "README.md", copy)  # links that are absolute stay as they are

    assert fill_in(copy, REPOSITORY, SITE) == 0

    project = tomllib.loads((copy / "pyproject.toml").read_text())["project"]
    assert project["urls"]["Repository"] == REPOSITORY
    assert project["urls"]["Documentation"] == SITE
    assert project["scripts"] == {"chatbot": "chatbot.cli:main"}
    site = yaml.safe_load((copy / "mkdocs.yml").read_text())
    assert (site["site_url"], site["repo_url"]) == (SITE, REPOSITORY)
    readme = (copy / "README.md").read_text()
    links = re.findall(r"\]\(([^)\s]+)\)", readme)
    assert links
    assert [link for link in links if not link.startswith(("https://", "#"))] == []
    assert f"{SITE}start/" in readme or f"{SITE}concepts/promise/" in readme
    assert "old.example.org" not in readme + str(project["urls"]) + str(site["site_url"])


def test_what_is_no_address_changes_nothing(copy: Path) -> None:
    assert fill_in(copy, "owner/name", SITE) == 2
    assert fill_in(copy) == 2

    assert (copy / "pyproject.toml").read_bytes() == (ROOT / "pyproject.toml").read_bytes()
