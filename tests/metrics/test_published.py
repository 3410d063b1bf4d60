"""Published references: a name, a URL and a path become a local file, fetched once."""

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from metrics.detectors import DETECTORS
from metrics.published import (
    PUBLISHED,
    Published,
    published,
    reference_address,
    reference_file,
    reference_name,
)
from tests.command import ENVIRONMENT
from tests.server import Server, serving
from torch_utils.errors import UserError

CONTENT = b"mu and sigma"
HEX = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        running.answers |= {"/refs/digits.npz": CONTENT, "/other/digits.npz": b"others"}
        yield running


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own, and no network."""
    monkeypatch.setenv("DRIFTLESS_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache" / "references"


def test_a_name_is_fetched_once_and_works_offline_afterwards(server: Server, cache: Path) -> None:
    url = server.url("/refs/digits.npz")
    table = {"own:digits": Published(url, ("digits",), (1, 8, 8), 1797)}
    path = Path(reference_file("own:digits", table))
    assert path.parent == cache
    assert path.read_bytes() == CONTENT
    server.answers.clear()
    assert reference_file("own:digits", table) == str(path)
    assert reference_file(url) == str(path)  # its address is the same reference
    assert reference_file(f"{url}#sha256={HEX}") == str(path)
    assert len(server.asked) == 1
    path.write_bytes(b"damaged")
    with pytest.raises(UserError, match="it has changed; delete it"):
        reference_file("own:digits", table)


def test_references_of_one_file_name_are_kept_apart(server: Server) -> None:
    first = reference_file(server.url("/refs/digits.npz"))
    second = reference_file(server.url("/other/digits.npz"))
    assert Path(first).read_bytes() == CONTENT
    assert Path(second).read_bytes() == b"others"


def test_a_hash_in_the_address_is_checked(server: Server, cache: Path) -> None:
    url = server.url("/other/digits.npz")
    with pytest.raises(UserError, match=f"it has the SHA-256 .*, expected {HEX}"):
        reference_file(f"{url}#sha256={HEX}")
    assert not list(cache.glob("*.npz"))


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_without_a_network_the_line_says_what_to_put_where(name: str, cache: Path) -> None:
    with pytest.raises(UserError) as caught:
        reference_file(name)
    line, row = str(caught.value), PUBLISHED[name]
    assert f"from {row.address} (Connection refused)" in line
    place = Path(line.partition("put the file at ")[2].partition(",")[0])
    assert place.parent == cache
    place.write_bytes(CONTENT)
    assert reference_file(name) == str(place)
    assert reference_file(row.address) == str(place)


def test_the_table_agrees_with_its_names() -> None:
    for name, row in PUBLISHED.items():
        size = row.image_shape[1]
        assert row.image_shape == (3, size, size)
        assert f"{size}x{size}" in name or name == f"edm2:img{size}"
        assert row.address.split("/")[-1].split(".")[0] == name.partition(":")[2]
        assert published(row.address) is row
        assert set(row.detectors) <= set(DETECTORS)
        assert reference_address(name) == (row.address, None)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("edm:cifar10", "unknown reference 'edm:cifar10': did you mean 'edm:cifar10-32x32'?"),
        ("EDM:FFHQ-64x64", "did you mean 'edm:ffhq-64x64'?"),
        ("emd:ffhq-64x64", "did you mean 'edm:ffhq-64x64'?"),
        ("ffhq-64x64", "did you mean 'edm:ffhq-64x64'?"),
        ("edm:lsun", "known are edm2:img512, edm2:img64, edm:afhqv2-64x64, edm:cifar10-32x32, "),
        ("http://a.b/c.npz", "what comes over http can be changed on its way: use https"),
        ("https://a.b/c.npz#md5=1", "after the # of an address comes sha256="),
    ],
)
def test_a_wrong_name_or_address_is_one_line(text: str, line: str) -> None:
    with pytest.raises(UserError) as caught:
        reference_file(text)
    assert line in str(caught.value)


def test_a_reference_of_other_detectors_is_refused() -> None:
    url = "https://a.b/digits.npz"
    table = {"own:digits": Published(url, ("digits", "pixels"), (1, 8, 8))}
    for text in ("own:digits", url):
        with pytest.raises(UserError, match="is of the features of digits and pixels, not of 'in"):
            published(text, table, detector="inception")
        assert published(text, table, detector="pixels") is table["own:digits"]
    assert published("https://a.b/other.npz", table, detector="inception") is None


def test_a_name_in_results_holds_no_secret() -> None:
    assert reference_name("edm:ffhq-64x64") == "edm:ffhq-64x64"
    assert reference_name("https://me:pw@a.b/c.npz?key=1#sha256=2") == "https://a.b/c.npz?..."


def test_a_path_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ffhq-64x64").mkdir()  # a folder of images, not a misspelt name
    for text in ("refs/x.npz", "x.npz", "ffhq-64x64", "./edm:cifar10-32x32", "C:\\x.npz", "data"):
        assert reference_file(text) == text
        assert published(text) is None
        assert reference_address(text) is None


def test_the_names_can_be_listed_without_torch() -> None:
    code = "import sys, metrics.published; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=ENVIRONMENT)
