"""DDPM++ written plainly: one function over a state dict, NCHW, explicit softmax attention.

The yardstick of `bench_networks.py`: the same arithmetic as `networks.song` without any of its
machinery. Song et al. 2021, appendix H, in the form of Karras et al. 2022, appendix F.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]


def reference_forward(
    state: State, x: Tensor, c_noise: Tensor, class_labels: Tensor | None = None
) -> Tensor:
    """Evaluate DDPM++ (standard encoder and decoder, box filter, positional embedding).

    Args:
        state: state dict of a `ddpmpp` network, in the order of its layers.
        x: [N, C, H, W].
        c_noise: [N].
        class_labels: [N, label_dim], or None.

    Returns:
        [N, C, H, W].
    """
    emb = _embedding(state, c_noise, class_labels)
    skips: list[Tensor] = []
    for name in _entries(state, "enc"):
        x = _conv(state, name, x) if name.endswith("_conv") else _block(state, name, x, emb)
        skips.append(x)
    for name in _entries(state, "dec"):
        if name.endswith("_aux_norm"):
            x = F.silu(_norm(state, name, x))
        elif name.endswith("_aux_conv"):
            x = _conv(state, name, x)
        else:
            if state[f"{name}.norm0.weight"].shape[0] != x.shape[1]:
                x = torch.cat([x, skips.pop()], dim=1)
            x = _block(state, name, x, emb)
    return x


def _entries(state: State, part: str) -> list[str]:
    """`enc.32x32_conv`, `enc.32x32_block0`, ... in order."""
    names = [".".join(key.split(".")[:2]) for key in state if key.startswith(f"{part}.")]
    return list(dict.fromkeys(names))


def _embedding(state: State, c_noise: Tensor, class_labels: Tensor | None) -> Tensor:
    half = state["map_layer0.weight"].shape[1] // 2
    freqs = 10000 ** -(torch.arange(half, device=c_noise.device) / (half - 1))
    phase = c_noise[:, None] * freqs
    emb = torch.cat([phase.sin(), phase.cos()], dim=1)
    if "map_label.weight" in state:
        label_dim = state["map_label.weight"].shape[1]
        labels = emb.new_zeros(1, label_dim) if class_labels is None else class_labels
        emb = emb + _linear(state, "map_label", labels * math.sqrt(label_dim))
    for layer in ("map_layer0", "map_layer1"):
        emb = F.silu(_linear(state, layer, emb))
    return emb


def _linear(state: State, name: str, x: Tensor) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def _conv(state: State, name: str, x: Tensor) -> Tensor:
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)


def _norm(state: State, name: str, x: Tensor) -> Tensor:
    groups = min(32, x.shape[1] // 4)
    return F.group_norm(x, groups, state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-6)


def _resample(name: str, x: Tensor) -> Tensor:
    if name.endswith("_down"):
        return F.avg_pool2d(x, 2)
    return F.interpolate(x, scale_factor=2, mode="nearest") if name.endswith("_up") else x


def _block(state: State, name: str, x: Tensor, emb: Tensor) -> Tensor:
    h = _conv(state, f"{name}.conv0", _resample(name, F.silu(_norm(state, f"{name}.norm0", x))))
    h = h + _linear(state, f"{name}.affine", emb)[:, :, None, None]
    h = _conv(state, f"{name}.conv1", F.silu(_norm(state, f"{name}.norm1", h)))
    if f"{name}.skip.weight" in state:
        x = _conv(state, f"{name}.skip", _resample(name, x))
    y = (h + x) * math.sqrt(0.5)
    if f"{name}.qkv.weight" not in state:
        return y
    n, c, height, width = y.shape
    qkv = _conv(state, f"{name}.qkv", _norm(state, f"{name}.norm2", y)).reshape(n, c, 3, -1)
    q, k, v = qkv.unbind(2)
    weights = torch.softmax(q.mT @ (k / math.sqrt(c)), dim=-1)  # [N, L, L]
    attended = (weights @ v.mT).mT.reshape(n, c, height, width)
    return (y + _conv(state, f"{name}.proj", attended)) * math.sqrt(0.5)
