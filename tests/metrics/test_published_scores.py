"""FID, IS and KID of two folders of images against torch-fidelity's, with the same weights."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.dataset import ImageDataset
from metrics import detectors
from metrics.evaluate import Evaluation, evaluate
from metrics.frechet import frechet_distance
from metrics.inception import Inception
from metrics.kernel import kernel_distance
from metrics.scores import probabilities, split_score
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
        features, _ = net(torch.from_numpy(batch.copy()))
    mean = features.mean(0)
    classes = state["fc.weight"]
    classes = classes - torch.outer(classes @ mean, mean) / mean.square().sum()
    state["fc.weight"] = classes * 3 / (features @ classes.T).std()
    path = folder / "weights.pth"
    torch.save(state, path)
    yield path
    path.unlink()


def found(folder: Path, weights: Path) -> Evaluation:
    """What our detector finds in a folder."""
    dataset = ImageDataset(str(folder))
    detector = detectors.load("inception", weights=str(weights))
    return evaluate(detector, dataset.batches(10), dataset.image_shape, keep_features=True)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(
    ("num", "num_other"), [(16, 16), pytest.param(200, 203, marks=pytest.mark.slow)]
)
def test_fid_is_and_kid_are_those_of_torch_fidelity(
    num: int, num_other: int, weights: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torchvision")
    import torch_fidelity

    first = save_images(tmp_path / "first", 0, num)
    second = save_images(tmp_path / "second", 1, num_other)
    theirs = torch_fidelity.calculate_metrics(
        input1=str(first),
        input2=str(second),
        cuda=False,
        isc=True,
        fid=True,
        kid=True,
        kid_subsets=SUBSETS,
        kid_subset_size=num // 2,
        feature_extractor_weights_path=str(weights),
        cache=False,
        verbose=False,
    )
    ours, other = found(first, weights), found(second, weights)
    assert ours.logits is not None
    assert ours.features is not None
    assert other.features is not None
    distance = frechet_distance(ours.statistics.finalize(), other.statistics.finalize())
    score, deviation = split_score(probabilities(ours.logits))
    kernel, spread = kernel_distance(
        ours.features, other.features, subsets=SUBSETS, subset_size=num // 2
    )
    assert theirs["inception_score_mean"] > 1.1  # else any two agree
    assert {
        "frechet_inception_distance": distance,
        "inception_score_mean": score,
        "inception_score_std": deviation,
        "kernel_inception_distance_mean": kernel,
        "kernel_inception_distance_std": spread,
    } == pytest.approx(theirs, rel=1e-3)
