"""The section `evaluate` of the training config: scores of the average during training."""

from typing import Any

from pydantic import Field, model_validator

from metrics import detectors
from torch_utils.sections import Section


class EvaluateConfig(Section):
    """Scores of snapshots during training. `on` or any key turns them on, `off` turns them off.

    Attributes:
        enabled: whether they are computed.
        every: score each so many snapshots, beginning with the first; the last is always scored.
        ref: what to compare with, as `fid.py --ref`; None for the training data itself.
        num_images: how many images are generated and scored.
        metrics: keys of metrics.table.METRICS; the first one decides which snapshot is best.
        detector: key of metrics.detectors.DETECTORS.
        weights: a file of weights for the detector; None for its own.
        seed: of the first image; the others have the seeds after it.
        batch: images that a process generates at once.
        keep_best: never delete the best-scored snapshot, whatever `run.keep_snapshots` is.
    """

    enabled: bool = False
    every: int = Field(default=1, ge=1)
    ref: str | None = None
    num_images: int = Field(default=5000, ge=2, le=10_000_000)
    metrics: tuple[str, ...] = ("fid",)
    detector: str = detectors.DEFAULT
    weights: str | None = None
    seed: int = Field(default=0, ge=0)
    batch: int = Field(default=64, ge=1)
    keep_best: bool = False

    @model_validator(mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        """`off` and `on`, which YAML reads as truth values, switch the whole section."""
        if isinstance(value, bool):
            return {"enabled": value}
        return {"enabled": True, **value} if isinstance(value, dict) and value else value
