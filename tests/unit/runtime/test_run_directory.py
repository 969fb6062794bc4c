import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from chatbot.errors import StateError, StoreError, StoreInUse
from chatbot.model import ThreadId, UserId
from chatbot.runtime.run_directory import ControlDirectory, RunInfo, RunningBot

INFO = RunInfo(
    pid=os.getpid(),
    endpoint="http://127.0.0.1:1",
    connection_string="endpoint=https://127.0.0.1:2/;accesskey=c2VjcmV0",
    resource="guid",
    ca_file="/somewhere/ca.pem",
    bots=(RunningBot("echo", UserId("8:acs:1"), "Echo"),),
    lobby=ThreadId("19:abc@thread.v2"),
)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_other_processes_find_what_the_daemon_published(tmp_path: Path) -> None:
    control = ControlDirectory(tmp_path)

    with control.hold():
        control.publish(INFO)

        assert ControlDirectory(tmp_path).running() == INFO


def test_the_directory_and_its_files_are_the_owners_alone(tmp_path: Path) -> None:
    control = ControlDirectory(tmp_path)

    with control.hold():
        control.publish(INFO)
        control.write_facts("people", {"Ann": "8:acs:2"})

        assert mode(control.path) == 0o700
        assert {mode(file) for file in control.path.iterdir()} == {0o600}


def test_the_key_is_not_in_the_repr() -> None:
    assert "c2VjcmV0" not in repr(INFO)


def test_nothing_runs_where_nothing_was_started_and_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"no bots run in .*; start them with `chatbot run`"):
        ControlDirectory(tmp_path).running()

    assert list(tmp_path.iterdir()) == []


def test_a_stopped_daemon_is_not_running(tmp_path: Path) -> None:
    control = ControlDirectory(tmp_path)
    with control.hold():
        control.publish(INFO)

    with pytest.raises(StateError, match="no bots run"):
        control.running()


def test_what_a_killed_daemon_left_behind_does_not_count(tmp_path: Path) -> None:
    script = f"""
import os, pathlib
from chatbot.runtime.run_directory import ControlDirectory, RunInfo
control = ControlDirectory(pathlib.Path({str(tmp_path)!r}))
with control.hold():
    control.publish(RunInfo(os.getppid(), "e", "c", "r"))  # a pid that lives
    os._exit(9)
"""
    subprocess.run([sys.executable, "-c", script], check=False)
    control = ControlDirectory(tmp_path)
    assert (control.path / "run.json").exists()

    with pytest.raises(StateError, match="no bots run"):
        control.running()
    with control.hold():
        pass


def test_a_second_daemon_is_refused_with_the_process_id_of_the_first(tmp_path: Path) -> None:
    first, second = ControlDirectory(tmp_path), ControlDirectory(tmp_path)

    with first.hold():
        first.publish(INFO)
        with pytest.raises(StoreInUse, match=rf"process {INFO.pid} already runs the bots of this directory"):
            second.hold().__enter__()


def test_what_is_remembered_outlives_the_daemon(tmp_path: Path) -> None:
    ControlDirectory(tmp_path).write_facts("people", {"Ann": "8:acs:2"})

    assert ControlDirectory(tmp_path).read_facts("people") == {"Ann": "8:acs:2"}
    assert ControlDirectory(tmp_path).read_facts("nothing") == {}


def test_a_directory_that_cannot_be_used_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / ".chatbot").write_text("in the way")

    with pytest.raises(
        StoreError, match=r"cannot be used: .*; give it to the user that runs the bots|the file is damaged"
    ):
        ControlDirectory(tmp_path).hold().__enter__()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can make files of others")
def test_what_root_makes_belongs_to_the_owner_of_the_place(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65533)
    control = ControlDirectory(tmp_path)
    control.write_facts("people", {"a": 1})
    with control.hold():
        control.publish(INFO)
        control.write_facts("people", {"a": 2})
        assert control.is_held

        made = {path.name: path.stat() for path in (control.path, *control.path.rglob("*"))}

    assert {(status.st_uid, status.st_gid) for status in made.values()} == {(65534, 65533)}
    assert set(made) == {".chatbot", "people.json", "run.json", "run.lock"}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can make files of others")
def test_root_gives_away_no_file_that_is_also_somewhere_else(tmp_path: Path) -> None:
    (place := tmp_path / "place").mkdir()
    os.chown(place, 65534, 65533)
    for name in ("linked", "named twice", "their own"):
        (tmp_path / name).write_text("the system's")
    os.chown(tmp_path / "their own", 1, 1)
    (place / "link").symlink_to(tmp_path / "linked")
    (place / "second name").hardlink_to(tmp_path / "named twice")
    (tmp_path / "their own").rename(place / "their own")

    ControlDirectory(place).adopt(*(place / name for name in ("link", "second name", "their own", "missing")))

    assert {(tmp_path / name).stat().st_uid for name in ("linked", "named twice")} == {0}
    assert (place / "their own").stat().st_uid == 1


def test_a_link_in_place_of_a_file_leads_nowhere(tmp_path: Path) -> None:
    control = ControlDirectory(tmp_path)
    control.write_facts("people", {})
    (tmp_path / "elsewhere").write_text("theirs")
    (control.path / f"people.{os.getpid()}.new").symlink_to(tmp_path / "elsewhere")

    control.write_facts("people", {"a": 1})

    assert (tmp_path / "elsewhere").read_text() == "theirs"
    assert control.read_facts("people") == {"a": 1}


def test_what_cannot_be_used_is_named_with_a_remedy_that_destroys_nothing(tmp_path: Path) -> None:
    control = ControlDirectory(tmp_path)
    control.path.mkdir()
    (control.path / "people.json").mkdir()

    with pytest.raises(StoreError, match=r"people\.json: cannot be used: .*chown -R USER") as caught:
        control.read_facts("people")

    assert "remove" not in str(caught.value)
