"""DDPM++ and EDM's denoiser written plainly: functions over a state dict, NCHW, float32.

The network of the yardstick. It computes what `networks.song` computes, operation by operation as
the published implementation does, with sums in place where it has them so, and imports nothing of
ours. Song et al. 2021, appendix H, in the form of Karras et al. 2022 ("EDM"), appendix F.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

State = Mapping[str, Tensor]
SIGMA_DATA = 0.5
# where a level's entries other than its numbered blocks are: before those, or behind all
_PLACES = {"conv": 0, "down": 0, "up": 0, "in0": 0, "in1": 1, "aux_norm": 1000, "aux_conv": 1001}


def reference_forward(
    state: State,
    x: Tensor,
    c_noise: Tensor,
    class_labels: Tensor | None = None,
    *,
    dropout: float = 0.0,
) -> Tensor:
    """Evaluate DDPM++ (standard encoder and decoder, positional embedding).

    Args:
        state: state dict of a `ddpmpp` network.
        x: [N, C, H, W].
        c_noise: [N], or [1] for all.
        class_labels: [N, label_dim], or None.
        dropout: probability that a feature is dropped; 0 outside training.

    Returns:
        [N, C, H, W].
    """
    emb = _embedding(state, c_noise, class_labels)
    skips: list[Tensor] = []
    for name in _entries(state, "enc"):
        is_conv = name.endswith("_conv")
        x = _conv(state, name, x) if is_conv else _block(state, name, x, emb, dropout)
        skips.append(x)
    for name in _entries(state, "dec"):
        if name.endswith("_aux_norm"):
            x = F.silu(_norm(state, name, x))
        elif name.endswith("_aux_conv"):
            x = _conv(state, name, x)
        else:
            if state[f"{name}.norm0.weight"].shape[0] != x.shape[1]:
                x = torch.cat([x, skips.pop()], dim=1)
            x = _block(state, name, x, emb, dropout)
    return x


def reference_denoiser(
    state: State,
    x: Tensor,
    sigma: Tensor,
    class_labels: Tensor | None = None,
    *,
    dropout: float = 0.0,
) -> Tensor:
    """D(x, sigma) with EDM's preconditioning, in float32 (EDM, Eq. 7 and Table 1).

    Args:
        state: as of `reference_forward`.
        x: noisy images, [N, C, H, W].
        sigma: noise levels, [N, 1, 1, 1], or a scalar for all.
        class_labels, dropout: as of `reference_forward`.

    Returns:
        float32, [N, C, H, W].
    """
    x, sigma = x.to(torch.float32), sigma.to(torch.float32).reshape(-1, 1, 1, 1)
    total = sigma**2 + SIGMA_DATA**2
    c_skip = SIGMA_DATA**2 / total
    c_out = sigma * SIGMA_DATA / total.sqrt()
    c_in = 1 / total.sqrt()
    c_noise = (sigma.log() / 4).flatten()
    raw = reference_forward(state, c_in * x, c_noise, class_labels, dropout=dropout)
    return c_skip * x + c_out * raw.to(torch.float32)


def without_prefix(state: State, prefix: str = "model.") -> dict[str, Tensor]:
    """The network's own state dict, of that of a denoiser."""
    return {name.removeprefix(prefix): value for name, value in state.items()}


def label_dim_of(state: State) -> int:
    """Width of the class labels; 0 for an unconditional network."""
    return state["map_label.weight"].shape[1] if "map_label.weight" in state else 0


def image_shape_of(state: State) -> tuple[int, int, int]:
    """Channels, height and width of the network's (square) images."""
    name = _entries(state, "enc")[0]
    side = int(name.split(".")[1].split("x")[0])
    return state[f"{name}.weight"].shape[1], side, side


def _entries(state: State, part: str) -> list[str]:
    """`enc.32x32_conv`, `enc.32x32_block0`, ... in the order in which they are computed."""
    names = {".".join(key.split(".")[:2]) for key in state if key.startswith(f"{part}.")}

    def place(name: str) -> tuple[int, int]:
        size, kind = name.removeprefix(f"{part}.").split("_", 1)
        height, index = int(size.split("x")[0]), kind.removeprefix("block")
        place_in_level = 2 + int(index) if index.isdigit() else _PLACES[kind]
        return (-height if part == "enc" else height), place_in_level

    return sorted(names, key=place)


def _embedding(state: State, c_noise: Tensor, class_labels: Tensor | None) -> Tensor:
    half = state["map_layer0.weight"].shape[1] // 2
    freqs = 10000 ** -(torch.arange(half, dtype=torch.float32, device=c_noise.device) / (half - 1))
    phase = c_noise.outer(freqs)
    emb = torch.cat([phase.sin(), phase.cos()], dim=1)
    label_dim = label_dim_of(state)
    if label_dim:
        labels = emb.new_zeros(1, label_dim) if class_labels is None else class_labels
        emb = emb + _linear(state, "map_label", labels * math.sqrt(label_dim))
    for layer in ("map_layer0", "map_layer1"):
        emb = F.silu(_linear(state, layer, emb))
    return emb


def _linear(state: State, name: str, x: Tensor) -> Tensor:
    return (x @ state[f"{name}.weight"].t()).add_(state[f"{name}.bias"])


def _conv(state: State, name: str, x: Tensor) -> Tensor:
    """Resample if the layer has a filter for that, convolve if it has weights, bias last."""
    if f"{name}.resample_filter" in state:
        x = _resample(state[f"{name}.resample_filter"], name.split(".")[1], x)
    if f"{name}.weight" not in state:
        return x
    weight = state[f"{name}.weight"]
    x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    return x.add_(state[f"{name}.bias"].reshape(1, -1, 1, 1))


def _resample(kernel: Tensor, entry: str, x: Tensor) -> Tensor:
    """A depthwise convolution of stride 2, transposed where an image grows."""
    channels, padding = x.shape[1], (kernel.shape[-1] - 1) // 2
    if entry.endswith("_up"):
        taps = (kernel * 4).tile([channels, 1, 1, 1])
        return F.conv_transpose2d(x, taps, groups=channels, stride=2, padding=padding)
    taps = kernel.tile([channels, 1, 1, 1])
    return F.conv2d(x, taps, groups=channels, stride=2, padding=padding)


def _norm(state: State, name: str, x: Tensor) -> Tensor:
    groups = min(32, x.shape[1] // 4)
    return F.group_norm(x, groups, state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-6)


def _block(state: State, name: str, x: Tensor, emb: Tensor, dropout: float) -> Tensor:
    h = _conv(state, f"{name}.conv0", F.silu(_norm(state, f"{name}.norm0", x)))
    p = _linear(state, f"{name}.affine", emb)[:, :, None, None]
    h = F.silu(_norm(state, f"{name}.norm1", h.add_(p)))
    h = _conv(state, f"{name}.conv1", F.dropout(h, dropout, training=dropout > 0))
    has_skip = any(f"{name}.skip.{leaf}" in state for leaf in ("weight", "resample_filter"))
    y = h.add_(_conv(state, f"{name}.skip", x) if has_skip else x) * math.sqrt(0.5)
    if f"{name}.qkv.weight" not in state:
        return y
    attended = _attention(_conv(state, f"{name}.qkv", _norm(state, f"{name}.norm2", y)))
    return _conv(state, f"{name}.proj", attended.reshape(y.shape)).add_(y) * math.sqrt(0.5)


def _attention(qkv: Tensor) -> Tensor:
    """One head: queries, keys and values [N, 3 C, H, W], interleaved, to values [N, C, H W]."""
    q, k, v = qkv.reshape(qkv.shape[0], qkv.shape[1] // 3, 3, -1).unbind(2)
    scores = torch.einsum("ncq,nck->nqk", q, k / math.sqrt(k.shape[1]))
    return torch.einsum("nqk,nck->ncq", scores.softmax(dim=2), v)
