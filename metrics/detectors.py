"""The table of detectors, which turn uint8 images into the features that a metric compares.

No torch here, so that `--help` can list them; a row's function is imported when it is loaded.
A number means nothing without its detector: `metrics.names` makes the names of the numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch_utils.errors import UserError
from torch_utils.registry import Row, Rule, lookup

if TYPE_CHECKING:
    import torch

DEFAULT = "inception"  # what the field means by FID
_CPU_BATCH = 16  # more gain nothing there, and take memory


_FILE = Rule("a path, or empty for the published file", lambda value: isinstance(value, str))


@dataclass(frozen=True, kw_only=True)
class DetectorRow(Row):
    """One row of the table; its target is a function `load(device, **options) -> Loaded`.

    Attributes:
        classifies: whether it gives class logits, and so a classifier score.
        is_fid: whether its numbers are what the field calls FID, IS and KID (Inception only).
        distance: the published name of its Frechet distance, if it has one beside FID.
        batch: images that it computes at once on a GPU.
    """

    classifies: bool = False
    is_fid: bool = False
    distance: str = ""
    batch: int = 64

    @property
    def has_weights(self) -> bool:
        """Whether a user may give a file of weights."""
        return "weights" in self.options


DETECTORS: dict[str, DetectorRow] = {
    "inception": DetectorRow(
        target="metrics.inception:load",
        options={"weights": ""},
        rules={"weights": _FILE},
        summary="Inception-v3, which defines FID and IS; gray or RGB, any size",
        classifies=True,
        is_fid=True,
    ),
    "inception-torchscript": DetectorRow(
        target="metrics.inception_torchscript:load",
        options={"weights": ""},
        rules={"weights": _FILE},
        summary="the same network from StyleGAN2-ADA's TorchScript file",
        classifies=True,
        is_fid=True,
    ),
    "dinov2": DetectorRow(
        target="metrics.dinov2:load",
        options={"weights": ""},
        rules={"weights": _FILE},
        summary="DINOv2 ViT-L/14 for FD_DINOv2; gray or RGB, any size; needs driftless[dinov2]",
        distance="FD_DINOv2",
    ),
    "pixels": DetectorRow(
        target="metrics.pixels:load",
        summary="the values themselves, in [0,1]; any image size",
    ),
    "digits": DetectorRow(
        target="metrics.digits:load",
        summary="a small classifier of 8x8 grayscale digits",
        classifies=True,
    ),
}


@dataclass(frozen=True)
class Features:
    """What a detector computes for a batch of images.

    Attributes:
        features: [N, F], floating point.
        logits: [N, K] logits of the classes, whose softmax are probabilities; None if the detector
            has no classes.
    """

    features: "torch.Tensor"
    logits: "torch.Tensor | None" = None


@dataclass(frozen=True)
class Loaded:
    """What a row's function returns.

    Attributes:
        extract: uint8 [N, C, H, W] on the device -> `Features`; raises UserError for images of a
            size or channel count that it does not take.
        weights_sha256: hash of the file of weights, 64 hexadecimal digits; empty if there is none.
    """

    extract: "Callable[[torch.Tensor], Features]"
    weights_sha256: str = ""


@dataclass(frozen=True)
class Detector:
    """A loaded detector: call it with uint8 images [N, C, H, W] on any device.

    Attributes:
        name: its name in `DETECTORS`.
        device: where it computes.
        extract, weights_sha256: as in `Loaded`.
        batch: images that it computes at once, always: a kernel may round a batch of another size
            differently, so the last one is filled up.
    """

    name: str
    device: "torch.device"
    extract: "Callable[[torch.Tensor], Features]"
    weights_sha256: str = ""
    batch: int = 64

    def __call__(self, images: "torch.Tensor") -> Features:
        """Compute the features of uint8 images [N, C, H, W], N >= 1, in batches of one size.

        What it computes for an image does not depend on N.
        """
        import torch

        from torch_utils.devices import upload

        assert images.ndim == 4, images.shape
        assert images.dtype == torch.uint8, images.dtype
        parts = [self.extract(upload(part, self.device)) for part in _filled(images, self.batch)]
        num = len(images)
        logits = [part.logits for part in parts if part.logits is not None]
        return Features(
            torch.cat([part.features for part in parts])[:num],
            torch.cat(logits)[:num] if logits else None,
        )


def _filled(images: "torch.Tensor", batch: int) -> "list[torch.Tensor]":
    """Batches of exactly that size; the last one is filled up with zeros."""
    import torch

    missing = -len(images) % batch
    if missing:
        images = torch.cat([images, images.new_zeros([missing, *images.shape[1:]])])
    return list(torch.split(images, batch))


def row(name: str) -> DetectorRow:
    """Look up a detector's row; the UserError for an unknown name suggests the nearest one."""
    return lookup("detector", DETECTORS, name)


def load(name: str, device: "torch.device | str" = "cpu", **options: Any) -> Detector:
    """Load a detector.

    Args:
        name: a key of `DETECTORS`.
        device: where it will compute.
        **options: those of its row that differ from their defaults.

    Returns:
        The detector, ready to be called.

    Raises:
        UserError: unknown name or option, or its weights are missing or not the expected ones.
    """
    import torch

    target = torch.device(device)
    chosen = row(name)
    options = chosen.resolve(f"detector {name}", options)
    loaded = chosen.load()(target, **options)
    batch = min(chosen.batch, _CPU_BATCH) if target.type == "cpu" else chosen.batch
    return Detector(name, target, loaded.extract, loaded.weights_sha256, batch)


def check_weights(name: str, weights: str | None) -> dict[str, str]:
    """The options of a detector for which a file of weights was given, or none.

    Raises:
        UserError: the detector has no such option.
    """
    if weights is None:
        return {}
    if not row(name).has_weights:
        raise UserError(f"--weights={weights}: detector {name!r} has its own weights, or none")
    return {"weights": weights}
