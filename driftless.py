"""Driftless from Python: load a model, sample from it, train one.

    import driftless

    model = driftless.load("runs/demo/training")
    images = model.sample(range(16), label=3, steps=18)

This module only calls the packages beside it. They are imported with the first use, PyTorch too.
"""

import importlib.util
import operator
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from diffusion.denoiser import Denoiser
    from models.snapshot import SnapshotInfo

_PACKAGES = (
    *("data", "diffusion", "generation", "importers", "losses", "metrics", "models", "networks"),
    *("samplers", "scoring", "torch_utils", "training"),
)


def _refuse_foreign_packages() -> None:
    """Find out now, not in the middle of the work, whether another package takes a name of ours.

    Raises:
        ImportError: one does; it says which file, and what helps.
    """
    here = Path(__file__).resolve().parent
    for name in _PACKAGES:
        if name in sys.modules:
            place = getattr(sys.modules[name], "__file__", None) or "a module without a file"
            advice = "it was imported before: use Driftless in a process that does not import it"
        else:
            place = getattr(importlib.util.find_spec(name), "origin", None) or here
            advice = "rename it, or start Python in another folder"
        if Path(place).resolve() not in (here, here / name / "__init__.py"):
            raise ImportError(f"{place} hides the package {name} of Driftless, in {here}: {advice}")


_refuse_foreign_packages()

# ruff: noqa: E402 - which it might not find before
from importers.spellings import explain
from torch_utils.errors import Failure, UserError, explain_names_with

explain_names_with(explain)

__all__ = ["Failure", "Model", "Run", "UserError", "load", "train"]


def load(
    path: str | os.PathLike[str],
    device: "torch.device | str" = "auto",
    *,
    weights: str = "ema",
    model_config: str | os.PathLike[str] | None = None,
) -> "Model":
    """Load a trained model, ours or any of docs/checkpoints.md.

    Args:
        path: a snapshot, network-snapshot-*.safetensors; a run directory for its newest; a foreign
            checkpoint; a URL; or the name of a published model.
        device: auto, cpu, cuda, or one GPU such as cuda:1.
        weights: ema or raw, for foreign checkpoints that have both.
        model_config: a YAML or JSON file with facts that the tensors of a foreign checkpoint do not
            tell. None for the file beside it, if there is one.

    Raises:
        UserError: there is no model that is known, it is damaged, or there is no such device.
    """
    from importers.opening import find_model, open_model
    from torch_utils.distributed import choose_device

    where = choose_device(str(device))
    model = open_model(find_model(path), where, model_config=model_config, weights=weights)
    for note in model.notes:
        warnings.warn(note, stacklevel=2)
    return Model(model.denoiser, model.info, model.path)


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A trained model, made by `load`.

    Attributes:
        denoiser: a torch.nn.Module in evaluation mode, denoiser(x, sigma, labels) -> D.
        info: what the snapshot says of itself: model, sampling, label_names, images and more.
        path: the snapshot or foreign checkpoint.
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
        rng_device: "torch.device | str" = "cpu",
        progress: bool = True,
        **settings: Any,
    ) -> "Iterator[Tensor]":
        """Generate images batch by batch, each when it is asked for; those that generate.py writes.

        Args:
            seeds: one image each.
            label: a class by number or name; tags, as "Bangs,Black_Hair" or a list; or the numbers
                of a label. For all images, or a sequence with one for each. None draws them, among
                the labels of the training set.
            batch: images computed at once; does not change them.
            guide: a second model to guide by, with `guidance` (autoguidance).
            rng_device: where to draw random numbers; cuda gives the images that EDM gives on a GPU.
            progress: show a bar, or lines where none can be drawn.
            settings: of the sampler, see docs/sampling.md: sampler="ddim", steps=50, eta=0.5,
                guidance=1.5, clip=True. What is not given is the snapshot's, else the default.

        Yields:
            float32 [n, C, H, W] on the model's device, clamped to [-1, 1].

        Raises:
            UserError: a wrong option, at the call.
            Failure: an image is not finite.
        """
        from samplers.float_images import float_images
        from samplers.labels import label_source

        if "sampler" in settings:
            if "name" in settings:
                raise UserError("sampler and name mean the same: give one of them")
            settings["name"] = settings.pop("sampler")
        if guide is not None and not isinstance(guide, Model):
            raise UserError(f"guide is {guide!r}: it must be a model, made by driftless.load")
        try:
            numbers, batch = [operator.index(seed) for seed in seeds], operator.index(batch)
        except TypeError:
            raise UserError(
                f"seeds is {seeds!r} and batch is {batch!r}: they must be a sequence of whole "
                "numbers and a whole number"
            ) from None
        images, notes = float_images(
            self.denoiser,
            numbers,
            label=label,
            source=label_source(**self.info.labels),
            stored=self.info.sampling,
            given=settings,
            guide=None if guide is None else guide.denoiser,
            label_dropout=self.info.label_dropout,
            batch_size=batch,
            rng_device=str(rng_device),
            progress=progress,
        )
        is_inner = sys._getframe(1).f_globals is globals()  # called by `sample`
        for note in notes:
            warnings.warn(note, stacklevel=3 if is_inner else 2)
        return images

    def denoise(self, noisy: "Tensor", sigma: "Tensor | float", labels: Any = None) -> "Tensor":
        """Estimate clean images: D, in the shape and dtype of `noisy`, not clipped.

        Differentiable with respect to `noisy` and `sigma`; the weights have no gradient.

        Args:
            noisy: y + sigma n, [N, C, H, W] on the model's device, with y in [-1, 1].
            sigma: noise level, a number or [N].
            labels: as `label` of `batches`; None for the null label.

        Raises:
            UserError: images of another shape, no noise, or a label that the model lacks.
        """
        from samplers.float_images import denoised
        from samplers.labels import label_source

        return denoised(self.denoiser, noisy, sigma, labels, label_source(**self.info.labels))

    def __repr__(self) -> str:
        from models.summary import summary
        from samplers import DEFAULT_SAMPLER

        sampler = {"name": DEFAULT_SAMPLER, **self.info.sampling}
        return f"{self.path}\n{summary(self.denoiser, self.info, sampler)}"


@dataclass(frozen=True)
class Run:
    """What `train` returns.

    Attributes:
        folder: the run directory.
        snapshot: the newest snapshot in it.
        stats: the rows of stats.jsonl, one a tick: row["Loss/loss"]["mean"] and more.
        scores: those of scored snapshots: row["Score/fid5k"]["mean"] and more.
    """

    folder: Path
    snapshot: Path
    stats: list[dict[str, Any]] = field(repr=False)
    scores: list[dict[str, Any]] = field(repr=False)

    def model(self, device: "torch.device | str" = "auto") -> Model:
        """Load the newest snapshot."""
        return load(self.snapshot, device)


def train(
    config: "str | os.PathLike[str] | Mapping[str, Any]",
    *overrides: str,
    outdir: str | os.PathLike[str] | None = None,
    subdir: bool = True,
    resume: str | os.PathLike[str] | None = None,
    allow_config_change: bool = False,
    transfer: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Run:
    """Train a model, as train.py does, to the end.

    Settings and generators of PyTorch are afterwards as they were; other threads that draw from
    the default generators are disturbed meanwhile. Ctrl-C is an exception, and `resume` goes on.

    Args:
        config: a recipe, such as configs/digits.yaml, or the same as a mapping.
        overrides: "section.key=value", such as "run.duration=600it".
        outdir: where run directories go.
        subdir: make a numbered directory in `outdir`; otherwise use `outdir` itself.
        resume: a run directory or a state to go on with; "latest" is the newest in `outdir` with
            this config, and starts one if there is none.
        allow_config_change: resume although the config differs from the run's.
        transfer: a model to take the first weights from, anything that `load` takes.
        progress: show a bar, and print the lines of log.txt.

    Raises:
        UserError: the config, the data, or the run or snapshot to start from cannot be used.
        Failure: the disk is full, or too many steps in a row were not finite.
    """
    from torch_utils.progress import print_line, silenced
    from training.launch import Start, run
    from training.wanted import wanted_config

    recipe = None if isinstance(config, Mapping) else config
    paths = {"outdir": outdir, "recipe": recipe, "resume": resume, "transfer": transfer}
    texts = {key: None if path is None else os.fspath(path) for key, path in paths.items()}
    if outdir is None and resume in (None, "latest"):
        raise UserError("outdir is missing: the folder where run directories go")
    start = Start(
        outdir=texts["outdir"],
        subdir=subdir,
        recipe=texts["recipe"],
        resume=texts["resume"],
        allow_config_change=allow_config_change,
        transfer=texts["transfer"],
    )
    with silenced(not progress):
        wanted = wanted_config(config, overrides, resume=texts["resume"])
        result = run(wanted, start, say=print_line, has_bar=progress)
    return Run(result.folder, result.snapshot, result.stats, result.scores)
