from pathlib import Path

from chatbot.config import load_config
from chatbot.runtime.doctor.finding import FindingState
from chatbot.runtime.doctor.storage import check_store
from chatbot.stores.probe import StoreProbe

SMALL = "version: 1\nservice: emulator\nbots: {echo: {plugins: [p]}}\n"


def test_a_nearly_full_disk_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "bots.yaml").write_text(SMALL)
    found = StoreProbe(tmp_path / "chatbot.db", exists=True, version=2, free_bytes=50_000_000)

    store, disk = check_store(load_config(tmp_path / "bots.yaml", {}), found, is_running=False)

    assert store.state is FindingState.OK
    assert (disk.state, disk.text) == (FindingState.WARNING, "only 50 MB are free on the disk of the store")
