"""Augmentation of training batches: its part of the config, and its randomness."""

from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field, model_validator

from data.augment import Augmentations, apply, draw, edm, flips, label_dim
from losses.batch import Batch
from torch_utils.sections import Section


class AugmentConfig(Section):
    """How training images are augmented; see `data.augment`.

    Attributes:
        p: probability of each augmentation of EDM's set; 0 turns all of them off, mirroring, too.
        set: edm mirrors half of the images, does five other things with probability p, and tells
            the network by augmentation labels; flips mirrors half of the images without labels,
            for networks that do not take them.
    """

    p: float = Field(default=0.0, ge=0, le=1)
    set: Literal["edm", "flips"] = "edm"

    @model_validator(mode="after")
    def _consistent(self) -> "AugmentConfig":
        if self.set == "flips" and self.p:
            raise ValueError("set: flips mirrors half of the images: leave p out, or use set: edm")
        return self

    @property
    def settings(self) -> Augmentations | None:
        """The augmentations; None if images stay as they are."""
        if self.set == "flips":
            return flips()
        return edm(self.p) if self.p else None

    @property
    def augment_dim(self) -> int:
        """Width of the labels that the network takes."""
        if self.set == "flips" or self.settings is None:
            return 0
        return label_dim(self.settings)


def augmented(batch: Batch, config: AugmentConfig, seed: int) -> Batch:
    """Augment one micro-batch.

    Args:
        batch: on any device.
        config: of the run.
        seed: the micro-batch's own, of a stream that nothing else draws from.

    Returns:
        The batch with augmented images, and with augmentation labels if the network takes them.
    """
    settings = config.settings
    if settings is None:
        return batch
    params = draw(torch.Generator().manual_seed(seed), len(batch.images), settings)
    images, labels = apply(batch.images, params)
    return replace(batch, images=images, augment_labels=labels if config.augment_dim else None)
