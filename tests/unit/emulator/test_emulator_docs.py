import dataclasses
from pathlib import Path

from cyclopts import App

from chatbot.cli.emulator import emulator
from chatbot.emulator import Quirks
from chatbot.emulator.faults import KINDS
from chatbot.emulator.routing import OPERATIONS

DOCUMENT = (Path(__file__).parents[3] / "docs" / "reference" / "emulator.md").read_text()


def test_every_quirk_fault_operation_and_option_is_in_the_document() -> None:
    for name, values, meaning in Quirks.describe():
        assert f"| `{name}` | {values.replace('|', '·')} | {meaning} |" in DOCUMENT
    for kind in KINDS - {"status"}:
        assert f"`{kind}" in DOCUMENT
    for operation in OPERATIONS:
        assert f"`{operation}`" in DOCUMENT
    app = App()
    app.default(emulator)
    options = {argument.name for argument in app.assemble_argument_collection()}
    assert {"--event-grid", "--list-quirks", "--quotas"} <= options
    for option in options:
        assert option.replace("--quotas", "--no-quotas") in DOCUMENT


def test_the_switches_are_all_documented_with_their_open_question() -> None:
    assert len(dataclasses.fields(Quirks)) == len(Quirks.describe()) >= 50
