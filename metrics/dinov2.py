"""DINOv2's ViT-L/14 (Oquab et al., 2024): the features of FD_DINOv2 as EDM2 defines it.

Images are resized to 224x224, bicubic with antialiasing, and the feature is the class token after
the last norm. The network is that of `transformers`, an optional dependency.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional

from metrics.detectors import Features, Loaded
from metrics.rgb import as_rgb
from metrics.weights import hash_of
from torch_utils.bounded import read_text
from torch_utils.errors import UserError
from torch_utils.text import some
from torch_utils.untouched import numerics

NAME = "dinov2"
REPOSITORY = "facebook/dinov2-large"
REVISION = "47b73eefe95e8d44ec3623f8890bd894b6ea2d6c"
SHA256 = "399fba97a95f22c36834418bc69373364a99af3a1153da1c0fb31db567c92e23"  # of its weights
CONFIG, TENSORS = "config.json", "model.safetensors"
SIZE = 224  # height and width of what the network sees
MEAN = (0.485, 0.456, 0.406)  # of ImageNet, per channel, for values in [0, 1]
STD = (0.229, 0.224, 0.225)
OFFSET = 0.1  # the published network adds it to the grid to which it resizes its positions
_CONFIG_LIMIT = 2**20


def load(device: torch.device, weights: str = "") -> Loaded:
    """Load the detector.

    Args:
        device: where it will compute, in float32 without TF32.
        weights: a folder with config.json and model.safetensors; empty for the published ones,
            from the cache of the Hugging Face hub or from the hub.

    Returns:
        An extractor that gives features [N, 1024] of gray or RGB images, and no logits.

    Raises:
        UserError: transformers is not installed, or the weights cannot be had or read.
    """
    try:
        import transformers
    except ImportError:
        raise UserError(
            f"detector {NAME!r} needs transformers: pip install 'driftless[dinov2]'"
        ) from None
    folder = _given(Path(weights)) if weights else _published()
    sha256 = hash_of(folder / TENSORS)
    if not weights and sha256 != SHA256:
        raise UserError(f"{folder / TENSORS} is damaged: delete it, and it is downloaded again")
    net = _network(transformers, folder).to(device)
    mean = torch.tensor(MEAN, device=device)[:, None, None]
    std = torch.tensor(STD, device=device)[:, None, None]

    def extract(images: Tensor) -> Features:
        with numerics(), torch.autocast(device.type, enabled=False):
            pixels = (resize(as_rgb(images, NAME).float()) / 255 - mean) / std
            return Features(net(pixel_values=pixels).last_hidden_state[:, 0])

    return Loaded(extract, sha256)


def resize(images: Tensor) -> Tensor:
    """Resize to 224x224, bicubic with antialiasing; values may leave the range of the images'.

    Args:
        images: [N, C, H, W], floating point.
    """
    return functional.interpolate(images, size=(SIZE, SIZE), mode="bicubic", antialias=True)


def _given(folder: Path) -> Path:
    """A folder that the user named, with both files in it."""
    missing = [name for name in (CONFIG, TENSORS) if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"--weights={folder}: detector {NAME!r} takes a folder with {CONFIG} and {TENSORS}; "
            f"it has no {' and no '.join(missing)}"
        )
    return folder


def _published() -> Path:
    """The folder of the published files in the cache of the hub, downloaded if they are not."""
    import huggingface_hub

    folder = Path()
    try:
        with _quiet(huggingface_hub.utils.logging):
            for name in (CONFIG, TENSORS):
                path = huggingface_hub.hf_hub_download(REPOSITORY, name, revision=REVISION)
                folder = Path(path).parent
    except (OSError, ValueError) as error:
        raise UserError(
            f"the weights of detector {NAME!r} cannot be downloaded ({type(error).__name__}): put "
            f"{CONFIG} and {TENSORS} of {REPOSITORY} (Hugging Face) in a folder, and give "
            "--weights=FOLDER"
        ) from None
    return folder


def _network(transformers: Any, folder: Path) -> nn.Module:
    """The network of a folder in float32 for images of 224x224, without gradients."""
    try:
        config = json.loads(read_text(folder / CONFIG, _CONFIG_LIMIT))
        _check_config(folder / CONFIG, config)
        with _quiet(transformers.utils.logging), _without_bar(transformers.utils.logging):
            net, found = transformers.Dinov2Model.from_pretrained(
                folder,
                use_safetensors=True,
                local_files_only=True,
                ignore_mismatched_sizes=True,  # they are reported below
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, TypeError, LookupError, SafetensorError) as error:
        if isinstance(error, UserError):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{folder} does not hold a network of DINOv2: {reason}") from None
    for key, what in (("missing_keys", "has no"), ("mismatched_keys", "has another shape of")):
        names = sorted(name if isinstance(name, str) else name[0] for name in found[key])
        if names:
            raise UserError(f"{folder / TENSORS} {what} {some(names, 3)}")
    net = net.float().eval().requires_grad_(False)
    positions = fitted(net.embeddings.position_embeddings, SIZE // net.config.patch_size)
    net.embeddings.position_embeddings = nn.Parameter(positions, requires_grad=False)
    module: nn.Module = net
    return module


def _check_config(path: Path, config: Any) -> None:
    """Check what this module relies on; the rest is the library's."""
    values = config if isinstance(config, dict) else {}
    if values.get("model_type") != "dinov2":
        raise UserError(f"{path} is not DINOv2's: its model_type is {values.get('model_type')!r}")
    image, patch = values.get("image_size"), values.get("patch_size")
    if not isinstance(image, int) or not isinstance(patch, int) or patch < 1 or SIZE % patch:
        raise UserError(
            f"{path}: image_size is {image!r} and patch_size {patch!r}: they must be integers, and "
            f"patches must fill {SIZE} pixels"
        )
    if values.get("num_channels", 3) != 3:
        raise UserError(f"{path}: num_channels is {values['num_channels']!r}: it must be 3")


def fitted(positions: Tensor, side: int) -> Tensor:
    """Resize position embeddings as the published network does.

    `transformers` maps the grids by the ratio of their sides. The published network adds 0.1 to the
    side first, which moves every position a little.

    Args:
        positions: [1, 1 + stored side^2, D]; the first one is the class token's.
        side: patches in a row.

    Returns:
        [1, 1 + side^2, D].
    """
    stored = round((positions.shape[1] - 1) ** 0.5)
    if stored == side:
        return positions.detach()
    grid = positions[:, 1:].detach().reshape(1, stored, stored, -1).permute(0, 3, 1, 2)
    scale = (side + OFFSET) / stored
    grid = functional.interpolate(grid, scale_factor=(scale, scale), mode="bicubic")
    assert grid.shape[2:] == (side, side), grid.shape
    return torch.cat([positions[:, :1].detach(), grid.flatten(2).transpose(1, 2)], 1)


@contextlib.contextmanager
def _quiet(logging: Any) -> Iterator[None]:
    """Without a library's notes: what matters is an error, and said in our words."""
    level = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(level)


@contextlib.contextmanager
def _without_bar(logging: Any) -> Iterator[None]:
    """Without a library's progress bars, for work of a second."""
    has_bar = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if has_bar:
            logging.enable_progress_bar()
