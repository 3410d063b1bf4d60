"""Where things are kept: as the user says, at home, or in a folder of his own elsewhere."""

import os
import tempfile
from pathlib import Path

import pytest

from data.sources.downloads import open_torchvision
from tests.machines.conditions import unprivileged
from torch_utils import notes
from torch_utils.cache_folder import DATASETS, TORCHVISION, cache_folder
from torch_utils.errors import UserError

pwd = pytest.importorskip("pwd")


@pytest.fixture(autouse=True)
def _nothing_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DRIFTLESS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(notes, "_said", set())


def hide_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that was started with a user number of its own."""

    def unknown(*_: object) -> None:
        raise KeyError("uid not found")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_the_variables_name_the_folder_for_all_that_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / ".cache" / "driftless"
    assert cache_folder(DATASETS) == home / "datasets"
    assert cache_folder(TORCHVISION) == home / "torchvision"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder(DATASETS) == Path("/x/driftless/datasets")
    assert cache_folder(TORCHVISION) == Path("/x/driftless/torchvision")
    monkeypatch.setenv("DRIFTLESS_CACHE", "~/d")
    assert cache_folder(DATASETS) == tmp_path / "d"
    assert cache_folder(TORCHVISION) == tmp_path / "d" / "torchvision"


def test_torchvision_downloads_into_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLESS_CACHE", str(tmp_path / "d"))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # no network, wherever this runs
    with pytest.raises(UserError, match=f"into {tmp_path / 'd' / 'torchvision'}$"):
        open_torchvision("torchvision:CIFAR10")
    assert (tmp_path / "d" / "torchvision").is_dir()


def test_without_a_home_each_user_has_a_folder_of_his_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hide_home(monkeypatch)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    own = tmp_path / f"driftless-{os.geteuid()}"
    assert cache_folder(DATASETS) == own / "datasets"
    assert cache_folder(DATASETS) == own / "datasets"
    assert own.stat().st_mode & 0o777 == 0o700
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: there is no home folder")
    assert str(own) in line


def test_a_home_that_cannot_be_written_is_used_only_if_something_is_kept_there(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = open_folder / "home"
    home.mkdir(mode=0o555)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(tempfile, "tempdir", str(open_folder))
    with unprivileged():
        assert cache_folder(DATASETS).parent.parent == open_folder
    home.chmod(0o755)
    (home / ".cache" / "driftless" / "datasets").mkdir(parents=True)
    home.chmod(0o555)
    with unprivileged():
        assert cache_folder(DATASETS) == home / ".cache" / "driftless" / "datasets"


def test_a_folder_that_another_user_laid_out_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide_home(monkeypatch)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"driftless-{os.geteuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"another user's.*DRIFTLESS_CACHE"):
        cache_folder(DATASETS)
