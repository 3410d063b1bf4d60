"""The average of models of any kind, with a description of its own."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from diffusion.denoiser import Denoiser
from importers.opening import find_model, open_model, read_model_info
from models.averaging import Source, checked_shares, equal_shares, weighted_sum
from models.snapshot import SnapshotInfo


def averaged(
    models: Sequence[str], shares: Sequence[float] | None = None
) -> tuple[dict[str, Tensor], SnapshotInfo]:
    """Average the weights of models of one config; one of them is in memory at a time.

    Args:
        models: of `find_model`.
        shares: of each, with the sum 1; None for equal ones.

    Returns:
        The weights, and the description: the first model's, with the progress of the furthest.

    Raises:
        UserError: a model cannot be read, they differ in their config, or the shares do not fit.
    """
    num = len(models)
    used = equal_shares(num) if shares is None else checked_shares(shares, num)
    paths = [find_model(text) for text in models]
    infos = [read_model_info(path) for path in paths]
    sources = [
        Source(str(path), info.model, partial(_denoiser, path), share)
        for path, info, share in zip(paths, infos, used, strict=True)
    ]
    of: list[dict[str, Any]] = [
        {"file": path.name, "images": info.images, "share": share}
        for path, info, share in zip(paths, infos, used, strict=True)
    ]
    images = max(info.images for info in infos)
    return weighted_sum(sources), replace(infos[0], images=images, ema={"kind": "mean", "of": of})


def _denoiser(path: Path) -> Denoiser:
    return open_model(path).denoiser
