"""The denoiser: a raw network and its preconditioning as one module, D(x, sigma) ~ E[y | x].

Karras et al. 2022 ("EDM"), Eq. 7. Losses and samplers know a model only by its denoiser.
"""

from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode

from diffusion.preconditioning import Preconditioning, broadcast_sigma
from diffusion.tables import Table
from torch_utils.errors import UserError


class DenoiseFunction(Protocol):
    """What a sampler calls: it maps x [N, C, H, W] and a noise level to an estimate of E[y | x].

    The noise level is a number. A solver that takes a derivative in sigma passes a 0-d tensor.
    """

    def __call__(self, x: Tensor, sigma: float | Tensor) -> Tensor: ...


class ConditionalDenoiser(Protocol):
    """What losses and guidance call. `Denoiser` is one with a network; tests have closed forms."""

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

    Only c_in x is cast to the network's dtype. The sum is taken in the dtype of x, which is float64
    in solvers.

    Attributes:
        model: the raw network.
        preconditioning: scalings and the range of noise levels.
        img_channels, img_resolution: shape of an image, channels and (height, width).
        label_dim: width of the label vector; 0 for an unconditional model.
        u: the noise levels of improved DDPM, float32, decreasing to 0, under their published name;
            None for other models. Weights that are loaded bring theirs, which then count.
        log_levels: ln(sigma) of a discrete schedule's levels, float64; None for a continuous
            schedule. It is not part of the state dict.
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
            levels = _published(table)
        self.register_buffer("u", levels)

    def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
        super()._load_from_state_dict(*args, **options)
        if self.u is not None and not self.u.is_meta:
            self._use_levels(self.u)

    def _use_levels(self, u: Tensor) -> None:
        """Count in the levels of a published table, if they are not those of the schedule."""
        assert self.preconditioning.table is not None, "only a table has levels"
        if torch.equal(u.float().cpu(), _published(self.preconditioning.table)):
            return
        levels = u.double().cpu().numpy()
        if not np.isfinite(levels).all() or not (np.diff(levels) < 0).all() or levels[-1] != 0:
            raise UserError("the noise levels u of the weights do not fall to 0: they are damaged")
        table = Table(levels[-2::-1])
        self.preconditioning = replace(self.preconditioning, schedule=table)
        self.log_levels = table.log_levels(u)

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
        dtype = self._input_dtype
        c_noise = self.preconditioning.c_noise(sigma, self.log_levels).flatten().to(dtype)
        c_in = self.preconditioning.c_in(sigma)
        conditions = c_noise.expand(x.shape[0]), labels, label_mask, augment_labels
        return self._network((c_in * x).to(dtype), *conditions).to(x.dtype)

    @property
    def _input_dtype(self) -> torch.dtype:
        """The dtype in which the network is given images and conditions."""
        return next(self.model.parameters()).dtype

    def _network(self, x: Tensor, *conditions: Tensor | None) -> Tensor:
        """F, called in the network's own precision."""
        raw: Tensor = self.model(x, *conditions)
        return raw

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
            augment_labels: augmentation parameters, [N, augment_dim]; None without augmentation.

        Returns:
            D, in the shape and dtype of x.
        """
        level = broadcast_sigma(sigma, x)
        raw = self._raw(x, level, labels, label_mask, augment_labels)
        return self.preconditioning.denoised(x, raw, level)

    def residual(
        self,
        x: Tensor,
        y: Tensor,
        n: Tensor,
        sigma: Tensor | float,
        labels: Tensor | None = None,
        label_mask: Tensor | None = None,
        augment_labels: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Denoise x and compare with clean images y.

        The difference is taken between network output and target, c_out (F - F*): at small sigma
        D and y agree in nearly all digits and D - y would keep only their rounding errors.

        Args:
            x: noisy images, [M, C, H, W]; the first N <= M belong to y.
            y: clean images, [N, C, H, W].
            n: unit normal noise of the shape of y. The target is that of y + sigma n, also where
                x has a further perturbation: Ning et al. 2023 ("DDPM-IP"), Algorithm 1.
            sigma: noise level, a number or [M].
            labels: as in `forward`.
            label_mask: as in `forward`.
            augment_labels: as in `forward`.

        Returns:
            D, [M, C, H, W], and D - y, [N, C, H, W].
        """
        level = broadcast_sigma(sigma, x)
        raw = self._raw(x, level, labels, label_mask, augment_labels)
        return self.preconditioning.denoised_and_error(x, raw, y, n, level)


def _published(table: Table) -> Tensor:
    """The levels as published tables have them: float32, from the largest to the least, then 0."""
    return torch.tensor([*table.levels[::-1], 0.0], dtype=torch.float32)


def residual(
    denoiser: ConditionalDenoiser,
    x: Tensor,
    y: Tensor,
    n: Tensor,
    sigma: Tensor,
    **conditions: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """`Denoiser.residual` for every denoiser; one without a network is taken to predict y."""
    if isinstance(denoiser, Denoiser):
        return denoiser.residual(x, y, n, sigma, **conditions)
    denoised = denoiser(x, sigma, **conditions)
    return denoised, denoised[: len(y)] - y


def device_of(denoiser: nn.Module) -> torch.device:
    """The device on which a denoiser's weights lie."""
    return next(denoiser.parameters()).device


def is_plain_call(x: Tensor, sigma: Tensor | float) -> bool:
    """Whether a call computes values of one noise level and nothing else.

    Then nothing tells it from another that has the same result: no derivative or gradients are
    taken, autocast keeps no copies of the weights, and no mode looks at its operations.
    """
    is_one_level = not isinstance(sigma, Tensor) or sigma.ndim == 0
    is_watched = _get_current_dispatch_mode() is not None
    if not is_one_level or is_watched or torch.is_grad_enabled():
        return False
    if torch.is_autocast_enabled(x.device.type):
        return False
    return forward_ad.unpack_dual(x).tangent is None  # type: ignore[no-untyped-call]
