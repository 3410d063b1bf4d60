"""Where weights come from: the user's file, the cache, the network, or one line that says how."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from metrics import inception, inception_torchscript
from metrics.weights import WeightsFile, find_weights
from tests.server import serving
from torch_utils.errors import UserError

CONTENT = b"weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NOWHERE = ("https://nowhere.invalid/a.pth", "https://elsewhere.invalid/b.pth")
FILE = WeightsFile(name="a.pth", addresses=NOWHERE, sha256=SHA256, size=len(CONTENT))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty folder of downloads."""
    monkeypatch.setenv("DRIFTLESS_CACHE", str(tmp_path))
    return tmp_path / "downloads"


@pytest.mark.parametrize("file", [inception.WEIGHTS, inception_torchscript.WEIGHTS])
def test_published_files_have_a_hash_and_addresses(file: WeightsFile) -> None:
    assert len(bytes.fromhex(file.sha256)) == 32
    assert all(address.startswith("https://") for address in file.addresses)


def test_names_of_published_files_that_hold_the_hash_agree_with_it() -> None:
    assert inception.WEIGHTS.name.endswith(f"-{inception.WEIGHTS.sha256[:8]}.pth")
    assert all(inception.WEIGHTS.sha256[:8] in url for url in inception.WEIGHTS.addresses)


def test_a_given_file_of_any_hash_is_taken_and_its_hash_returned(tmp_path: Path) -> None:
    path = tmp_path / "own.pth"
    path.write_bytes(b"others")
    assert find_weights("d", FILE, str(path)) == (path, hashlib.sha256(b"others").hexdigest())


def test_a_given_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--weights=.*/none: No such file or directory"):
        find_weights("d", FILE, str(tmp_path / "none"))
    with pytest.raises(UserError, match="is a pipe, device or folder: give a file"):
        find_weights("d", FILE, str(tmp_path))
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(UserError, match="is a pipe, device or folder: give a file"):
            find_weights("d", FILE, str(tmp_path / "pipe"))


def test_the_file_in_the_cache_needs_no_network(cache: Path) -> None:
    cache.mkdir()
    (cache / "a.pth").write_bytes(CONTENT)
    assert find_weights("d", FILE) == (cache / "a.pth", SHA256)


def test_another_file_in_the_cache_is_refused(cache: Path) -> None:
    cache.mkdir()
    (cache / "a.pth").write_bytes(b"changed")
    with pytest.raises(UserError, match=f"a.pth has the SHA-256 .*, expected {SHA256}"):
        find_weights("d", FILE)


def test_a_file_is_downloaded_once_from_the_address_that_has_it(cache: Path) -> None:
    with serving() as server:
        server.answers["/second"] = CONTENT
        file = replace(FILE, addresses=(server.url("/first"), server.url("/second")))
        assert find_weights("d", file) == (cache / "a.pth", SHA256)
        assert [path for path, _ in server.asked] == ["/first", "/second"]
    assert find_weights("d", file) == (cache / "a.pth", SHA256)  # the server is gone
    assert (cache / "a.pth").read_bytes() == CONTENT


def test_a_downloaded_file_of_another_hash_or_size_is_not_kept(cache: Path) -> None:
    with serving() as server:
        server.answers["/file"] = CONTENT + b"and more"
        file = replace(FILE, addresses=(server.url("/file"),))
        with pytest.raises(UserError, match=r"cannot fetch a.pth from .*--weights=FILE"):
            find_weights("d", file)
        with pytest.raises(UserError, match=r"cannot fetch a.pth from .*--weights=FILE"):
            find_weights("d", replace(file, size=None))
    assert not (cache / "a.pth").exists()


def test_without_a_network_one_line_says_what_to_put_where(cache: Path) -> None:
    with pytest.raises(UserError) as refused:
        find_weights("inception", FILE)
    line = str(refused.value)
    assert "\n" not in line
    for words in (*NOWHERE, str(cache / "a.pth"), "--weights=FILE", "detector 'inception'"):
        assert words in line
