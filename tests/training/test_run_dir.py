"""Making and holding run directories, whatever lies where they go."""

import os
import socket
from pathlib import Path

import pytest

from tests.machines.conditions import unprivileged
from torch_utils.errors import UserError
from training.run_dir import create_run_dir, locked, prepare


def test_whatever_has_the_next_number_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "00000-x").symlink_to("/nowhere")
    assert create_run_dir(tmp_path, "x").name == "00001-x"
    (tmp_path / "00002-x").touch()
    assert create_run_dir(tmp_path, "x").name == "00003-x"
    (tmp_path / "00017").symlink_to(tmp_path / "00017")  # a link to itself
    assert create_run_dir(tmp_path, "y").name == "00018-y"
    (tmp_path / "config.yaml").symlink_to("/nowhere")
    with pytest.raises(UserError, match="already holds a run"):
        create_run_dir(tmp_path, None)
    (tmp_path / "link").symlink_to("/nowhere")
    with pytest.raises(UserError, match="cannot write"):
        create_run_dir(tmp_path / "link", "x")


def test_a_number_that_a_listing_does_not_show_yet_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        (tmp_path / f"{number:05d}-x").mkdir()
    monkeypatch.setattr(os, "listdir", lambda _: [])  # as a network file system may answer
    assert create_run_dir(tmp_path, "x").name == "00003-x"


def test_a_run_directory_that_cannot_be_written_is_refused(open_folder: Path) -> None:
    run = create_run_dir(open_folder, "x")
    run.chmod(0o555)
    open_folder.chmod(0o555)
    refused = pytest.raises(UserError, match=r"^cannot write .*: Permission denied$")
    with unprivileged():
        with refused:
            create_run_dir(open_folder, "x")
        with refused, locked(run):
            pass
        with refused:
            prepare(run)
    open_folder.chmod(0o777)


def test_who_trains_in_a_run_directory_is_named(tmp_path: Path) -> None:
    holder = f"process {os.getpid()} on {socket.gethostname()}"
    refused = pytest.raises(UserError, match=f"is training in {tmp_path}: {holder}; ")
    with locked(tmp_path), refused, locked(tmp_path):
        pass
