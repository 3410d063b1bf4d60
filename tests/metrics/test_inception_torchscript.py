"""The TorchScript file of Inception, by a stand-in of its interface that is made on the spot."""

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metrics import detectors, inception_torchscript
from metrics.detectors import Features
from metrics.inception import Inception
from tests.inception import random_weights
from torch_utils.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # torch.jit is deprecated


def sampling_grid(images: Tensor) -> Tensor:
    """Where TensorFlow 1 reads from, in the coordinates of grid_sample: [N, 299, 299, 2]."""
    height, width = images.shape[2], images.shape[3]
    rows = (2 * torch.arange(299) * (height / 299) + 1) / height - 1
    columns = (2 * torch.arange(299) * (width / 299) + 1) / width - 1
    grid = torch.stack([columns.expand(299, 299), rows[:, None].expand(299, 299)], 2)
    return grid[None].expand(images.shape[0], -1, -1, -1)


class StandIn(nn.Module):
    """The interface of the published module around traced layers."""

    def __init__(self, layers: Any, classes: Tensor) -> None:
        super().__init__()
        self.layers = layers
        self.output = nn.Linear(2048, 1008)
        self.output.weight = nn.Parameter(classes)

    def forward(
        self,
        img: Tensor,
        return_features: bool = False,
        use_fp16: bool = False,
        no_output_bias: bool = False,
    ) -> Tensor:
        x = torch.nn.functional.grid_sample(
            img.float(), sampling_grid(img), padding_mode="border", align_corners=False
        )
        features = self.layers((x - 128) / 128).mean([2, 3])
        if return_features:
            return features
        logits = features @ self.output.weight.T
        if not no_output_bias:
            logits = logits + self.output.bias
        return logits.softmax(1)


class TwoWeights(StandIn):
    """Its class weights cannot be told apart by their shape."""

    def __init__(self, layers: Any, classes: Tensor) -> None:
        super().__init__(layers, classes)
        self.other = nn.Parameter(torch.zeros_like(classes))


class OnlyClasses(nn.Module):
    """Another interface."""

    def forward(self, img: Tensor) -> Tensor:
        return img


@pytest.fixture(scope="module")
def net() -> Inception:
    """The eager network."""
    made = Inception()
    made.load_published(random_weights(), torch.float32)
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def layers(net: Inception) -> Any:
    """Its convolutions as TorchScript."""
    jit: Any = torch.jit
    return jit.trace(net.layers, torch.randn(1, 3, 299, 299), check_trace=False)


def save(module: nn.Module, path: Path) -> Path:
    """Write a module as TorchScript."""
    jit: Any = torch.jit
    jit.script(module).save(str(path))
    return path


@pytest.fixture(scope="module")
def program(
    net: Inception, layers: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A TorchScript file of the published interface."""
    folder = tmp_path_factory.mktemp("torchscript")
    yield save(StandIn(layers, net.classes.weight.clone()), folder / "inception.pt")
    shutil.rmtree(folder)


def images(channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, [2, channels, 24, 32], generator=generator).to(torch.uint8)


def extracted(path: Path, batch: Tensor) -> tuple[Features, str]:
    """What the detector with this file finds, and its hash."""
    loaded = detectors.load("inception-torchscript", weights=str(path))
    with torch.no_grad():
        first, again = loaded.extract(batch), loaded.extract(batch)
    assert torch.equal(first.features, again.features)  # the graph is not rewritten meanwhile
    return first, loaded.weights_sha256


@pytest.mark.parametrize("channels", [1, 3])
def test_it_gives_features_and_logits_of_the_eager_network(
    channels: int, net: Inception, program: Path
) -> None:
    batch = images(channels)
    found, sha256 = extracted(program, batch)
    features, logits = net(batch.expand(-1, 3, -1, -1))
    assert found.logits is not None
    torch.testing.assert_close(found.features, features, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.logits, logits, rtol=1e-4, atol=1e-3)
    assert sha256 == hashlib.sha256(program.read_bytes()).hexdigest()


def test_where_the_class_weights_are_not_clear_logits_come_from_a_second_call(
    net: Inception, layers: Any, tmp_path: Path
) -> None:
    path = save(TwoWeights(layers, net.classes.weight.clone()), tmp_path / "a.pt")
    found, _ = extracted(path, images())
    features, logits = net(images())
    assert found.logits is not None
    torch.testing.assert_close(found.features, features, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.logits.softmax(1), logits.softmax(1), rtol=1e-3, atol=1e-6)
    path.unlink()


def test_a_program_of_another_hash_is_run_only_if_it_is_named_and_a_line_says_so(
    program: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    detectors.load("inception-torchscript", weights=str(program))
    # warnings are said once, and an earlier test may have been the first
    monkeypatch.setattr("torch_utils.notes._said", set())
    detectors.load("inception-torchscript", weights=str(program))
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"warning: --weights={program} is a program of sha256 ")
    monkeypatch.setenv("DRIFTLESS_CACHE", str(tmp_path))
    cached = tmp_path / "downloads" / inception_torchscript.WEIGHTS.name
    cached.parent.mkdir()
    cached.symlink_to(program)
    with pytest.raises(UserError, match=r"inception-2015-12-05\.pt has the SHA-256 "):
        detectors.load("inception-torchscript")


def test_the_pinned_program_is_taken_from_the_cache_without_a_word(
    program: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sha256 = hashlib.sha256(program.read_bytes()).hexdigest()
    pinned = replace(inception_torchscript.WEIGHTS, sha256=sha256, addresses=("https://a.invalid",))
    monkeypatch.setattr(inception_torchscript, "WEIGHTS", pinned)
    monkeypatch.setenv("DRIFTLESS_CACHE", str(tmp_path))
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / pinned.name).symlink_to(program)
    assert detectors.load("inception-torchscript").weights_sha256 == sha256
    assert capsys.readouterr().err == ""


def test_other_files_are_refused_in_one_line(tmp_path: Path) -> None:
    other = save(OnlyClasses(), tmp_path / "other.pt")
    with pytest.raises(UserError, match="its forward has no return_features and no no_output_bias"):
        detectors.load("inception-torchscript", weights=str(other))
    with pytest.raises(UserError, match="a TorchScript program: use --detector=inception-torchscr"):
        detectors.load("inception", weights=str(other))
    state = tmp_path / "state.pt"
    torch.save({"a": torch.zeros(2)}, state)
    text = tmp_path / "text.pt"
    text.write_text("not found")
    for path in (state, text):
        with pytest.raises(UserError, match="is not a TorchScript file") as refused:
            detectors.load("inception-torchscript", weights=str(path))
        assert "\n" not in str(refused.value)


def test_four_channels_are_refused_by_name(program: Path) -> None:
    detector = detectors.load("inception-torchscript", weights=str(program))
    with pytest.raises(UserError, match="'inception-torchscript' takes gray or RGB images, these"):
        detector.extract(images(4))
