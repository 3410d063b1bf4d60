"""`fid.py --ref` with names and addresses: refused before anything is fetched, or fetched once."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from metrics.published import PUBLISHED
from scoring.judge import Criteria, Subject
from scoring.judging import judge_of
from tests.command import assert_refused, call
from tests.inception import save_weights
from tests.server import Server, serving
from torch_utils.addresses import file_name
from torch_utils.distributed import world
from torch_utils.downloads import sha256_of

DIGITS = "assets/digits-8x8.zip"
SCORE = ("calc", f"--images={DIGITS}", "--num=200", "--batch=200")


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own, and no network."""
    monkeypatch.setenv("DRIFTLESS_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


def test_an_address_gives_the_number_of_its_file_and_works_offline(
    tmp_path: Path, server: Server
) -> None:
    file, results = tmp_path / "ref.npz", tmp_path / "results.json"
    made = call("fid.py", "ref", f"--data={DIGITS}", f"--dest={file}", "--detector=pixels")
    assert made.returncode == 0, made.stderr
    server.answers["/ref.npz?key=hidden"] = file.read_bytes()
    url = server.url("/ref.npz?key=hidden").replace("http://", "http://me:secret@")
    words = (*SCORE, "--detector=pixels", f"--json={results}")
    assert call("fid.py", *words, f"--ref={file}").returncode == 0
    expected = json.loads(results.read_text())
    for _ in range(2):
        done = call("fid.py", *words, f"--ref={url}")
        assert done.returncode == 0, done.stderr
        found = json.loads(results.read_text())
        assert found["fid"] == expected["fid"]
        assert found["reference"] == expected["reference"] | {"name": server.url("/ref.npz?...")}
        for secret in ("secret", "hidden"):
            assert secret not in done.stdout + done.stderr + results.read_text()
        server.answers.clear()
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--ref=edm:cifar10", "did you mean 'edm:cifar10-32x32'?"),
        ("--ref=edm:cifar10-32x32", "edm:cifar10-32x32 was made of 3x32x32 images"),
        ("--ref=edm2:img64 --detector=dinov2", "edm2:img64 was made of 3x64x64 images"),
        ("--ref=edm:ffhq-64x64 --detector=pixels", "edm:ffhq-64x64 is of the features of inceptio"),
        ("--ref=edm:ffhq-64x64 --metrics=kid", "edm:ffhq-64x64 holds mean and covariance only"),
        ("--ref=http://a.b/c.npz", "http://a.b/c.npz: what comes over http can be changed on its"),
    ],
)
def test_a_reference_that_cannot_be_used_is_refused_before_anything_is_fetched(
    words: str, line: str, cache: Path
) -> None:
    assert_refused(call("fid.py", *SCORE, *words.split()), line)
    assert not cache.exists()


def test_without_a_network_the_line_says_where_to_put_a_reference(
    tmp_path: Path, cache: Path
) -> None:
    url = "https://a.b/ref.npz"
    done = call("fid.py", *SCORE, "--detector=pixels", f"--ref={url}")
    assert_refused(done, "cannot fetch ref-", url, f"put the file at {cache / 'references'}/ref-")


@pytest.mark.slow
def test_a_name_says_how_many_images_it_describes(tmp_path: Path, cache: Path) -> None:
    row = PUBLISHED["edm:cifar10-32x32"]
    path = cache / "references" / file_name(row.address)
    path.parent.mkdir(parents=True)
    np.savez(path, mu=np.zeros(2048), sigma=np.eye(2048))  # as EDM's files: nothing else in it
    weights = save_weights(tmp_path / "weights.pth")
    criteria = Criteria(
        detector="inception", weights=str(weights), metrics=["fid"], reference="edm:cifar10-32x32"
    )
    with world("cpu") as here:
        reference = judge_of(criteria, here, [Subject("images", (3, 32, 32), 50_000)]).reference
    assert reference is not None
    assert (reference.name, reference.num) == ("edm:cifar10-32x32", 50_000)
    assert reference.image_shape == (3, 32, 32)
    assert reference.sha256 == sha256_of(path)
