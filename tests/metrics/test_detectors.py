"""Every detector of the table, and what is particular to each."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from data.dataset import ImageDataset
from metrics import detectors, digits
from metrics.evaluate import evaluate, num_features
from torch_utils.errors import UserError

DATASET = Path(__file__).resolve().parents[2] / "assets" / "digits-8x8.zip"
SHIPPED = [name for name, row in detectors.DETECTORS.items() if not row.has_weights]


def random_images(num: int) -> torch.Tensor:
    """uint8 [num, 1, 8, 8], which every detector of the table takes."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, [num, 1, 8, 8], generator=generator).to(torch.uint8)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_detector_keeps_the_contract(name: str) -> None:
    detector = detectors.load(name)
    found = detector(random_images(5))
    assert detector.name == name
    assert found.features.shape == (5, num_features(detector, (1, 8, 8)))
    assert found.features.is_floating_point()
    assert (found.logits is not None) == detectors.row(name).classifies
    assert found.logits is None or found.logits.shape[0] == 5
    assert re.fullmatch("[0-9a-f]{64}|", detector.weights_sha256)


@pytest.mark.parametrize("name", SHIPPED)
def test_results_do_not_depend_on_the_batch_size(name: str) -> None:
    images = random_images(23).numpy()
    detector = detectors.load(name)
    runs = []
    for batch in (1, 4, 23):
        batches = [images[i : i + batch] for i in range(0, 23, batch)]
        runs.append(evaluate(detector, batches, (1, 8, 8), keep_features=True))
    for run in runs[:2]:
        assert run.features is not None
        assert runs[2].features is not None
        np.testing.assert_array_equal(run.features, runs[2].features)
        ours, whole = run.statistics.finalize(), runs[2].statistics.finalize()
        np.testing.assert_array_equal(ours.mu, whole.mu)
        np.testing.assert_array_equal(ours.sigma, whole.sigma)
        if run.logits is not None:
            np.testing.assert_array_equal(run.logits, runs[2].logits)


def test_pixels_are_flattened_values_from_zero_to_one() -> None:
    images = torch.tensor([0, 255, 51, 102], dtype=torch.uint8).reshape(1, 2, 1, 2)
    features = detectors.load("pixels")(images).features
    torch.testing.assert_close(features, torch.tensor([[0, 1, 0.2, 0.4]]).double())


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 16, 16), (1, 8, 16)])
def test_digits_refuses_other_images(shape: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match=f"these are {'x'.join(map(str, shape))}"):
        num_features(detectors.load("digits"), shape)


def test_an_unknown_detector_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'digits'"):
        detectors.load("digit")


def test_the_table_is_read_without_torch() -> None:
    code = "import sys, metrics.detectors; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=DATASET.parents[1]).returncode == 0


def test_the_shipped_digits_detector_reaches_its_recorded_accuracy() -> None:
    record = digits.metadata()
    held_out = ImageDataset(
        str(DATASET),
        use_labels=True,
        max_size=record["num_train"],
        subset_seed=0,
        held_out=True,
    )
    assert held_out.labels is not None
    logits = evaluate(detectors.load("digits"), held_out.batches(64), held_out.image_shape).logits
    assert logits is not None
    accuracy = np.mean(logits.argmax(1) == held_out.labels.argmax(1))
    assert len(held_out) == record["num_held_out"]
    assert accuracy == pytest.approx(record["held_out_accuracy"], abs=1e-9)
    assert accuracy >= 0.97


def test_the_shipped_digits_detector_was_trained_on_the_shipped_digits() -> None:
    record = digits.metadata()
    assert record["dataset_sha256"] == hashlib.sha256(DATASET.read_bytes()).hexdigest()
    assert digits.WEIGHTS.stat().st_size <= 200_000


def test_other_weights_than_the_pinned_ones_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "digits-detector.safetensors"
    other.write_bytes(digits.WEIGHTS.read_bytes()[:-1] + b"\0")
    monkeypatch.setattr(digits, "WEIGHTS", other)
    with pytest.raises(UserError, match="not the file of this version"):
        detectors.load("digits")
    monkeypatch.setattr(digits, "WEIGHTS", tmp_path / "absent")
    with pytest.raises(UserError, match="is missing"):
        detectors.load("digits")
