"""Training data, decoded once and resident: a micro-batch is an index_select and a flip.

It lies on the compute device if it fits there, else memory-mapped on the host; the batches are the
same. Randomness of a batch (label dropout) comes from the micro-batch's own generator.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from data.cache import cached_images
from data.convert import as_dataset
from data.dataset import ImageDataset
from losses.batch import Batch
from torch_utils.devices import upload
from torch_utils.memory import available_bytes
from training.config import DataConfig


@dataclass(frozen=True)
class TrainingData:
    """Decoded images and labels.

    Attributes:
        images: uint8 [N, C, H, W], on the compute device or on the host.
        labels: classes int64 [N], or vectors float32 [N, label_dim], or None; beside the images.
        name: the data set's name.
        label_names: a name for each class or element, or None.
        xflip: image N + i is image i mirrored; the length is 2N.
        num_classes: number of classes, if labels are classes.
        label_kind: class, multi_hot (tags) or vector; None without labels.
        device: where batches go; None for the images' device.
        present_classes: the classes that some image has; None if all of them have one, or if labels
            are not classes.
        key: a text that identifies the images and labels, in five parts between slashes: number of
            images, size, kind of labels, checksums of images and of labels. None for data that does
            not come from files.
    """

    images: Tensor
    labels: Tensor | None
    name: str
    label_names: Sequence[str] | None = None
    xflip: bool = False
    num_classes: int = 0
    label_kind: str | None = None
    device: torch.device | None = None
    present_classes: Sequence[int] | None = None
    key: str | None = None

    def __len__(self) -> int:
        return self.images.shape[0] * (2 if self.xflip else 1)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @property
    def label_dim(self) -> int:
        """Width of the labels; 0 if there are no labels."""
        if self.labels is None:
            return 0
        return self.num_classes if self.labels.ndim == 1 else self.labels.shape[1]

    def batch(
        self, indices: np.ndarray, generator: torch.Generator, label_dropout: float = 0.0
    ) -> Batch:
        """Assemble one micro-batch.

        Args:
            indices: which images, int64 [n], below the length.
            generator: the micro-batch's own, on the compute device.
            label_dropout: probability of the null label.

        Returns:
            Images as float32 in [-1, 1], and their labels, on the compute device.
        """
        num = self.images.shape[0]
        index = upload(torch.from_numpy(indices % num), self.images.device)
        device = self.device or self.images.device
        picked = upload(self.images.index_select(0, index), device)
        if self.xflip:  # in bytes, a quarter of the memory of floats
            is_mirrored = upload(torch.from_numpy(indices >= num), device)
            picked = torch.where(is_mirrored[:, None, None, None], picked.flip(3), picked)
        pictures = picked.to(torch.float32).div_(127.5).sub_(1)
        if self.labels is None:
            return Batch(pictures)
        labels = upload(self.labels.index_select(0, index), device)
        if labels.ndim == 1:
            labels = torch.nn.functional.one_hot(labels, self.num_classes).to(torch.float32)
        mask = None
        if label_dropout:
            variate = torch.rand(len(indices), generator=generator, device=generator.device)
            mask = variate >= label_dropout
        return Batch(pictures, labels, mask)

    def is_resident(self, device: torch.device, where: str) -> bool:
        """Whether the images will lie on the GPU; see `placed`."""
        if device.type != "cuda" or where == "cpu":
            return False
        free = available_bytes(device)
        return where == "cuda" or (free is not None and self.images.numel() <= free / 2)

    def placed(self, device: torch.device, where: str) -> "TrainingData":
        """The same data, ready to serve a compute device.

        Args:
            device: where to compute.
            where: cuda, cpu, or auto: on the GPU if it takes no more than half of its free memory.
        """
        if not self.is_resident(device, where):
            return replace(self, device=device)
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, images=self.images.to(device), labels=labels, device=device)


def load_training_data(config: DataConfig) -> TrainingData:
    """Read and decode the data set that a config names, on the CPU.

    Raises:
        UserError: it cannot be read, or it lacks the labels that are wanted.
    """
    assert config.path is not None
    dataset = ImageDataset(
        as_dataset(config.path),
        use_labels=config.cond,
        max_size=config.max_size,
        subset_seed=config.subset_seed,
    )
    raw = dataset.raw_labels
    return TrainingData(
        torch.from_numpy(cached_images(dataset)),
        None if raw is None else torch.from_numpy(raw),
        dataset.name,
        dataset.label_names,
        config.xflip,
        dataset.label_dim if dataset.label_kind == "class" else 0,
        dataset.label_kind,
        present_classes=dataset.present_classes,
        key=_key_of(dataset),
    )


def _key_of(dataset: ImageDataset) -> str:
    """The text that tells one data set from another, see `TrainingData.key`.

    Call this after the images were decoded: then no file is read again.
    """
    raw = dataset.raw_labels
    kind = "none" if raw is None else f"{dataset.label_kind}{dataset.label_dim}"
    labels = "" if raw is None else hashlib.sha256(raw.tobytes()).hexdigest()[:16]
    size = "x".join(map(str, dataset.image_shape))
    return f"{len(dataset)}/{size}/{kind}/{dataset.keys.of_content()[:16]}/{labels}"
