from pathlib import Path

import pytest

from chatbot.config import Config, load_config
from chatbot.runtime.reloading import LIVE, Changes

OLD = """\
version: 1
service: emulator
bots:
  echo:
    plugins: [plugins.echo]
  desk:
    plugins: [plugins.help, {module: plugins.faq, settings: {language: fr}}]
"""


def config(folder: Path, text: str) -> Config:
    (folder / "bots.yaml").write_text(text)
    return load_config(folder / "bots.yaml", {})


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ("", "", Changes()),
        ("service", "# a comment\nservice", Changes()),
        ("  echo:\n", "  echo:\n    ack: manual\n", Changes(restarted=("echo",))),
        ("  echo:\n", "  echo:\n    display_name: Echo\n", Changes(restarted=("echo",))),
        ("plugins.echo", "plugins.parrot", Changes(with_new_plugins=("echo",))),
        ("language: fr", "language: en", Changes(with_new_plugins=("desk",))),
        ("plugins.help, ", "", Changes(with_new_plugins=("desk",))),
        ("[plugins.echo]", "[plugins.parrot]\n    history: all", Changes(restarted=("echo",))),
        ("  echo:", "  parrot:", Changes(added=("parrot",), removed=("echo",))),
        ("version: 1", "version: 1\nlog: {level: debug}", Changes(applied=("log",))),
        (
            "version: 1",
            "version: 1\nserver: {listen: 8080}\nretention: 1d\ndrain_timeout: 1s",
            Changes(applied=("drain_timeout", "server", "retention")),
        ),
        (
            "version: 1",
            "version: 1\nstore: sqlite:///other.db\nca_file: ca.pem\nemulator: {port: 8443}",
            Changes(postponed=("ca_file", "store", "emulator")),
        ),
        (
            "service: emulator",
            "service: endpoint=https://x.communication.azure.com/;accesskey=c2VjcmV0",
            Changes(postponed=("service",)),
        ),
    ],
)
def test_differences_are_sorted_by_what_they_take(tmp_path: Path, old: str, new: str, changes: Changes) -> None:
    before, after = config(tmp_path, OLD), config(tmp_path, OLD.replace(old, new, 1) if old else OLD)

    found = Changes.between(before, after)

    assert {name: set(getattr(found, name)) for name in found.__slots__} == {
        name: set(getattr(changes, name)) for name in changes.__slots__
    }
    assert Changes.between(before, found.applied_to(before, after)).postponed == ()


def test_postponed_changes_are_reported_again_at_the_next_reload(tmp_path: Path) -> None:
    before = config(tmp_path, OLD)
    after = config(tmp_path, OLD + "store: sqlite:///other.db\nlog: {level: debug}\n")

    in_force = Changes.between(before, after).applied_to(before, after)

    assert in_force.store == before.store
    assert in_force.log.level == "debug"
    assert Changes.between(in_force, after) == Changes(postponed=("store",))


def test_every_setting_of_the_process_is_known(tmp_path: Path) -> None:
    assert set(LIVE) <= Config.model_fields.keys()
