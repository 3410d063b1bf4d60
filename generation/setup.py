"""A model, seeds, labels and settings: opened and checked once, whatever is then made of them."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import click

from diffusion.denoiser import ConditionalDenoiser, Denoiser
from importers.opening import find_model, open_model, read_model
from models.snapshot import SnapshotInfo
from samplers.command_line import settings_of
from samplers.labels import LabelSource, label_source
from samplers.requests import LabelWords, Requests, check_seeds, requests
from samplers.sampling import Sampling, sampling_of
from samplers.settings import GenerationSettings
from torch_utils.distributed import World, choose_device


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What generate.py is asked in every mode; see its help.

    Attributes:
        network: anything that `importers.opening.find_model` finds.
        outdir: where files go.
        seeds: one image each.
        subdirs: a folder for every thousand seeds.
        words: the labels.
        batch: images computed at once.
        guidance_network: a model to guide by.
        model_config, weights: about a foreign network.
        rng_device: where random numbers are drawn.
    """

    network: str
    outdir: str
    seeds: Sequence[int]
    subdirs: bool
    words: LabelWords
    batch: int
    guidance_network: str | None
    model_config: str | None
    weights: str
    rng_device: str


@dataclass(frozen=True)
class Setup:
    """What a mode works with.

    Attributes:
        asked: by the command line.
        world: the processes.
        network: path of the model.
        info: what the model says of itself.
        sampling: the model and the settings.
        source: what labels are drawn from.
        requested: the images with their folders, in order; nothing else is to be generated.
        remarks, warnings: lines to print before the work.
    """

    asked: Asked
    world: World
    network: str
    info: SnapshotInfo
    sampling: Sampling
    source: LabelSource
    requested: Requests
    remarks: list[str]
    warnings: list[str]

    @property
    def settings(self) -> GenerationSettings:
        """How images are sampled."""
        return self.sampling.settings

    def with_called(self, called: Callable[[Denoiser], ConditionalDenoiser]) -> "Setup":
        """The same with something to call in a model's place; see `Sampling`."""
        return replace(self, sampling=replace(self.sampling, called=called))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        height, width = self.sampling.denoiser.img_resolution
        return self.sampling.denoiser.img_channels, height, width

    @property
    def _unread(self) -> list[str]:
        """Warnings of labels that change nothing."""
        if not self.sampling.ignores_labels:
            return []
        idle = [f"{option} has no effect" for option, _ in self.asked.words.given]
        return [f"{option}: at guidance 0 labels are not used" for option in idle]

    def announce(self, warnings: Sequence[str] = ()) -> None:
        """Print what is to be said before the work, on the main process.

        Args:
            warnings: of the mode.
        """
        if not self.world.is_main:
            return
        for line in [*self.warnings, *self._unread, *warnings]:
            print(f"warning: {line}", file=sys.stderr)
        for line in self.remarks:
            click.echo(line)


class Mode(Protocol):
    """What `generation.MODES` lists: checks what is its own, announces, works and prints."""

    def __call__(self, setup: Setup, **options: Any) -> None:
        """Work on all processes.

        Args:
            setup: opened and checked.
            **options: those that the row reads.

        Raises:
            UserError: the mode cannot do that; nothing has been done.
            Failure: something could not be made or written.
        """


def open_setup(asked: Asked, sampler: Mapping[str, Any], world: World) -> Setup:
    """Load the model and put it together with what was asked.

    Args:
        asked: by the command line.
        sampler: the options of `samplers.command_line.sampler_options`; None where not given.
        world: the processes.

    Raises:
        UserError: no model, or settings, seeds or labels that do not fit it.
    """
    model = read_model(
        find_model(asked.network), model_config=asked.model_config, weights=asked.weights
    )
    info, has_guide = model.info, asked.guidance_network is not None
    settings, remarks, warnings = settings_of(info.sampling, sampler, has_guide=has_guide)
    source = label_source(**info.labels)
    warnings += check_seeds(asked.seeds)
    requested = requests(asked.seeds, asked.words, source)
    choose_device(asked.rng_device)
    denoiser, guide = model.denoiser(world.device), None
    if asked.guidance_network is not None:
        guide = open_model(find_model(asked.guidance_network), world.device).denoiser
    sampling = sampling_of(settings, denoiser, guide).at_precision(in_place=True)
    warnings += sampling.cautions(label_dropout=info.label_dropout)
    remarks = [*model.notes, *remarks, *sampling.notes]
    return Setup(
        asked, world, str(model.path), info, sampling, source, requested, remarks, warnings
    )
