"""Inception-v3 (Szegedy et al., 2016) as FID and IS use it: the network of TensorFlow's 2015-12-05.

It gives 2048 features and 1008 logits without bias in one pass, in float32; the resize to 299x299
is a part of it. It only evaluates: each batch normalisation is folded into its convolution.
"""

import os
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from metrics.detectors import Features, Loaded
from metrics.inception_layers import BLOCKS, STEM, Branch, Pool, Unit
from metrics.rgb import as_rgb
from metrics.weights import WeightsFile, find_weights
from torch_utils import torch_files
from torch_utils.errors import UserError
from torch_utils.text import some
from torch_utils.untouched import numerics
from torch_utils.zips import BAD_ZIP, open_zip

NAME = "inception"
WEIGHTS = WeightsFile(
    name="pt_inception-2015-12-05-6726825d.pth",
    addresses=(
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
        "pt_inception-2015-12-05-6726825d.pth",
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
        "weights-inception-2015-12-05-6726825d.pth",
    ),
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    size=95_628_359,
)
SIZE = 299  # height and width of what the convolutions see
NUM_FEATURES = 2048
NUM_CLASSES = 1008
EPS = 0.001  # of the batch normalisations
_NORM = ("weight", "bias", "running_mean", "running_var")
_COUNTER = ".bn.num_batches_tracked"  # in files that PyTorch trained; evaluation does without it


def resize(images: Tensor) -> Tensor:
    """Resize to 299x299 as TensorFlow 1 does: bilinear, output i reads from i * size / 299.

    So pixel centres are not aligned, and smaller images are not smoothed first.

    Args:
        images: [N, C, H, W], floating point.
    """
    for dim in (2, 3):
        size = images.shape[dim]
        if size == SIZE:
            continue
        place = torch.arange(SIZE, device=images.device, dtype=torch.float64) * (size / SIZE)
        low = place.long()
        weight = (place - low).to(images.dtype)
        high = (low + 1).clamp_max(size - 1)
        images = torch.lerp(
            images.index_select(dim, low),
            images.index_select(dim, high),
            weight[:, None] if dim == 2 else weight,
        )
    return images


class _Convolution(nn.Conv2d):
    """A unit with its batch normalisation folded in; `published` is its name in the file."""

    def __init__(self, unit: Unit, prefix: str, inputs: int) -> None:
        height, width = unit.kernel
        padding = (0, 0) if unit.is_valid else (height // 2, width // 2)
        super().__init__(inputs, unit.channels, unit.kernel, unit.stride, padding)
        self.published = prefix + unit.name

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(super().forward(x), inplace=True)


class _Pooling(nn.Module):
    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        padding = 1 if self.pool.stride == 1 else 0
        if self.pool.kind == "max":
            return functional.max_pool2d(x, 3, self.pool.stride, padding)
        return functional.avg_pool2d(x, 3, self.pool.stride, padding, count_include_pad=False)


class _SideBySide(nn.ModuleList):
    """Modules that see the same input; their outputs are joined along the channels."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part(x) for part in self], 1)


def _branch(branch: Branch, prefix: str, inputs: int) -> tuple[nn.Module, int]:
    """The modules of a branch, and its number of output channels."""
    parts: list[nn.Module] = []
    for step in branch:
        if isinstance(step, Pool):
            parts.append(_Pooling(step))
        elif isinstance(step, Unit):
            parts.append(_Convolution(step, prefix, inputs))
            inputs = step.channels
        else:
            parts.append(_SideBySide(_Convolution(unit, prefix, inputs) for unit in step))
            inputs = sum(unit.channels for unit in step)
    return nn.Sequential(*parts), inputs


class Inception(nn.Module):
    """The network, without weights until `load_published`."""

    def __init__(self) -> None:
        super().__init__()
        with torch.device("meta"):
            stem, width = _branch(STEM, "", 3)
            parts = [stem]
            for name, branches in BLOCKS.items():
                built = [_branch(branch, f"{name}.", width) for branch in branches]
                parts.append(_SideBySide(module for module, _ in built))
                width = sum(channels for _, channels in built)
            self.layers = nn.Sequential(*parts)
            self.classes = nn.Linear(width, NUM_CLASSES, bias=False)
        assert width == NUM_FEATURES

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """RGB images [N, 3, H, W] of 0 to 255 -> features [N, 2048] and logits [N, 1008]."""
        x = (resize(images.to(self.classes.weight.dtype)) - 128) / 128
        features = self.layers(x).mean((2, 3))
        return features, self.classes(features)

    def convolutions(self) -> dict[str, _Convolution]:
        """The convolutions by their published names."""
        found = (module for module in self.modules() if isinstance(module, _Convolution))
        return {module.published: module for module in found}

    def published_shapes(self) -> dict[str, tuple[int, ...]]:
        """The tensors of a published file and their shapes."""
        shapes: dict[str, tuple[int, ...]] = {}
        for name, module in self.convolutions().items():
            shapes[f"{name}.conv.weight"] = tuple(module.weight.shape)
            shapes |= {f"{name}.bn.{part}": (module.out_channels,) for part in _NORM}
        return shapes | {"fc.weight": (NUM_CLASSES, NUM_FEATURES), "fc.bias": (NUM_CLASSES,)}

    def load_published(self, state: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        """Fold the tensors of a published file, already checked, into the network."""
        for name, module in self.convolutions().items():
            scale, bias, mean, var = (state[f"{name}.bn.{part}"].double() for part in _NORM)
            scale = scale / (var + EPS).sqrt()
            weight = state[f"{name}.conv.weight"].double() * scale[:, None, None, None]
            module.weight = nn.Parameter(weight.to(dtype))
            module.bias = nn.Parameter((bias - mean * scale).to(dtype))
        self.classes.weight = nn.Parameter(state["fc.weight"].to(dtype))


def read_published(path: str | os.PathLike[str]) -> Inception:
    """Read a file of weights with the names and shapes of the published one.

    No code of the file is run. `num_batches_tracked` may be missing.

    Args:
        path: a file of torch.save, of either format.

    Returns:
        The network, in float32, on the CPU, without gradients.

    Raises:
        UserError: it cannot be read; tensors are missing, unknown, of a wrong shape or type, or
            hold values that no network has.
    """
    if _is_program(path):
        raise UserError(
            f"{os.fspath(path)} is a TorchScript program: use --detector=inception-torchscript"
        )
    net = Inception()
    state = torch_files.load(path, os.fspath(path))
    _check(os.fspath(path), state, net.published_shapes())
    net.load_published(state, torch.float32)
    return net.eval().requires_grad_(False)


def _is_program(path: str | os.PathLike[str]) -> bool:
    """Whether a file is TorchScript: only such zips hold constants."""
    try:
        with open_zip(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except BAD_ZIP:
        return False


def _check(name: str, state: object, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check what a file holds, tensor by tensor."""
    what = f"{name} is not a file of Inception's weights like {WEIGHTS.name}"
    if not isinstance(state, dict):
        raise UserError(f"{what}: it holds no tensors by name")
    if missing := [key for key in shapes if key not in state]:
        raise UserError(f"{what}: it has no {some(missing, 3)}")
    unknown = [key for key in state if key not in shapes and not str(key).endswith(_COUNTER)]
    if unknown:
        raise UserError(f"{what}: it also has {some(unknown, 3)}")
    for key, shape in shapes.items():
        tensor = state[key]
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            raise UserError(f"{what}: {key} is no tensor of floating point")
        if tensor.shape != shape:
            raise UserError(f"{what}: {key} is {list(tensor.shape)}, not {list(shape)}")
        if not tensor.isfinite().all() or (key.endswith("running_var") and tensor.min() < 0):
            raise UserError(f"{name} is damaged: {key} holds values that no network has")


def load(device: torch.device, weights: str = "") -> Loaded:
    """Load the detector.

    Args:
        device: where it will compute, in float32 without TF32.
        weights: a file with the names and shapes of the published one; empty for that one, from
            the cache or the network.

    Returns:
        An extractor that gives features [N, 2048] and logits [N, 1008] of gray or RGB images.

    Raises:
        UserError: the weights cannot be had or read.
    """
    path, sha256 = find_weights(NAME, WEIGHTS, weights)
    net = read_published(path).to(device)
    if device.type == "cpu":
        net = net.to(memory_format=torch.channels_last)  # takes 0.65 of the time there

    def extract(images: Tensor) -> Features:
        with numerics(), torch.autocast(device.type, enabled=False):
            return Features(*net(as_rgb(images, NAME)))

    return Loaded(extract, sha256)
