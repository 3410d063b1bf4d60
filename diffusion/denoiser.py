"""The denoiser: a raw network and its preconditioning as one module, D(x, sigma) ~ E[y | x].

Karras et al. 2022 ("EDM"), Eq. 7. Losses and samplers see nothing below this line.
"""

from typing import Protocol

import torch
from torch import Tensor, nn

from diffusion.preconditioning import Preconditioning, broadcast_sigma


class DenoiseFunction(Protocol):
    """What a sampler calls: x [N, C, H, W] and a noise level in, an estimate of E[y | x] out."""

    def __call__(self, x: Tensor, sigma: float) -> Tensor: ...


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


class Denoiser(nn.Module):
    """D(x, sigma) = c_skip x + c_out F(c_in x, c_noise).

    Only c_in x is cast to the network's dtype; the sum is taken in the dtype of x, which solvers
    keep in float64.

    Attributes:
        model: the raw network.
        preconditioning: scalings and the range of noise levels.
        img_channels, img_resolution: shape of an image, channels and (height, width).
        label_dim: width of the label vector; 0 for an unconditional model.
        u: the noise levels of a discrete model, float32, under their published name; else None.
    """

    u: Tensor | None

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
        levels = preconditioning.levels
        self.register_buffer("u", torch.tensor(levels, dtype=torch.float32) if levels else None)

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
        """F(c_in x, c_noise), the image's channels, in the dtype of x; sigma [N or 1, 1, 1, 1]."""
        dtype = next(self.model.parameters()).dtype
        c_noise = self.preconditioning.c_noise(sigma, self.u).flatten().to(dtype)
        c_in = self.preconditioning.c_in(sigma)
        conditions = c_noise.expand(x.shape[0]), labels, label_mask, augment_labels
        raw: Tensor = self.model((c_in * x).to(dtype), *conditions)
        return raw[:, : self.img_channels].to(x.dtype)

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
        c_skip, c_out = self.preconditioning.coefficients(level)
        return c_skip * x + c_out * self._raw(x, level, labels, label_mask, augment_labels)

    def residual(
        self,
        y: Tensor,
        n: Tensor,
        sigma: Tensor | float,
        labels: Tensor | None = None,
        label_mask: Tensor | None = None,
        augment_labels: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Denoise x = y + sigma n and compare with y.

        The difference is taken between network output and target, c_out (F - F*): at small sigma
        D and y agree in nearly all digits and D - y would keep only their rounding errors.

        Args:
            y: clean images, [N, C, H, W].
            n: unit normal noise of the same shape.
            sigma: noise level, a number or [N].
            labels, label_mask, augment_labels: as in `forward`.

        Returns:
            (D, D - y), both of the shape of y.
        """
        level = broadcast_sigma(sigma, y)
        x = y + level * n
        c_skip, c_out = self.preconditioning.coefficients(level)
        raw = self._raw(x, level, labels, label_mask, augment_labels)
        difference = c_out * (raw - self.preconditioning.target(y, n, level))
        return c_skip * x + c_out * raw, difference


def residual(
    denoiser: ConditionalDenoiser, y: Tensor, n: Tensor, sigma: Tensor, **conditions: Tensor | None
) -> tuple[Tensor, Tensor]:
    """(D, D - y) at x = y + sigma n for any denoiser, closed-form ones included.

    A network-backed `Denoiser` uses its own, more accurate form.
    """
    if isinstance(denoiser, Denoiser):
        return denoiser.residual(y, n, sigma, **conditions)
    denoised = denoiser(y + broadcast_sigma(sigma, y) * n, sigma, **conditions)
    return denoised, denoised - y


def device_of(denoiser: nn.Module) -> torch.device:
    """The device on which a denoiser's weights lie."""
    return next(denoiser.parameters()).device
