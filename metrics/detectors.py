"""The table of detectors, which turn uint8 images into the features that a metric compares.

No torch here, so that `--help` can list them; a row's function is imported when it is loaded.
A number means nothing without its detector, so the names of the numbers are made here too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch_utils.registry import Row, lookup

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class DetectorRow(Row):
    """One row of the table; its target is a function `load(device, **options)`.

    It returns the detector's `extract`.

    Attributes:
        classifies: whether it gives class probabilities, and so a classifier score.
        is_fid: whether its Frechet distance is what the field calls FID (Inception only).
    """

    classifies: bool = False
    is_fid: bool = False


DETECTORS: dict[str, DetectorRow] = {
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
        probabilities: [N, K] class probabilities, or None if the detector has no classes.
    """

    features: "torch.Tensor"
    probabilities: "torch.Tensor | None" = None


@dataclass(frozen=True)
class Detector:
    """A loaded detector: call it with uint8 images [N, C, H, W] on any device.

    Attributes:
        name: its name in `DETECTORS`.
        device: where it computes.
        extract: uint8 [N, C, H, W] on `device` -> `Features`; raises UserError for images of a
            size or channel count that it does not take.
    """

    name: str
    device: "torch.device"
    extract: "Callable[[torch.Tensor], Features]"

    def __call__(self, images: "torch.Tensor") -> Features:
        """Compute the features of uint8 images [N, C, H, W]."""
        assert images.ndim == 4, images.shape
        assert str(images.dtype) == "torch.uint8", images.dtype
        from torch_utils.devices import upload

        return self.extract(upload(images, self.device))


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
    return Detector(name, target, chosen.load()(target, **options))


def distance_name(name: str) -> str:
    """The name under which a Frechet distance of this detector's features may be printed."""
    return "FID" if row(name).is_fid else f"frechet distance ({name})"


def score_name(name: str) -> str:
    """The name under which a score of this detector's probabilities may be printed."""
    return "IS" if row(name).is_fid else f"classifier score ({name})"
