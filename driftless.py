"""Driftless from Python: load a model, sample from it, train one.

    import driftless

    model = driftless.load("runs/demo/training")
    images = model.sample(range(16), label=3, steps=18)

This module only calls the packages beside it. They are imported with the first use, PyTorch too.
"""

import importlib.util
import math
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from diffusion.denoiser import Denoiser
    from models.snapshot import SnapshotInfo
    from samplers.labels import LabelSource

_PACKAGES = (
    *("data", "diffusion", "importers", "losses", "metrics", "models", "networks", "samplers"),
    *("torch_utils", "training"),
)


def _found(name: str) -> str | None:
    """The file or folder that an import of a package gives, or has given; None if nothing does."""
    if name in sys.modules:
        module = sys.modules[name]
        return getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), "")
    spec = importlib.util.find_spec(name)
    if spec is None:
        return None
    return spec.origin or next(iter(spec.submodule_search_locations or ()), "")


def _refuse_foreign_packages() -> None:
    """Find out now, not in the middle of the work, whether another package takes a name of ours.

    Raises:
        ImportError: one does; it says which file, and what helps.
    """
    here = Path(__file__).resolve().parent
    for name in _PACKAGES:
        found = _found(name)
        if found is None:
            raise ImportError(f"{here} has no package {name} of Driftless: install it again")
        if Path(found).resolve() in (here / name, here / name / "__init__.py"):
            continue
        if name in sys.modules:
            advice = "it was imported before: use Driftless in a process that does not import it"
        else:
            advice = "rename it, or start Python in another folder"
        what = found or f"a module {name} without a file"
        raise ImportError(f"{what} hides the package {name} of Driftless, in {here}: {advice}")


_refuse_foreign_packages()

from torch_utils.errors import Failure, UserError  # noqa: E402 - which it might not find before

__all__ = ["Failure", "Model", "UserError", "load"]


def load(path: str | os.PathLike[str], device: "torch.device | str" = "auto") -> "Model":
    """Load a trained model.

    Args:
        path: a snapshot, network-snapshot-*.safetensors, or a run directory for its newest.
        device: auto, cpu, cuda, or one GPU such as cuda:1.

    Raises:
        UserError: there is no snapshot of ours, it is damaged, or there is no such device.
    """
    from models.snapshot import find_snapshot, load_snapshot
    from torch_utils.distributed import choose_device

    kind, _, index = str(device).partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and not index.isdecimal()):
        raise UserError(f"device {str(device)!r}: give auto, cpu, cuda, or one GPU such as cuda:1")
    file = find_snapshot(path)
    denoiser, info = load_snapshot(file, choose_device(kind, int(index or 0)))
    return Model(denoiser, info, file)


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A trained model, made by `load`.

    Attributes:
        denoiser: a torch.nn.Module in evaluation mode, denoiser(x, sigma, labels) -> D.
        info: what the snapshot says of itself: model, sampling, label_names, images and more.
        path: the snapshot.
    """

    denoiser: "Denoiser"
    info: "SnapshotInfo"
    path: Path

    @property
    def device(self) -> "torch.device":
        """Where it computes."""
        return next(self.denoiser.parameters()).device

    @property
    def label_names(self) -> list[str]:
        """Names of the classes, or of the elements of a label; empty if they have none."""
        return list(self.info.label_names or [])

    def sample(self, seeds: Iterable[int], **options: Any) -> "Tensor":
        """Generate images: those of `batches` in one tensor, [N, C, H, W]."""
        import torch

        shape = self.denoiser.img_channels, *self.denoiser.img_resolution
        nothing = torch.empty(0, *shape, device=self.device)
        return torch.cat([nothing, *self.batches(seeds, **options)])

    def batches(
        self,
        seeds: Iterable[int],
        *,
        label: Any = None,
        batch: int = 64,
        guide: "Model | None" = None,
        rng_device: str = "cpu",
        progress: bool = True,
        **settings: Any,
    ) -> "Iterator[Tensor]":
        """Generate images batch by batch, each when it is asked for.

        An image depends on its seed, label and settings alone: it is the one that generate.py
        writes. Random numbers have generators of their own.

        Args:
            seeds: one image each.
            label: a class by number or name; tags, as "Bangs,Black_Hair" or a list; or the numbers
                of a label: of all images, or a sequence with one for each. None draws each from
                its seed, among the labels of the training set.
            batch: images computed at once; does not change them.
            guide: a second model to guide by, with `guidance` (autoguidance).
            rng_device: where to draw random numbers; cuda gives the images that EDM gives on a GPU.
            progress: show a bar, or lines where none can be drawn.
            settings: of the sampler, as docs/sampling.md lists them: sampler="ddim", steps=50,
                eta=0.5, guidance=1.5, clip=True. The others are the snapshot's, else the defaults.

        Yields:
            float32 [n, C, H, W] on the model's device, clamped to [-1, 1].

        Raises:
            UserError: whatever cannot be, at the call and not at the first batch.
            Failure: an image is not finite.
        """
        from samplers.fitting import cautions, check, ignores_labels, noise_levels
        from samplers.float_images import float_images
        from samplers.label_rows import labelled
        from samplers.options import generation_settings, overlay
        from torch_utils.distributed import choose_device

        if "sampler" in settings:
            settings["name"] = settings.pop("sampler")
        if batch < 1:
            raise UserError(f"batch is {batch}: it must be 1 or more")
        choose_device(rng_device)
        chosen = generation_settings(overlay(self.info.sampling, settings))
        weak = None if guide is None else guide.denoiser
        check(chosen, self.denoiser, weak)
        levels, notes = noise_levels(chosen, self.denoiser, weak)
        notes += cautions(chosen, self.denoiser, weak, label_dropout=self.info.label_dropout)
        if label is not None and ignores_labels(chosen, weak):
            notes.append("label has no effect: at guidance 0 labels are not used")
        is_inner = sys._getframe(1).f_globals is globals()  # called by `sample`
        for note in notes:
            warnings.warn(note, stacklevel=3 if is_inner else 2)
        numbers, source = [int(seed) for seed in seeds], self._label_source()
        names, kind = self.info.label_names, self.info.label_kind
        return float_images(
            self.denoiser,
            chosen,
            labelled(numbers, label, source, kind=kind, names=names),
            guide=weak,
            source=source,
            batch_size=batch,
            rng_device=rng_device,
            num_levels=len(levels),
            progress=progress,
        )

    def denoise(self, noisy: "Tensor", sigma: "Tensor | float", labels: Any = None) -> "Tensor":
        """Estimate clean images, D = E[y | y + sigma n] as the model has learned it.

        Differentiable with respect to `noisy` and `sigma`; the weights have no gradient.

        Args:
            noisy: y + sigma n, [N, C, H, W] on the model's device, with y in [-1, 1].
            sigma: noise level, a number or [N].
            labels: as `label` of `batches`; None for the null label.

        Returns:
            D, in the shape and dtype of `noisy`; not clipped.

        Raises:
            UserError: images of another shape, no noise, or a label that the model lacks.
        """
        from samplers.label_rows import label_rows
        from torch_utils.untouched import numerics

        shape = self.denoiser.img_channels, *self.denoiser.img_resolution
        if noisy.shape[1:] != shape or not noisy.is_floating_point():
            raise UserError(
                f"noisy is {noisy.dtype} {tuple(noisy.shape)}: the model takes numbers of "
                f"floating point, (N, {', '.join(map(str, shape))})"
            )
        if isinstance(sigma, (int, float)) and not 0 < sigma < math.inf:
            raise UserError(f"sigma is {sigma}: it must be a positive number")
        rows = None
        if labels is not None:
            kind, names = self.info.label_kind, self.info.label_names
            rows = label_rows(labels, len(noisy), self._label_source(), kind=kind, names=names)
            rows = rows.to(self.device)
        with numerics():
            denoised: Tensor = self.denoiser(noisy, sigma, rows)
        return denoised

    def _label_source(self) -> "LabelSource":
        """What labels are drawn from."""
        from samplers.labels import label_source

        info = self.info
        return label_source(
            info.model.label_dim,
            info.label_kind,
            present=info.present_classes,
            examples=info.label_examples,
        )

    def __repr__(self) -> str:
        from models.summary import summary

        return f"{self.path}\n{summary(self.denoiser, self.info)}"
