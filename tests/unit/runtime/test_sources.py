"""Plugins are loaded anew from the files that have changed, and only from those."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chatbot.config import Config, load_config
from chatbot.errors import ConfigError
from chatbot.runtime.sources import Loaded, Sources

PLUGIN = """
from chatbot import Plugin
from sourced.words import {word} as word

plugin = Plugin(word)
"""
FILES = {
    "sourced/__init__.py": "",
    "sourced/one.py": PLUGIN.format(word="one"),
    "sourced/two.py": "from chatbot import Plugin\nfrom . import deeper\nplugin = Plugin(deeper.two)\n",
    "sourced/deeper/__init__.py": "from .below import two\n",
    "sourced/deeper/below.py": 'two = "two"\n',
    "sourced/words.py": 'one = "one"\n',
}
BOTS = "version: 1\nservice: emulator\nbots:\n  first: {plugins: [sourced.one]}\n  second: {plugins: [sourced.two]}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with the plugins of two bots."""
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "bots.yaml").write_text(BOTS)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "sourced"]:
        del sys.modules[name]


@pytest.fixture
def config(folder: Path) -> Config:
    return load_config(folder / "bots.yaml", {})


@pytest.fixture
def sources(config: Config) -> Sources:
    """What was loaded once."""
    found = Sources(config.directory)
    found.load(config)
    return found


def names(loaded: Loaded) -> dict[str, list[str]]:
    return {bot: [plugin.name for plugin in plugins] for bot, plugins in loaded.plugins.items()}


def test_where_nothing_has_changed_nothing_is_loaded(sources: Sources, config: Config) -> None:
    before = sys.modules["sourced.one"]

    assert sources.load(config, []) == Loaded({}, {})

    assert sys.modules["sourced.one"] is before


@pytest.mark.parametrize(
    ("file", "text", "expected", "changed"),
    [
        ("sourced/words.py", 'one = "new"\n', {"first": ["new"]}, {"first": ["words.py"]}),
        ("sourced/one.py", PLUGIN.format(word="one") + "\n", {"first": ["one"]}, {"first": ["one.py"]}),
        ("sourced/deeper/below.py", 'two = "new"\n', {"second": ["new"]}, {"second": ["below.py"]}),
        (
            "sourced/__init__.py",
            "# everybody's\n",
            {"first": ["one"], "second": ["two"]},
            {"first": ["__init__.py"], "second": ["__init__.py"]},
        ),
    ],
)
def test_only_bots_whose_code_has_changed_get_other_plugins(
    folder: Path,
    sources: Sources,
    config: Config,
    file: str,
    text: str,
    expected: dict[str, list[str]],
    changed: dict[str, list[str]],
) -> None:
    (folder / file).write_text(text)

    loaded = sources.load(config, [])

    assert names(loaded) == expected
    assert loaded.changes == changed
    assert sources.load(config, []) == Loaded({}, {})


def test_modules_of_bots_that_have_not_changed_stay_what_they_are(
    folder: Path, sources: Sources, config: Config
) -> None:
    before = {name: sys.modules[name] for name in ("sourced", "sourced.two", "sourced.deeper")}
    (folder / "sourced" / "words.py").write_text('one = "new"\n')

    sources.load(config, [])

    assert {name: sys.modules[name] for name in before} == before


def test_a_module_that_no_import_statement_names_counts_as_shared_by_all_plugins(folder: Path, config: Config) -> None:
    (folder / "sourced" / "one.py").write_text(
        "import importlib\nfrom chatbot import Plugin\n"
        'plugin = Plugin(importlib.import_module("sourced." + "words").one)\n'
    )
    sources = Sources(config.directory)
    sources.load(config)
    (folder / "sourced" / "words.py").write_text('one = "new"\n')

    assert names(sources.load(config, [])) == {"first": ["new"], "second": ["two"]}


def test_a_bot_is_loaded_on_request_without_importing_its_code_again(sources: Sources, config: Config) -> None:
    before = sys.modules["sourced.one"]

    assert names(sources.load(config, ["first"])) == {"first": ["one"]}

    assert sys.modules["sourced.one"] is before


def test_a_change_within_the_same_second_and_of_the_same_size_is_seen(
    folder: Path, sources: Sources, config: Config
) -> None:
    for word in ("two", "six", "ten"):
        (folder / "sourced" / "words.py").write_text(f'one = "{word}"\n')
        assert names(sources.load(config, [])) == {"first": [word]}


def test_a_file_that_changes_while_it_is_imported_counts_as_changed_the_next_time(
    folder: Path, sources: Sources, config: Config
) -> None:
    words = folder / "sourced" / "words.py"
    words.write_text(f"import pathlib\none = 'old'\npathlib.Path({str(words)!r}).write_text('one = \"new\"')\n")

    assert names(sources.load(config, [])) == {"first": ["old"]}
    assert names(sources.load(config, [])) == {"first": ["new"]}


BROKEN = ["one = (", "import nowhere", "raise SystemExit", "other = 1"]


def break_with(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "sourced" / "words.py").write_text(text) and None


@pytest.mark.parametrize("broken", [*map(break_with, BROKEN), lambda folder: (folder / "sourced/words.py").unlink()])
def test_what_cannot_be_loaded_changes_nothing_that_was_imported(
    broken: Callable[[Path], None], folder: Path, sources: Sources, config: Config
) -> None:
    before = dict(sys.modules)
    broken(folder)

    with pytest.raises(ConfigError, match=r"bots\.yaml:4:"):
        sources.load(config, [])

    own = {name: module for name, module in sys.modules.items() if name.startswith("sourced")}
    assert own == {name: module for name, module in before.items() if name.startswith("sourced")}
    assert sys.modules["sourced"].one is before["sourced.one"]
    (folder / "sourced" / "words.py").write_text('one = "fixed"\n')
    assert names(sources.load(config, [])) == {"first": ["fixed"]}


def test_a_file_that_nobody_imports_any_more_is_forgotten_once_it_is_gone(
    folder: Path, sources: Sources, config: Config
) -> None:
    (folder / "sourced" / "one.py").write_text('from chatbot import Plugin\nplugin = Plugin("alone")\n')
    assert names(sources.load(config, [])) == {"first": ["alone"]}
    (folder / "sourced" / "words.py").unlink()

    sources.load(config, [])

    assert "sourced.words" not in sys.modules
    assert sources.load(config, []) == Loaded({}, {})


def config_map(folder: Path) -> Callable[[str], None]:
    """Mount the files as Kubernetes does: each is a link through `..data`, which is replaced as a whole."""
    package = folder / "sourced"
    files = {file.name: file.read_text() for file in package.glob("*.py")}
    for name in files:
        (package / name).unlink()
        (package / name).symlink_to(f"..data/{name}")
    versions = iter(range(9))

    def change(words: str) -> None:
        mounted = package / f"..v{next(versions)}"
        mounted.mkdir()
        for name, text in {**files, "words.py": words}.items():
            (mounted / name).write_text(text)
        before = (package / "..data").resolve()
        (package / "..tmp").symlink_to(mounted.name)
        (package / "..tmp").replace(package / "..data")
        if before.name.startswith("..v"):
            shutil.rmtree(before)

    return change


def linked_directory(folder: Path) -> Callable[[str], None]:
    elsewhere = folder.parent / f"{folder.name}-elsewhere"
    (folder / "sourced").rename(elsewhere)
    (folder / "sourced").symlink_to(elsewhere)
    return lambda words: atomically(elsewhere / "words.py", words)


def linked_file(folder: Path) -> Callable[[str], None]:
    elsewhere = folder.parent / f"{folder.name}-file.py"
    (folder / "sourced" / "words.py").rename(elsewhere)
    (folder / "sourced" / "words.py").symlink_to(elsewhere)
    return lambda words: atomically(elsewhere, words)


def other_release(folder: Path) -> Callable[[str], None]:
    """The directory itself is a link that is led to another release; the old one stays."""
    releases = folder.parent / f"{folder.name}-releases"
    releases.mkdir()
    folder.rename(releases / "0")
    folder.symlink_to(releases / "0")
    versions = iter(range(1, 9))

    def change(words: str) -> None:
        release = releases / str(next(versions))
        shutil.copytree(releases / "0", release, ignore=shutil.ignore_patterns("__pycache__"))
        (release / "sourced" / "words.py").write_text(words)
        (releases / "next").symlink_to(release)
        (releases / "next").replace(folder)

    return change


def atomically(file: Path, text: str) -> None:
    file.with_suffix(".new").write_text(text)
    file.with_suffix(".new").replace(file)


@pytest.mark.parametrize("arrange", [config_map, linked_directory, linked_file, other_release])
def test_changes_behind_a_link_are_loaded_and_shared_modules_once(
    folder: Path, config: Config, arrange: Callable[[Path], Callable[[str], None]]
) -> None:
    change = arrange(folder)
    (folder / "sourced" / "two.py").unlink()
    (folder / "sourced" / "two.py").write_text(PLUGIN.format(word="one"))
    change('one = "one"\ntimes = []\ntimes.append(1)\n')
    sources = Sources(config.directory)
    sources.load(config)
    words = sys.modules["sourced.words"]

    assert sources.load(config, []) == Loaded({}, {})
    assert sys.modules["sourced.words"] is words
    change('one = "two"\n')
    loaded = sources.load(config, [])

    assert names(loaded) == {"first": ["two"], "second": ["two"]}
    assert loaded.changes["first"] == ["words.py"]
    assert sources.load(config, []) == Loaded({}, {})


def test_directories_to_which_links_lead_are_known(folder: Path, config: Config) -> None:
    linked_directory(folder)
    sources = Sources(config.directory)
    sources.load(config)

    elsewhere = Path(os.path.realpath(folder / "sourced"))
    assert sources.linked_directories() == {elsewhere, elsewhere / "deeper"}
