"""Work of one kind, done on demand, in a process of its own: a part of `bench_neighbour.py`.

    python benchmarks/neighbour_work.py training

Each line of the input asks for some seconds of work; the answer is how long one unit took.
"""

import sys
import time
from collections.abc import Callable

import torch

from metrics.detectors import load
from metrics.evaluate import evaluate
from models.build import build
from models.config import ModelConfig
from samplers.float_images import float_images
from samplers.labels import label_source
from torch_utils.distributed import World, set_numerics
from torch_utils.kept_memory import keep_freed_memory
from torch_utils.precision import AUTO, resolve_precision
from training.config import TrainingConfig, model_config, resolve
from training.data import load_training_data
from training.recipes import load_config
from training.setup import create_trainer
from training.source import MicroBatches

RECIPE, SHAPE, CLASSES = "configs/digits.yaml", (1, 8, 8), 10
DRAWN, SCORED = 10, 1000  # images of a unit


def model(config: TrainingConfig) -> ModelConfig:
    """The model of the recipe."""
    return model_config(config, image_shape=SHAPE, label_dim=CLASSES)


def training() -> Callable[[], object]:
    """A training step of the digits recipe, 128 images."""
    here = World(0, 1, torch.device("cpu"))
    precision = resolve_precision(AUTO, here.device)
    config = load_config(RECIPE, {"run": {"precision": precision}})
    data = load_training_data(config.data)
    config = resolve(config, num_images=len(data), world_size=1)
    trainer = create_trainer(config, model(config), here)
    source = MicroBatches(config, data, trainer.objective, here)

    def step() -> None:
        parts = list(source.at(trainer.seen))
        trainer.step([part[:2] for part in parts], [part[-1] for part in parts])

    return step


def generation() -> Callable[[], object]:
    """Ten images of an untrained digits model by 18 steps of Heun's method."""
    denoiser = build(model(load_config(RECIPE))).eval()
    source = label_source(CLASSES, "class")

    def draw() -> None:
        images, _ = float_images(
            denoiser, range(DRAWN), label=0, source=source, stored={}, given={}, progress=False
        )
        for _ in images:
            pass

    return draw


def scoring() -> Callable[[], object]:
    """A thousand noises through the detector of the digits, and their statistics."""
    detector = load("digits", "cpu")
    images = torch.randint(0, 256, (SCORED, *SHAPE), dtype=torch.uint8).numpy()
    return lambda: evaluate(detector, [images], SHAPE)


KINDS = {"training": training, "generation": generation, "scoring": scoring}


def main(kind: str) -> None:
    """Warm up, say that it is ready, and work when asked."""
    set_numerics()
    keep_freed_memory()
    unit = KINDS[kind]()
    unit()
    print("ready", torch.get_num_threads(), flush=True)
    for line in sys.stdin:
        start, done = time.perf_counter(), 0
        while not done or time.perf_counter() - start < float(line):
            unit()
            done += 1
        print((time.perf_counter() - start) / done, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
