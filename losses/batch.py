"""The data that objectives pass around: a batch, its random draws, the noised batch, the values."""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One micro-batch of training data on the compute device.

    Attributes:
        images: clean images y in [-1, 1], [N, C, H, W].
        labels: one-hots or vectors, [N, label_dim]; None for unconditional training.
        label_mask: bool [N]; False trains that sample on the null label. None keeps all labels.
        augment_labels: what augmentation did, [N, augment_dim]; None for none.
    """

    images: Tensor
    labels: Tensor | None = None
    label_mask: Tensor | None = None
    augment_labels: Tensor | None = None

    def conditions(self) -> dict[str, Tensor | None]:
        """What a denoiser takes beside x and sigma."""
        return {
            "labels": self.labels,
            "label_mask": self.label_mask,
            "augment_labels": self.augment_labels,
        }


@dataclass(frozen=True)
class Generators:
    """Sources of randomness of one micro-batch.

    Attributes:
        step: the same for every micro-batch of a step; quantities of the global batch.
        micro: this micro-batch's own; everything else.
    """

    step: torch.Generator
    micro: torch.Generator


@dataclass(frozen=True)
class Draws:
    """Everything random in one evaluation of an objective, as plain tensors.

    Attributes:
        sigma: noise levels, [N].
        noise: unit normals, [N, C, H, W].
    """

    sigma: Tensor
    noise: Tensor


@dataclass(frozen=True)
class NoisedBatch:
    """The one noised evaluation that all terms share.

    Attributes:
        y: clean images, [N, C, H, W].
        n: unit normal noise.
        sigma: noise levels, [N].
        x: y + sigma n.
        denoised: D(x, sigma).
        residual: D - y, computed without cancellation where the denoiser can.
    """

    y: Tensor
    n: Tensor
    sigma: Tensor
    x: Tensor
    denoised: Tensor
    residual: Tensor


@dataclass
class LossTerms:
    """Values of an objective, per element, before reduction.

    Attributes:
        values: term -> weighted loss [n, C, H, W]; n may be smaller than N for a term that looks
            at a part of the batch only, and is then averaged over that part.
        sigma: noise levels of the whole micro-batch, [N].
        reduction: "sum" or "mean" over channels and pixels.
    """

    values: dict[str, Tensor] = field(default_factory=dict)
    sigma: Tensor = field(default_factory=lambda: torch.empty(0))
    reduction: str = "sum"

    def per_sample(self, term: str) -> Tensor:
        """One term reduced over channels and pixels, [n]."""
        flat = self.values[term].flatten(1)
        return flat.sum(1) if self.reduction == "sum" else flat.mean(1)

    def total(self) -> Tensor:
        """The scalar to minimise: each term's mean over its samples, summed over terms."""
        return torch.stack([self.per_sample(term).mean() for term in self.values]).sum()
