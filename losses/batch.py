"""The data that objectives pass around: a batch, its random draws, the noised batch, the values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from diffusion.denoiser import ConditionalDenoiser, residual
from diffusion.preconditioning import broadcast_sigma


@dataclass(frozen=True)
class Batch:
    """One micro-batch of training data on the compute device.

    Attributes:
        images: clean images y in [-1, 1], [N, C, H, W].
        labels: one-hots or vectors, [N, label_dim]; None for unconditional training.
        label_mask: bool [N]; False trains that sample on the null label. None keeps all labels.
        augment_labels: what augmentation did, [N, augment_dim]; None without augmentation.
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
    """Sources of randomness of one micro-batch, and its place in the step's global batch.

    Attributes:
        step: the same for every micro-batch of a step; quantities of the global batch.
        micro: this micro-batch's own; everything else.
        first: index of its first sample in the global batch.
        total: size of the global batch; None if the micro-batch is all of it.
    """

    step: torch.Generator
    micro: torch.Generator
    first: int = 0
    total: int | None = None


@dataclass(frozen=True)
class Draws:
    """Everything random in one evaluation of an objective, as plain tensors.

    Attributes:
        sigma: noise levels, [N].
        noise: unit normals, [N, C, H, W].
        perturbation: added to the noise of the network's input, [N, C, H, W]; None adds nothing.
        terms: term -> what it drew for itself.
    """

    sigma: Tensor
    noise: Tensor
    perturbation: Tensor | None = None
    terms: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class NoisedBatch:
    """The one noised evaluation that all terms share.

    Attributes:
        y: clean images, [N, C, H, W].
        n: unit normal noise.
        sigma: noise levels, [N].
        x: the network's input, y + sigma n, with the perturbation if there is one.
        denoised: D(x, sigma).
        residual: D - y, computed without cancellation where the denoiser can.
    """

    y: Tensor
    n: Tensor
    sigma: Tensor
    x: Tensor
    denoised: Tensor
    residual: Tensor


@dataclass(frozen=True)
class Points:
    """Noisy images at which the model under training is evaluated.

    Attributes:
        x: noisy images, [M, C, H, W].
        sigma: noise levels, [M].
        conditions: labels, label_mask and augment_labels as a denoiser takes them.
    """

    x: Tensor
    sigma: Tensor
    conditions: Mapping[str, Tensor | None]

    def first(self, num: int) -> "Points":
        """The first `num` points."""
        conditions = {k: None if v is None else v[:num] for k, v in self.conditions.items()}
        return Points(self.x[:num], self.sigma[:num], conditions)

    @staticmethod
    def joined(sets: Sequence["Points"]) -> "Points":
        """Sets of points one after the other; all or no set has a condition."""
        if len(sets) == 1:
            return sets[0]
        columns = {k: [p.conditions[k] for p in sets] for k in sets[0].conditions}
        conditions = {
            k: None if values[0] is None else torch.cat([v for v in values if v is not None])
            for k, values in columns.items()
        }
        x, sigma = torch.cat([p.x for p in sets]), torch.cat([p.sigma for p in sets])
        return Points(x, sigma, conditions)


@dataclass(frozen=True)
class Context:
    """What a term may use besides the shared evaluation.

    Attributes:
        denoiser: the model under training.
        rollout: the model whose trajectories are followed, without gradient.
        conditions: labels, label_mask and augment_labels of the batch.
        weight: w(sigma).
        extra: D at the points that the term's `extra_points` returned, [M, C, H, W], with
            gradient; None if it asked for no points.
    """

    denoiser: ConditionalDenoiser
    rollout: ConditionalDenoiser
    conditions: Mapping[str, Tensor | None]
    weight: Callable[[Tensor], Tensor]
    extra: Tensor | None = None

    def residual(self, y: Tensor, n: Tensor, sigma: Tensor) -> Tensor:
        """D(y + sigma n, sigma) - y with gradient, [N, C, H, W], by a further network call."""
        x = y + broadcast_sigma(sigma, y) * n
        _, difference = residual(self.denoiser, x, y, n, sigma, **self.conditions)
        return difference


@dataclass
class LossTerms:
    """Values of an objective, per element, before reduction.

    Attributes:
        values: term -> loss times its weight and factor, [n, C, H, W]; n may be smaller than N
            for a term that looks at the first samples of the batch only, and is then averaged
            over those.
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

    def elements(self) -> Tensor:
        """The whole loss per element, [N, C, H, W]; a term over n samples counts N/n times."""
        num = len(self.sigma)
        shape = next(iter(self.values.values())).shape[1:]
        sums = self.sigma.new_zeros(num, *shape)
        for values in self.values.values():
            sums[: len(values)] += values * (num / len(values))
        return sums
