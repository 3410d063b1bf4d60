"""Writing files whole, on file systems that lack some of the calls that it takes."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.machines.conditions import file_limit, unprivileged
from torch_utils.errors import UserError
from torch_utils.files import UNSUPPORTED, drop_temporaries, prepare_folder, replacing


def refusal(code: int, *, only_folders: bool = False) -> Callable[..., None]:
    """An os.fsync or os.chmod that fails with an error number."""

    def refuse(target: int | Path, *_: object) -> None:
        if not only_folders or stat.S_ISDIR(os.stat(target).st_mode):
            raise OSError(code, os.strerror(code))

    return refuse


@pytest.mark.parametrize("code", sorted(UNSUPPORTED))
@pytest.mark.parametrize("call", ["fsync", "chmod"])
def test_files_are_written_where_a_call_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    monkeypatch.setattr(os, call, refusal(code))
    with replacing(tmp_path / "file") as temporary:
        temporary.write_text("content")
    assert (tmp_path / "file").read_text() == "content"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("only_folders", [False, True])
def test_a_flush_that_fails_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, only_folders: bool
) -> None:
    monkeypatch.setattr(os, "fsync", refusal(code, only_folders=only_folders))
    with pytest.raises(OSError) as caught, replacing(tmp_path / "file") as temporary:
        temporary.write_text("content")
    assert caught.value.errno == code


def test_a_folder_that_is_closed_to_reading_can_be_written(open_folder: Path) -> None:
    open_folder.chmod(0o333)
    with unprivileged():
        with replacing(open_folder / "file") as temporary:
            temporary.write_text("content")
        assert (open_folder / "file").read_text() == "content"
    open_folder.chmod(0o777)


def test_a_full_disk_is_found_before_the_work(tmp_path: Path) -> None:
    refused = pytest.raises(UserError, match=f"^cannot write {tmp_path}: ")
    with file_limit(100), refused:
        prepare_folder(tmp_path)
    assert os.listdir(tmp_path) == []
    prepare_folder(tmp_path)


def test_leftovers_are_those_of_the_named_file_and_old_enough(tmp_path: Path) -> None:
    for name in (".a.tmp-1-2.npy", ".b.tmp-1-2.npy", "a.npy", ".a.lock"):
        (tmp_path / name).touch()
    (tmp_path / ".c.tmp-1").mkdir()
    drop_temporaries(tmp_path, older_than=3600)
    assert len(os.listdir(tmp_path)) == 5
    drop_temporaries(tmp_path, "a")
    assert sorted(os.listdir(tmp_path)) == [".a.lock", ".b.tmp-1-2.npy", ".c.tmp-1", "a.npy"]
    drop_temporaries(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".a.lock", ".c.tmp-1", "a.npy"]
