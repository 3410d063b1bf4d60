"""FID, IS and KID of two folders of images against torch-fidelity's, with the same weights."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fid
from data.dataset import ImageDataset
from metrics import inception
from metrics.inception import Inception
from metrics.kernel import kernel_distance
from metrics.reference import load_reference
from tests.inception import random_weights

SUBSETS = 20


def save_images(folder: Path, seed: int, num: int) -> Path:
    """Write images of random colours and patterns; the noise grows with the seed."""
    folder.mkdir()
    random = np.random.default_rng(seed)
    for index in range(num):
        cells = random.integers(-1, 2, [4, 4, 1]) * random.integers(0, 128)
        pattern = np.kron(cells, np.ones([4, 4, 1]))
        noise = random.normal(0, 10 * (1 + seed), [16, 16, 3])
        values = random.integers(0, 256, 3) + pattern + noise
        pixels = values.clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:04d}.png")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file of random weights with which images fall into different classes."""
    folder = tmp_path_factory.mktemp("weights")
    batch = next(iter(ImageDataset(str(save_images(folder / "images", 0, 8))).batches(8)))
    state, net = random_weights(), Inception()
    net.load_published(state, torch.float32)
    with torch.no_grad():
        found, _ = net(torch.from_numpy(batch.copy()))
    mean = found.mean(0)
    classes = state["fc.weight"]
    classes = classes - torch.outer(classes @ mean, mean) / mean.square().sum()
    state["fc.weight"] = classes * 3 / (found @ classes.T).std()
    path = folder / "weights.pth"
    torch.save(state, path)
    yield path
    path.unlink()


@pytest.fixture
def cached(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The random weights are the published ones, and lie in the cache."""
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    pinned = replace(inception.WEIGHTS, sha256=sha256, size=weights.stat().st_size)
    monkeypatch.setattr(inception, "WEIGHTS", pinned)
    monkeypatch.setenv("DRIFTLESS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "downloads").mkdir(parents=True)
    (tmp_path / "cache" / "downloads" / pinned.name).symlink_to(weights)


def run(*words: object) -> None:
    """Run fid.py in this process."""
    fid.main([str(word) for word in words], standalone_mode=False)


def features(npz: Path) -> np.ndarray:
    """The features of every image that a reference keeps."""
    sha256 = inception.WEIGHTS.sha256
    kept = load_reference(npz, "inception", sha256, wants_features=True).features
    assert kept is not None
    return kept


@pytest.mark.usefixtures("cached")
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(
    ("num", "num_other"), [(16, 9), pytest.param(200, 203, marks=pytest.mark.slow)]
)
def test_the_lines_of_edm_give_the_numbers_of_torch_fidelity(
    num: int, num_other: int, weights: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torchvision")
    import torch_fidelity

    images = save_images(tmp_path / "images", 0, num)
    data = save_images(tmp_path / "data", 1, num_other)
    own, ref, record = tmp_path / "own.npz", tmp_path / "ref.npz", tmp_path / "scores.json"
    run("ref", f"--data={data}", f"--dest={ref}", "--features")
    run("calc", f"--images={images}", f"--ref={ref}", f"--num={num}", f"--json={record}")
    run("ref", f"--data={images}", f"--dest={own}", "--features")
    scores = json.loads(record.read_text())
    # fid.py takes subsets of 1,000 images, of which there are not so many here
    size = num // 2
    kernel, spread = kernel_distance(
        features(own), features(ref), subsets=SUBSETS, subset_size=size
    )
    theirs = torch_fidelity.calculate_metrics(
        input1=str(images),
        input2=str(data),
        cuda=False,
        isc=True,
        fid=True,
        kid=True,
        kid_subsets=SUBSETS,
        kid_subset_size=size,
        feature_extractor_weights_path=str(weights),
        cache=False,
        verbose=False,
    )
    assert theirs["inception_score_mean"] > 1.1  # else any two agree
    assert {
        "frechet_inception_distance": scores["fid"],
        "inception_score_mean": scores["is"],
        "inception_score_std": scores["is_std"],
        "kernel_inception_distance_mean": kernel,
        "kernel_inception_distance_std": spread,
    } == pytest.approx(theirs, rel=1e-3)
    assert scores["detector"]["name"] == "inception"
    assert scores["detector"]["weights_sha256"] == inception.WEIGHTS.sha256
