"""Guidance: from denoisers and labels to the function denoise(x, sigma) that a sampler calls."""

from torch import Tensor

from diffusion.denoiser import ConditionalDenoiser, DenoiseFunction


def conditional(denoiser: ConditionalDenoiser, labels: Tensor | None) -> DenoiseFunction:
    """Condition a denoiser on labels, without guidance.

    Args:
        denoiser: the model.
        labels: [N, label_dim], one row a sample; None for an unconditional model.

    Returns:
        denoise(x, sigma) for x [N, C, H, W].
    """

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return denoiser(x, sigma, labels)

    return denoise
