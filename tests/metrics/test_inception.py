"""Inception-v3 against torch-fidelity's, with random weights in a file of the published layout."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from metrics import detectors, inception
from metrics.detectors import Detector
from tests.inception import random_weights, save_weights
from torch_utils.errors import UserError


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file of random weights."""
    path = save_weights(tmp_path_factory.mktemp("inception") / "weights.pth")
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def detector(weights: Path) -> Detector:
    """The detector with these weights; two images at once keep the tests short."""
    loaded = detectors.load("inception", weights=str(weights))
    return Detector("inception", loaded.device, loaded.extract, loaded.weights_sha256, batch=2)


@pytest.fixture(scope="module")
def published(weights: Path) -> Any:
    """torch-fidelity's network with the same weights."""
    pytest.importorskip("torchvision")
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    return FeatureExtractorInceptionV3(
        "inception-v3-compat",
        ["2048", "logits_unbiased"],
        feature_extractor_weights_path=str(weights),
    )


def images(num: int, channels: int, height: int, width: int) -> Tensor:
    """Random uint8 images, each of another contrast."""
    generator = torch.Generator().manual_seed(height)
    noise = torch.rand([num, channels, height, width], generator=generator)
    contrast = torch.linspace(0.2, 1, num)[:, None, None, None]
    return (noise * contrast * 256).to(torch.uint8)


def distance(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(
    ("channels", "height", "width"),
    [(3, 8, 8), (3, 32, 32), (3, 64, 48), (3, 299, 299), (3, 320, 256), (3, 1, 1), (1, 28, 20)],
)
def test_features_and_logits_are_those_of_torch_fidelity(
    channels: int, height: int, width: int, detector: Detector, published: Any
) -> None:
    batch = images(2, channels, height, width)
    with torch.inference_mode():
        found = detector(batch)
        features, logits = published(batch.expand(-1, 3, -1, -1))
    assert found.logits is not None
    assert found.features.shape == (2, 2048)
    assert found.logits.shape == (2, 1008)
    assert found.features.dtype == found.logits.dtype == torch.float32
    assert distance(found.features, features) < 1e-5
    assert distance(found.logits, logits) < 1e-5
    # else the weights would hide a difference
    if height > 1:
        assert distance(features[:1], features[1:]) > 1e-2
        assert distance(logits[:1], logits[1:]) > 1e-2


def test_resize_reads_from_the_index_times_the_ratio_of_sizes() -> None:
    rows, columns = np.random.default_rng(0).random((2, 7)), np.arange(299)
    place = columns * (7 / 299)
    low = np.floor(place).astype(int)
    after = rows[:, np.minimum(low + 1, 6)]
    wide = rows[:, low] + (after - rows[:, low]) * (place - low)
    found = inception.resize(torch.from_numpy(rows)[None, None])[0, 0]
    np.testing.assert_allclose(found[0], wide[0], atol=1e-12)
    np.testing.assert_allclose(found[298], wide[1], atol=1e-12)  # there is nothing to blend with
    np.testing.assert_allclose(found[75], wide[0] + (wide[1] - wide[0]) * 150 / 299, atol=1e-12)


def test_images_of_the_size_of_the_network_are_not_resized() -> None:
    batch = images(1, 3, 299, 299).float()
    assert torch.equal(inception.resize(batch), batch)


def test_an_image_has_the_same_features_in_any_batch(detector: Detector) -> None:
    batch = images(5, 3, 16, 24)
    with torch.no_grad():
        whole = detector(batch)
        parts = [detector(batch[:1]), detector(batch[1:4]), detector(batch[4:])]
    assert whole.logits is not None
    assert torch.equal(torch.cat([part.features for part in parts]), whole.features)
    logits = [part.logits for part in parts if part.logits is not None]
    assert torch.equal(torch.cat(logits), whole.logits)


def test_autocast_around_it_does_not_lower_its_precision(detector: Detector) -> None:
    batch = images(2, 3, 16, 16)
    with torch.no_grad():
        plain = detector(batch).features
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(detector(batch).features, plain)


@pytest.mark.parametrize("channels", [2, 4])
def test_images_that_are_neither_gray_nor_rgb_are_refused(
    channels: int, detector: Detector
) -> None:
    line = f"detector 'inception' takes gray or RGB images, these have {channels} channels"
    with pytest.raises(UserError, match=line):
        detector(images(1, channels, 8, 8))


def test_the_newer_format_and_counters_of_batches_change_nothing(
    tmp_path: Path, detector: Detector
) -> None:
    state = random_weights()
    for name in list(state):
        if name.endswith("running_var"):
            counter = name.replace("running_var", "num_batches_tracked")
            state[counter] = torch.tensor(0)
    path = tmp_path / "weights.pth"
    torch.save(state, path)
    other = detectors.load("inception", weights=str(path))
    assert other.weights_sha256 != detector.weights_sha256
    batch = images(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(other.extract(batch).features, detector(batch).features)
    path.unlink()


def _drop(state: dict[str, Any]) -> None:
    del state["Mixed_7c.branch_pool.bn.bias"], state["fc.weight"]


def _add(state: dict[str, Any]) -> None:
    state["AuxLogits.fc.weight"] = torch.zeros(3)


def _shorten(state: dict[str, Any]) -> None:
    state["fc.bias"] = torch.zeros(1000)


def _round(state: dict[str, Any]) -> None:
    state["fc.bias"] = torch.zeros(1008, dtype=torch.int64)


def _spoil(state: dict[str, Any]) -> None:
    state["Conv2d_1a_3x3.conv.weight"][0, 0, 0, 0] = float("nan")


def _negate(state: dict[str, Any]) -> None:
    state["Conv2d_1a_3x3.bn.running_var"][0] = -1


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (_drop, "it has no Mixed_7c.branch_pool.bn.bias, fc.weight"),
        (_add, "it also has AuxLogits.fc.weight"),
        (_shorten, r"fc.bias is \[1000\], not \[1008\]"),
        (_round, "fc.bias is no tensor of floating point"),
        (_spoil, "is damaged: Conv2d_1a_3x3.conv.weight holds values that no network has"),
        (_negate, "is damaged: Conv2d_1a_3x3.bn.running_var holds values that no network has"),
    ],
    ids=["missing", "unknown", "shape", "type", "nan", "negative"],
)
def test_other_tensors_than_the_published_ones_are_refused(
    change: Callable[[dict[str, Any]], None], line: str, tmp_path: Path
) -> None:
    path = tmp_path / "weights.pth"
    state = random_weights()
    change(state)
    torch.save(state, path)
    with pytest.raises(UserError, match=line) as refused:
        detectors.load("inception", weights=str(path))
    assert "\n" not in str(refused.value)
    path.unlink()


def test_other_files_than_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save([1, 2], path)
    with pytest.raises(UserError, match="it holds no tensors by name"):
        detectors.load("inception", weights=str(path))
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(UserError, match=r"weights\.pth is"):
        detectors.load("inception", weights=str(path))
