import re
from pathlib import Path

import pytest

from chatbot.errors import ConfigError
from chatbot.stores import MemoryStore, SqliteStore, open_between_runs, open_store


@pytest.mark.parametrize("url", ["memory:", "memory://", "memory:///"])
def test_memory_is_a_store(url):
    assert isinstance(open_store(url, base_dir=Path("/bots")), MemoryStore)


async def test_a_relative_file_is_in_the_directory_of_the_configuration(tmp_path):
    store = open_store("sqlite:///my bots.db", base_dir=tmp_path)

    assert isinstance(store, SqliteStore)
    assert not any(tmp_path.iterdir())
    async with store:
        assert (tmp_path / "my bots.db").exists()


async def test_an_absolute_file_lies_where_it_says(tmp_path):
    async with open_store(f"sqlite:///{tmp_path.as_posix()}/bots.db", base_dir=Path("elsewhere")):
        assert (tmp_path / "bots.db").exists()


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        (
            "chatbot.db",
            "'chatbot.db' is not a store URL: expected sqlite:///FILE, postgresql://USER@HOST/DATABASE or \"memory:\""
            " (for a file of this name: 'sqlite:///chatbot.db')",
        ),
        ("", "'' is not a store URL"),
        ("redis://host", "'redis:…' is not a supported store: expected sqlite:///FILE, postgresql://USER@HOST/DATABASE"),
        ("sqlite:chatbot.db", "'sqlite:chatbot.db' needs three slashes and a path: sqlite:///chatbot.db, or sqlite:////absolute/chatbot.db"),
        ("sqlite://chatbot.db", "'sqlite://chatbot.db' needs three slashes"),
        ("sqlite:///", "'sqlite:///' does not name a file: expected sqlite:///FILE, without options"),
        ("sqlite:///dir/", "'sqlite:///dir/' does not name a file"),
        ("sqlite:///chatbot.db?mode=ro", "'sqlite:///chatbot.db?mode=ro' does not name a file"),
        ("sqlite:///:memory:", "'sqlite:///:memory:' would lose all data at each restart: write"),
        ("memory:shared", "'memory:shared' has text after memory:, which takes none"),
    ],
)  # fmt: skip
def test_other_urls_are_refused_with_what_would_be_right(url, sentence):
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        open_store(url, base_dir=Path())


def test_a_refusal_does_not_show_a_password():
    with pytest.raises(ConfigError) as refusal:
        open_store("mysql://bot:hunter2@db/chat", base_dir=Path())

    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize("url", ["memory:", "sqlite:///bots.db"])
def test_reading_a_store_in_memory_creates_nothing(tmp_path, url):
    assert open_between_runs(url, base_dir=tmp_path) is None
    assert not any(tmp_path.iterdir())
