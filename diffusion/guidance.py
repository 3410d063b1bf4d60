"""Guidance: from denoisers and labels to the function denoise(x, sigma) that a sampler calls.

Guidance acts on D, the estimate of the clean image: D_w + s (D_s - D_w) extrapolates from a weak
estimate through a strong one. Both eps = (x - D) / sigma and the mean of a posterior are affine in
D, so guiding eps, the score or the mean with the same scale gives the same result.
A sampler may hand over sigma as a 0-d tensor, to differentiate in it; decisions use its value.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from diffusion.denoiser import ConditionalDenoiser, DenoiseFunction

Limit = Callable[[Tensor], Tensor]  # D -> D with bounded values
QUANTILE = 0.995  # of |D|, at which dynamic clipping clips; Saharia et al. 2022, sec. 2.3

# (clip the two estimates, clip the result)
CLIPS = {
    "none": (False, False),
    "before": (True, False),
    "after": (False, True),
    "both": (True, True),
}


def conditional(denoiser: ConditionalDenoiser, labels: Tensor | None) -> DenoiseFunction:
    """Condition a denoiser on labels, without guidance.

    Args:
        denoiser: the model.
        labels: [N, label_dim], one row a sample; None for an unconditional model.

    Returns:
        denoise(x, sigma) for x [N, C, H, W].
    """

    def denoise(x: Tensor, sigma: float | Tensor) -> Tensor:
        return denoiser(x, sigma, labels)

    return denoise


def static_clip(denoised: Tensor) -> Tensor:
    """Clip an estimate to the data's range, [-1, 1], as the samplers of v-diffusion do."""
    return denoised.clamp(-1, 1)


def dynamic_clip(denoised: Tensor) -> Tensor:
    """Clip each image at a quantile of its own |D|, and scale it back to [-1, 1].

    Saharia et al. 2022 ("Imagen"), sec. 2.3, dynamic thresholding: at s, the quantile or 1 if that
    is larger, and divided by s. Strong guidance saturates fewer pixels than with `static_clip`.

    Args:
        denoised: D, [N, C, H, W].
    """
    size = torch.quantile(denoised.abs().flatten(1), QUANTILE, dim=1).clamp(min=1)
    bound = size.reshape(-1, *[1] * (denoised.ndim - 1))
    return denoised.clamp(-bound, bound) / bound


def clipped(denoise: DenoiseFunction, limit: Limit = static_clip) -> DenoiseFunction:
    """Clip the estimate of every call, by `static_clip` or `dynamic_clip`."""

    def inside(x: Tensor, sigma: float | Tensor) -> Tensor:
        return limit(denoise(x, sigma))

    return inside


def classifier_free(
    denoiser: ConditionalDenoiser,
    labels: Tensor,
    *,
    scale: float,
    interval: tuple[float, float] = (0.0, math.inf),
    clip: str = "none",
    limit: Limit = static_clip,
    split: bool = False,
) -> DenoiseFunction:
    """Guide a model by itself without its labels. Ho and Salimans 2022, Eq. 6, with s = 1 + w.

    D = D_u + s (D_c - D_u), D_c with the labels, D_u with the null label: 0 is unconditional, 1
    conditional, each by one plain call. Outside the interval the model is conditional:
    Kynkaanniemi et al. 2024, "Applying Guidance in a Limited Interval".

    Args:
        denoiser: the model, trained with labels and with the null label.
        labels: [N, label_dim], one row a sample.
        scale: s.
        interval: (low, high): guide where low < sigma <= high.
        clip: what to clip to [-1, 1]: none; before, D_c and D_u; after, D; or both. The result of
            a single call is clipped unless this is none.
        limit: how to clip, `static_clip` or `dynamic_clip`.
        split: two calls instead of one on a doubled batch: half the memory.

    Returns:
        denoise(x, sigma) for x [N, C, H, W].
    """

    def without_labels(x: Tensor, sigma: float | Tensor) -> Tensor:
        mask = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        return denoiser(x, sigma, labels, mask)

    def doubled(x: Tensor, sigma: float | Tensor) -> tuple[Tensor, Tensor]:
        has_label = torch.arange(2 * len(x), device=x.device) < len(x)
        both = denoiser(torch.cat([x, x]), sigma, torch.cat([labels, labels]), has_label)
        return both[: len(x)], both[len(x) :]

    pair = None if split else doubled
    plain = conditional(denoiser, labels)
    return _extrapolated(plain, without_labels, pair, scale, interval, clip, limit)


def autoguidance(
    denoise: DenoiseFunction,
    guide: DenoiseFunction,
    *,
    scale: float,
    interval: tuple[float, float] = (0.0, math.inf),
    clip: str = "none",
    limit: Limit = static_clip,
) -> DenoiseFunction:
    """Guide a model by a worse one. Karras et al. 2024, "Guiding a Diffusion Model with a Bad
    Version of Itself", sec. 4.

    D = D_g + s (D - D_g): 0 is the guide alone, 1 the model alone, each by one plain call.

    Args:
        denoise: the model.
        guide: a smaller, or less trained, or unconditional one of the same data.
        scale, interval, clip, limit: as in `classifier_free`.

    Returns:
        denoise(x, sigma) for x [N, C, H, W].
    """
    return _extrapolated(denoise, guide, None, scale, interval, clip, limit)


def _extrapolated(
    strong: DenoiseFunction,
    weak: DenoiseFunction,
    pair: Callable[[Tensor, float | Tensor], tuple[Tensor, Tensor]] | None,
    scale: float,
    interval: tuple[float, float],
    clip: str,
    limit: Limit,
) -> DenoiseFunction:
    """weak + scale (strong - weak); `pair` gives both at once, None calls one after the other."""
    clip_before, clip_after = CLIPS[clip]
    low, high = interval

    def bounded(denoised: Tensor, is_clipped: bool) -> Tensor:
        return limit(denoised) if is_clipped else denoised

    def denoise(x: Tensor, sigma: float | Tensor) -> Tensor:
        if scale == 1 or not low < float(sigma) <= high:
            return bounded(strong(x, sigma), clip_before or clip_after)
        if scale == 0:
            return bounded(weak(x, sigma), clip_before or clip_after)
        near, far = pair(x, sigma) if pair is not None else (strong(x, sigma), weak(x, sigma))
        near, far = bounded(near, clip_before), bounded(far, clip_before)
        return bounded(far + scale * (near - far), clip_after)

    return denoise
