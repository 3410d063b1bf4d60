"""A model and the images whose likelihood is asked for: opened, and checked to fit each other."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.archive import ImageArchive
from data.dataset import ImageDataset
from diffusion.grids import clamp_range
from metrics.npz_images import is_npz
from scoring.images import Images, open_images, own_grids
from scoring.network import Network, open_network
from torch_utils.distributed import World
from torch_utils.errors import UserError
from torch_utils.text import some

_LOWEST = 0.002  # of EDM's grid, for models that accept every level and samplers that name none
_SAMPLED = 16  # levels at which it is tried whether a model rounds them


@dataclass(frozen=True)
class Chosen:
    """Which images to use, as a user says it.

    Attributes:
        num: how many; None for all.
        held_out: use those that training with data.max_size of this number leaves out.
        subset_seed: of either choice.
        with_labels: give the model the labels of the data.
    """

    num: int | None = None
    held_out: int | None = None
    subset_seed: int = 0
    with_labels: bool = True


@dataclass(frozen=True)
class Task:
    """A model, images of its shape, and the range of noise levels; made by `task_of`.

    Attributes:
        network: the model.
        images: the images.
        labelled: the same images with the labels that the model is given; None without labels.
        given: conditional, unconditional, or null label: of a conditional model without labels.
        sigma_min, sigma_max: range of noise levels.
        warnings: lines about it.
        facts: what its likelihood depends on, plain values.
    """

    network: Network
    images: Images
    labelled: ImageDataset | None
    given: str
    sigma_min: float
    sigma_max: float
    warnings: list[str]
    facts: dict[str, Any]

    @property
    def prior_scale(self) -> float:
        """Standard deviation of the states at `sigma_max` from which samplers start."""
        return self.network.sampling.denoiser.prior_scale(self.sigma_max)

    def labels(self, first: int, stop: int) -> Tensor | None:
        """Labels of the images first <= i < stop, float32 [n, label_dim] of the model."""
        if self.labelled is None:
            return None
        rows = torch.from_numpy(self.labelled.labels_of(np.arange(first, stop)))
        missing = self.network.sampling.denoiser.label_dim - rows.shape[1]
        return torch.nn.functional.pad(rows, (0, missing))  # classes that these data do not have

    def name_of(self, index: int) -> str:
        """An image for a message: its file, or its number."""
        is_named = isinstance(self.images, ImageDataset)
        return self.images.names[index] if is_named else str(index)  # type: ignore[attr-defined]


def task_of(
    network: str,
    data: str,
    chosen: Chosen,
    world: World,
    *,
    model_config: str | None = None,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
) -> Task:
    """Open a model and images.

    Args:
        network: anything that `importers.opening.find_model` finds.
        data: a folder, a zip, or an .npz of samples.
        chosen: which of the images.
        world: the processes.
        model_config: facts that the tensors of a foreign checkpoint do not tell.
        sigma_min, sigma_max: range of noise levels; None for the lowest of the model's sampler or
            of the model, and for the level at which its sampler starts.

    Raises:
        UserError: one of them cannot be used, they do not fit each other, or the model knows some
            noise levels only.
    """
    images, labelled = _open_data(data, chosen)
    model = open_network(network, {}, world, model_config=model_config, is_sampled=False)
    if images.image_shape != model.image_shape:
        ours, theirs = ("x".join(map(str, s)) for s in (images.image_shape, model.image_shape))
        raise UserError(
            f"images of {data} are {ours} (channels x height x width), but the model makes "
            f"{theirs}: convert them with dataset_tool.py, or give another model"
        )
    low, high, notes = _range(model, sigma_min, sigma_max)
    settings = model.sampling.settings
    if settings.precision != "fp32":
        unused = f"precision {settings.precision} of the model's sampler is left out"
        notes.append(f"{unused}: a likelihood is computed in fp32")
    if settings.clip_rule != "none" or (settings.guidance and settings.guidance.is_active):
        notes.append("guidance and clipping of the model's sampler are left out of the likelihood")
    _check_continuous(model, low, high)
    if model.sampling.denoiser.label_dim == 0:
        labelled, given = None, "unconditional"
    elif labelled is None:
        given = "null label"
        notes += _null_label_notes(model)
    else:
        given = "conditional"
        _check_labels(model, labelled)
    facts = {
        "data": data,
        "count": len(images),
        **{"held_out": chosen.held_out, "subset_seed": chosen.subset_seed},
        "network": str(model.path),
        **{"images_seen": model.info.images, "ema": model.info.ema},
        "labels": given,
        **{"sigma_min": low, "sigma_max": high},
        "prior_scale": model.sampling.denoiser.prior_scale(high),
    }
    return Task(model, images, labelled, given, low, high, notes, facts)


def _open_data(path: str, chosen: Chosen) -> tuple[Images, ImageDataset | None]:
    """The images, and the same once more if they have labels that are wanted."""
    num, held_out, seed = chosen.num, chosen.held_out, chosen.subset_seed
    if num is not None and held_out is not None:
        raise UserError("--num and --held-out both choose images: leave one of them out")
    if is_npz(path):
        if held_out is not None:
            raise UserError(f"{path}: --held-out needs the folder or zip that was trained on")
        return open_images(path, num, seed), None
    opened = ImageDataset(
        path,
        use_labels=chosen.with_labels and ImageArchive(path).labels() is not None,
        max_size=num or held_out,
        held_out=held_out is not None,
        subset_seed=seed,
        leave_out=own_grids(path),
    )
    if num is not None and len(opened) < num:
        raise UserError(f"{path} has {len(opened)} images, fewer than --num={num}")
    return opened, opened if opened.label_dim else None


def _range(
    model: Network, sigma_min: float | None, sigma_max: float | None
) -> tuple[float, float, list[str]]:
    """The range of noise levels, and a line for each end that the model does not accept."""
    denoiser, sampling = model.sampling.denoiser, model.sampling
    low, high = denoiser.sigma_min, denoiser.sigma_max
    lowest = sampling.settings.grid.get("sigma_min", low) or _LOWEST
    wanted = (
        lowest if sigma_min is None else sigma_min,
        sampling.sigmas[0] if sigma_max is None else sigma_max,
    )
    found = clamp_range(*wanted, low, high)
    given = (("sigma_min", sigma_min), ("sigma_max", sigma_max))
    notes = [
        f"--{name}={asked:g} cut to the model's {level:g}"
        for (name, asked), level in zip(given, found, strict=True)
        if asked is not None and asked != level
    ]
    return *found, notes


def _check_continuous(model: Network, low: float, high: float) -> None:
    """Refuse a model that rounds noise levels: between them it has no ODE."""
    for level in np.geomspace(low, high, _SAMPLED).tolist()[1:-1]:
        if model.sampling.denoiser.round_sigma(level) != level:
            raise UserError(
                f"{model.path} rounds noise levels to those of its table, and the ODE of the "
                "likelihood passes all levels between them: give a model without quantize"
            )


def _null_label_notes(model: Network) -> list[str]:
    dropout = model.info.label_dropout
    if dropout:
        return []
    known = "was trained without" if dropout == 0 else "does not say that it was trained with"
    return [
        f"the model gets the null label for all images, and {known} label dropout: its likelihood "
        "without labels may mean nothing"
    ]


def _check_labels(model: Network, data: ImageDataset) -> None:
    """Refuse labels of another kind, width or meaning than the model's."""
    info, dim = model.info, model.sampling.denoiser.label_dim
    ours, theirs = data.label_kind, info.label_kind or "class"
    fits = data.label_dim <= dim if ours == "class" else data.label_dim == dim
    advice = "give other data, or leave labels out (--no-labels)"
    if ours != theirs or not fits:
        raise UserError(
            f"labels of {data.path} are {data.label_dim} ({ours}), those of the model {dim} "
            f"({theirs}): {advice}"
        )
    names, known = data.label_names or [], info.label_names or []
    if names and known and names != known[: len(names)]:
        raise UserError(
            f"labels of {data.path} are {some(names, 3)}, those of the model {some(known, 3)}: "
            f"{advice}"
        )
