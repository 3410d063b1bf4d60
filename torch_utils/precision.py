"""Precision of networks: which one a device is fast in, and the context that computes in it."""

import contextlib
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path

import torch

AUTO = "auto"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_AMPERE = (8, 0)  # the first compute capability with bf16 in its matrix units
_CPU_INFO = Path("/proc/cpuinfo")


@cache
def has_fast_bf16() -> bool:
    """Whether this CPU multiplies bf16 in hardware; False on systems without /proc."""
    words = _CPU_INFO.read_text(encoding="utf-8").split() if _CPU_INFO.exists() else []
    return "avx512_bf16" in words or "amx_bf16" in words


def fast_precision(device: torch.device) -> str:
    """bf16 where the device multiplies it in hardware, else fp32."""
    if device.type == "cuda":
        is_fast = torch.cuda.get_device_capability(device) >= _AMPERE
    else:
        is_fast = device.type == "cpu" and has_fast_bf16()
    return "bf16" if is_fast else "fp32"


def resolve_precision(name: str, device: torch.device) -> str:
    """fp32, bf16 or fp16: what a precision means on a device, `auto` included."""
    assert name in DTYPES or name == AUTO, name
    return fast_precision(device) if name == AUTO else name


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a network runs in fp32, bf16 or fp16; nothing for fp32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=DTYPES[precision])
