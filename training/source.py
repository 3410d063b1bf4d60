"""Where a step's data and randomness come from: a function of the images seen before it."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from losses.batch import Batch, Draws, Generators
from losses.objective import Objective
from torch_utils.distributed import World
from torch_utils.seeding import Stream, derive_seed
from training.augmentation import augmented
from training.config import ResolvedConfig
from training.data import TrainingData
from training.order import image_indices


@dataclass(frozen=True)
class MicroBatches:
    """This process's share of every step.

    A step's batch is cut into micro-batches of `run.batch_gpu`; process r of W computes the r-th
    share of them. Each draws from generators of its own, so it is the same whoever computes it.
    """

    config: ResolvedConfig
    data: TrainingData
    objective: Objective
    world: World

    def at(self, seen: int) -> Iterator[tuple[Batch, Draws, int]]:
        """Micro-batches, their draws and their dropout seeds for the step after `seen` images."""
        run, device = self.config.run, self.world.device
        share = run.batch // run.batch_gpu // self.world.size
        for m in range(self.world.rank * share, (self.world.rank + 1) * share):
            generators = Generators(
                step=_generator(device, derive_seed(run.seed, Stream.STEP, seen)),
                micro=_generator(device, derive_seed(run.seed, Stream.MICRO, seen, m)),
                first=m * run.batch_gpu,
                total=run.batch,
            )
            first = seen + m * run.batch_gpu
            indices = image_indices(run.seed, first, run.batch_gpu, len(self.data))
            batch = self.data.batch(indices, generators.micro, run.label_dropout)
            seed = derive_seed(run.seed, Stream.AUGMENT, seen, m)
            batch = augmented(batch, self.config.augment, seed)
            draws = self.objective.draw(generators, batch)
            yield batch, draws, derive_seed(run.seed, Stream.DROPOUT, seen, m)


def _generator(device: torch.device, seed: int) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)
