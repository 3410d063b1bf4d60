"""DINOv2's detector against transformers' network on plainly written preprocessing."""

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from metrics import detectors, dinov2
from torch_utils.errors import UserError

pytest.importorskip("transformers")


def network(image_size: int) -> Any:
    """A tiny random network in which pixels and positions matter."""
    import transformers

    torch.manual_seed(0)
    config = transformers.Dinov2Config(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=image_size
    )
    net = transformers.Dinov2Model(config).eval().requires_grad_(False)
    for parameter in net.parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=0.2)
    return net


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the network for images of 224x224."""
    path = tmp_path_factory.mktemp("dinov2")
    network(224).save_pretrained(path)
    return path


def images(channels: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand([2, channels, height, width], generator=generator)
    return (noise * torch.tensor([80, 256]).reshape(2, 1, 1, 1)).to(torch.uint8)


def pixels(batch: Tensor) -> Tensor:
    """What the network sees: 224x224, normalised by ImageNet's mean and deviation."""
    x = torch.nn.functional.interpolate(
        batch.expand(-1, 3, -1, -1).float(), (224, 224), mode="bicubic", antialias=True
    )
    mean = torch.tensor([123.675, 116.28, 103.53]).reshape(3, 1, 1)
    std = torch.tensor([58.395, 57.12, 57.375]).reshape(3, 1, 1)
    return (x - mean) / std


@pytest.mark.parametrize(
    ("channels", "height", "width"), [(3, 32, 32), (1, 28, 40), (3, 224, 224), (3, 320, 256)]
)
def test_features_are_the_class_token_after_the_last_norm(
    channels: int, height: int, width: int, folder: Path
) -> None:
    batch = images(channels, height, width)
    detector = detectors.load("dinov2", weights=str(folder))
    with torch.no_grad():
        found = detector.extract(batch)
        expected = network(224)(pixel_values=pixels(batch)).last_hidden_state[:, 0]
    assert found.logits is None
    assert found.features.shape == (2, 24)
    torch.testing.assert_close(found.features, expected, rtol=1e-4, atol=1e-5)
    assert float((expected[0] - expected[1]).abs().max()) > 1e-2  # else nothing is compared
    content = (folder / "model.safetensors").read_bytes()
    assert detector.weights_sha256 == hashlib.sha256(content).hexdigest()


def cubic(x: np.ndarray) -> np.ndarray:
    """Keys's kernel with a = -0.75, as PyTorch has it."""
    x = np.abs(x)
    near = 1.25 * x**3 - 2.25 * x**2 + 1
    far = -0.75 * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def test_positions_are_resized_as_in_the_published_network() -> None:
    positions = torch.randn([1, 1 + 37 * 37, 5], generator=torch.Generator().manual_seed(0))
    place = (np.arange(16) + 0.5) * 37 / 16.1 - 0.5
    mix = np.zeros([16, 37])
    for row, x in enumerate(place):
        for tap in range(int(np.floor(x)) - 1, int(np.floor(x)) + 3):
            mix[row, np.clip(tap, 0, 36)] += cubic(np.array(x - tap))
    grid = positions[0, 1:].reshape(37, 37, 5).double().numpy()
    expected = np.einsum("ia,jb,abd->ijd", mix, mix, grid).reshape(256, 5)
    found = dinov2.fitted(positions, 16)
    torch.testing.assert_close(found[0, 0], positions[0, 0])
    np.testing.assert_allclose(found[0, 1:], expected, atol=1e-5)


def test_a_network_of_larger_images_uses_the_resized_positions(tmp_path: Path) -> None:
    large, small = network(518), network(224)
    large.save_pretrained(tmp_path)
    small.load_state_dict(
        large.state_dict()
        | {
            "embeddings.position_embeddings": dinov2.fitted(
                large.embeddings.position_embeddings, 16
            )
        }
    )
    batch = images(3, 32, 32)
    with torch.no_grad():
        found = detectors.load("dinov2", weights=str(tmp_path)).extract(batch)
        expected = small(pixel_values=pixels(batch)).last_hidden_state[:, 0]
    torch.testing.assert_close(found.features, expected, rtol=1e-4, atol=1e-5)


def refusal(path: Path) -> str:
    """The line with which a folder is refused."""
    with pytest.raises(UserError) as refused:
        detectors.load("dinov2", weights=str(path))
    line = str(refused.value)
    assert "\n" not in line
    return line


def test_folders_without_the_network_are_refused(folder: Path, tmp_path: Path) -> None:
    assert "it has no config.json and no model.safetensors" in refusal(tmp_path)
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    weights.rename(tmp_path / "pytorch_model.bin")  # pickles are never read
    assert "it has no model.safetensors" in refusal(tmp_path)
    weights.write_bytes(b"garbage")
    assert "does not hold a network of DINOv2" in refusal(tmp_path)
    weights.write_bytes((tmp_path / "pytorch_model.bin").read_bytes())
    values = json.loads(config.read_text())
    for change, line in [
        ({"model_type": "vit"}, "is not DINOv2's: its model_type is 'vit'"),
        ({"patch_size": 15}, "image_size is 224 and patch_size 15"),
        ({"num_channels": 1}, "num_channels is 1: it must be 3"),
        ({"num_hidden_layers": 3}, "model.safetensors has no encoder.layer.2."),
        ({"image_size": 518}, "has another shape of embeddings.position_embeddings"),
    ]:
        config.write_text(json.dumps(values | change))
        assert line in refusal(tmp_path)
    config.write_text("[1")
    assert "does not hold a network of DINOv2: " in refusal(tmp_path)


def test_four_channels_are_refused_by_name(folder: Path) -> None:
    with pytest.raises(UserError, match="'dinov2' takes gray or RGB images, these have 4 channels"):
        detectors.load("dinov2", weights=str(folder)).extract(images(4, 8, 8))


def test_a_missing_library_is_named_with_its_extra(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert refusal(folder).endswith("needs transformers: pip install 'driftless[dinov2]'")


def test_without_a_network_one_line_says_what_to_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"facebook/dinov2-large .*--weights=FOLDER") as refused:
        detectors.load("dinov2")
    assert "\n" not in str(refused.value)
