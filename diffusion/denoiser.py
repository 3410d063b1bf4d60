"""The denoiser: a raw network and its preconditioning as one module, D(x, sigma) ~ E[y | x].

Karras et al. 2022 ("EDM"), Eq. 7. Losses and samplers see nothing below this line.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from diffusion.preconditioning import Preconditioning, broadcast_sigma


class DenoiseFunction(Protocol):
    """What a sampler calls: x [N, C, H, W] and a noise level in, an estimate of E[y | x] out.

    The noise level is a number, or a tensor without dimensions where it is differentiated in.
    """

    def __call__(self, x: Tensor, sigma: float | Tensor) -> Tensor: ...


class ConditionalDenoiser(Protocol):
    """What losses and guidance call; `Denoiser` is the one backed by a network."""

    def __call__(
        self,
        x: Tensor,
        sigma: Tensor | float,
        labels: Tensor | None = None,
        label_mask: Tensor | None = None,
        augment_labels: Tensor | None = None,
    ) -> Tensor: ...


@dataclass(frozen=True)
class Points:
    """Noisy images to evaluate along with others, in one call of the network.

    Attributes:
        x: noisy images, [M, C, H, W].
        sigma: noise levels, [M].
        conditions: labels, label_mask and augment_labels as a denoiser takes them; None where the
            others have None.
    """

    x: Tensor
    sigma: Tensor
    conditions: Mapping[str, Tensor | None]


class Denoiser(nn.Module):
    """D(x, sigma) = c_skip x + c_out F(c_in x, c_noise).

    Only c_in x is cast to the network's dtype; the sum is taken in the dtype of x, which solvers
    keep in float64.

    Attributes:
        model: the raw network.
        preconditioning: scalings and the range of noise levels.
        img_channels, img_resolution: shape of an image, channels and (height, width).
        label_dim: width of the label vector; 0 for an unconditional model.
        u: the noise levels of improved DDPM, float32, decreasing to 0, under their published name;
            None for others.
        log_levels: ln(sigma) of a discrete schedule's levels, float64, not part of the state; None
            for others.
    """

    u: Tensor | None
    log_levels: Tensor | None

    def __init__(
        self,
        model: nn.Module,
        preconditioning: Preconditioning,
        *,
        img_resolution: tuple[int, int],
        img_channels: int,
        label_dim: int = 0,
    ) -> None:
        super().__init__()
        self.model = model
        self.preconditioning = preconditioning
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.label_dim = label_dim
        table = preconditioning.table
        log_levels = None if table is None else table.log_levels(torch.empty(0))
        self.register_buffer("log_levels", log_levels, persistent=False)
        levels = None
        if preconditioning.has_table:
            assert table is not None
            levels = torch.tensor([*table.levels[::-1], 0.0], dtype=torch.float32)
        self.register_buffer("u", levels)

    @property
    def sigma_min(self) -> float:
        """Smallest noise level that the model accepts."""
        return self.preconditioning.sigma_min

    @property
    def sigma_max(self) -> float:
        """Largest noise level that the model accepts."""
        return self.preconditioning.sigma_max

    def round_sigma(self, sigma: float) -> float:
        """The nearest noise level that the model knows."""
        return self.preconditioning.round_sigma(sigma)

    def prior_scale(self, sigma: float) -> float:
        """Factor from unit latents to the state at noise level `sigma`."""
        return self.preconditioning.prior_scale(sigma)

    def _raw(
        self,
        x: Tensor,
        sigma: Tensor,
        labels: Tensor | None,
        label_mask: Tensor | None,
        augment_labels: Tensor | None,
    ) -> Tensor:
        """F(c_in x, c_noise) in the dtype of x; sigma [N or 1, 1, 1, 1]."""
        dtype = next(self.model.parameters()).dtype
        c_noise = self.preconditioning.c_noise(sigma, self.log_levels).flatten().to(dtype)
        c_in = self.preconditioning.c_in(sigma)
        conditions = c_noise.expand(x.shape[0]), labels, label_mask, augment_labels
        raw: Tensor = self.model((c_in * x).to(dtype), *conditions)
        return raw.to(x.dtype)

    def forward(
        self,
        x: Tensor,
        sigma: Tensor | float,
        labels: Tensor | None = None,
        label_mask: Tensor | None = None,
        augment_labels: Tensor | None = None,
    ) -> Tensor:
        """Estimate the clean image.

        Args:
            x: noisy images, [N, C, H, W].
            sigma: noise level, a number or [N].
            labels: class one-hots or vectors, [N, label_dim]; None for the null label.
            label_mask: bool [N]; False replaces that sample's label by the null label.
            augment_labels: augmentation parameters, [N, augment_dim]; None for none.

        Returns:
            D, in the shape and dtype of x.
        """
        level = broadcast_sigma(sigma, x)
        raw = self._raw(x, level, labels, label_mask, augment_labels)
        return self.preconditioning.denoised(x, raw, level)

    def residual(
        self,
        y: Tensor,
        n: Tensor,
        sigma: Tensor | float,
        labels: Tensor | None = None,
        label_mask: Tensor | None = None,
        augment_labels: Tensor | None = None,
        perturbation: Tensor | None = None,
        also: Points | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Denoise x = y + sigma n and compare with y.

        The difference is taken between network output and target, c_out (F - F*): at small sigma
        D and y agree in nearly all digits and D - y would keep only their rounding errors.

        Args:
            y: clean images, [N, C, H, W].
            n: unit normal noise of the same shape.
            sigma: noise level, a number or [N].
            labels, label_mask, augment_labels: as in `forward`.
            perturbation: added to the noise of the network's input but not to its target, of the
                shape of y. Ning et al. 2023 ("DDPM-IP"), Algorithm 1.
            also: further points to denoise in the same call.

        Returns:
            (D, D - y, D at the further points or None), the first two of the shape of y; with a
            perturbation, D - y is c_out (F - F*) alone.
        """
        num, level = len(y), broadcast_sigma(sigma, y)
        x = y + level * (n if perturbation is None else n + perturbation)
        conditions = {
            "labels": labels,
            "label_mask": label_mask,
            "augment_labels": augment_labels,
        }
        if also is not None:
            x, conditions = torch.cat([x, also.x]), joined(conditions, also.conditions)
            level = torch.cat([level.expand(num, 1, 1, 1), broadcast_sigma(also.sigma, y)])
        raw, scalings = self._raw(x, level, **conditions), self.preconditioning
        denoised = scalings.denoised(x, raw, level)
        difference = scalings.error(raw[:num], y, n, level[:num])
        return denoised[:num], difference, None if also is None else denoised[num:]


def joined(
    first: Mapping[str, Tensor | None], second: Mapping[str, Tensor | None]
) -> dict[str, Tensor | None]:
    """The conditions of two sets of samples, one after the other; None stays None."""
    both = {key: (value, second.get(key)) for key, value in first.items()}
    return {
        key: None if a is None or b is None else torch.cat([a, b]) for key, (a, b) in both.items()
    }


def residual(
    denoiser: ConditionalDenoiser,
    y: Tensor,
    n: Tensor,
    sigma: Tensor,
    perturbation: Tensor | None = None,
    also: Points | None = None,
    **conditions: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """(D, D - y) at x = y + sigma n for any denoiser, closed-form ones included, in one call.

    A network-backed `Denoiser` uses its own, more accurate form; others count as networks that
    predict y. The third result is D at the points of `also`, or None.
    """
    if isinstance(denoiser, Denoiser):
        return denoiser.residual(y, n, sigma, **conditions, perturbation=perturbation, also=also)
    noise, num = n if perturbation is None else n + perturbation, len(y)
    x = y + broadcast_sigma(sigma, y) * noise
    if also is None:
        denoised = denoiser(x, sigma, **conditions)
        return denoised, denoised - y, None
    levels = torch.cat([sigma.expand(num), also.sigma])
    denoised = denoiser(torch.cat([x, also.x]), levels, **joined(conditions, also.conditions))
    return denoised[:num], denoised[:num] - y, denoised[num:]


def device_of(denoiser: nn.Module) -> torch.device:
    """The device on which a denoiser's weights lie."""
    return next(denoiser.parameters()).device
