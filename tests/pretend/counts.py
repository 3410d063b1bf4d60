"""Launches, waits and peak memory of every published recipe: `python -m tests.pretend.counts`.

Kernels do nothing here and memory stays untouched, so networks of full width are cheap. What is
counted depends on the code, the recipe and the version of PyTorch, not on the machine. A step and a
call are counted twice: by PyTorch's operations alone, and with the fused kernels. The expected
numbers are in counts.json; where a change is wanted, `--write` renews those of this PyTorch, and
the difference is reviewed like any other line.
"""

import argparse
import gc
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.pretend.build import HERE, ROOT, environment

if TYPE_CHECKING:
    from tests.pretend.ledger import Ledger

FILE = HERE / "counts.json"
RECIPES = sorted(
    path.stem
    for path in (ROOT / "configs").glob("*.yaml")
    if "Published:" in path.read_text(encoding="utf-8")  # the others are ours, and small
)
BATCHES = {32: 64, 64: 32, 256: 8}  # height of the images -> images of the one micro-batch
NUM_LABELS = {"cifar10": 10, "imagenet": 1000, "celeba148": 40}  # the last are tags
GIB = 2**30
SLACK = 0.02  # GiB; recorded peaks are rounded to hundredths

# what is counted -> of which round, and whether by fused kernels
PARTS = {
    "step": ("step", False),
    "call": ("call", False),
    "fused step": ("step", True),
    "fused call": ("call", True),
}
Counts = dict[str, Any]  # batch, and for each part what it takes


def measured(recipe: str) -> Counts:
    """Count in this process, which must see a pretended GPU."""
    config, data = _published(recipe)
    counts: Counts = {"batch": config.run.batch, "precision": config.run.precision}
    for part, (kind, is_fused) in PARTS.items():
        if has_triton() or not is_fused:
            _choose_kernels(is_fused)
            _clear()
            is_step = kind == "step"
            counts[part] = _of_step(config, data) if is_step else _of_call(config, data)
    return counts


def has_triton() -> bool:
    """Whether there is what the fused kernels are written in."""
    return importlib.util.find_spec("triton") is not None


def ledger(recipe: str, *overrides: str, is_fused: bool = True) -> "Ledger":
    """The costs of a training step in this process, which must see a pretended GPU.

    Args:
        recipe: name of a recipe.
        overrides: of its options.
        is_fused: whether by the fused kernels.
    """
    from tests.pretend.ledger import Ledger

    _choose_kernels(is_fused)
    _clear()
    step = _step_of(*_published(recipe, *overrides))
    step()
    with Ledger() as found:
        step()
    return found


def _published(recipe: str, *overrides: str) -> tuple[Any, Any]:
    """The resolved config of a recipe, for one micro-batch, and blank data of its shape."""
    import torch

    from training.config import resolve
    from training.data import TrainingData
    from training.recipes import load_config

    path = ROOT / "configs" / f"{recipe}.yaml"
    config = load_config(path, {}, ())
    name, _, size = Path(str(config.data.path)).stem.rpartition("-")
    height, width = map(int, size.split("x"))
    num = BATCHES[height]
    config = load_config(path, {}, (f"run.batch={num}", f"run.batch_gpu={num}", *overrides))
    images = torch.zeros(num, 1 if name == "mnist" else 3, height, width, dtype=torch.uint8)
    data = TrainingData(images, None, name)
    if config.data.cond:
        dim = NUM_LABELS[name]
        if name == "celeba148":
            data = TrainingData(images, torch.zeros(num, dim), name, label_kind="multi_hot")
        else:
            labels = torch.zeros(num, dtype=torch.int64)
            data = TrainingData(images, labels, name, num_classes=dim, label_kind="class")
    return resolve(config, num_images=num, world_size=1), data


def _step_of(config: Any, data: Any) -> Callable[[], None]:
    """A step of training, from the draw of its batch to the average of the weights."""
    import torch

    from networks.blocks import set_remat
    from torch_utils.distributed import World
    from training.setup import create_objective
    from training.source import MicroBatches
    from training.trainer import Trainer

    world = World(0, 1, torch.device("cuda", 0))
    denoiser = _built(config, data)
    set_remat(denoiser.model, config.run.remat)
    trainer = Trainer(denoiser, create_objective(config), config, world)
    placed = data.placed(world.device, config.run.data_device)
    source = MicroBatches(config, placed, trainer.objective, world)

    def step() -> None:
        parts = list(source.at(trainer.seen))
        trainer.step([(batch, draws) for batch, draws, _ in parts], [s for *_, s in parts])

    return step


def _of_step(config: Any, data: Any) -> Counts:
    return _counted(_step_of(config, data))


def _of_call(config: Any, data: Any) -> Counts:
    """A call of the denoiser as samplers make it: state in float64, sigma a number."""
    import torch

    denoiser = _built(config, data).eval().requires_grad_(False)
    x = torch.zeros(data.images.shape, dtype=torch.float64, device="cuda")
    labels = None
    if denoiser.label_dim:
        labels = torch.zeros(len(x), denoiser.label_dim, device="cuda")

    def call() -> None:
        with torch.inference_mode():
            denoiser(x, 1.0, labels)

    return _counted(call)


def _choose_kernels(is_fused: bool) -> None:
    """Choose whether the fused kernels are launched: as none computes, they cannot be tried."""
    import torch

    from networks import fused

    fused.choose(torch.device("cuda", 0), is_fused)


def _clear() -> None:
    """Give back what earlier work has left, so that peaks do not depend on the order."""
    import torch

    gc.collect()
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.empty_cache()


def _built(config: Any, data: Any) -> Any:
    """The denoiser on the device, without first weights: nobody will look at them."""
    import torch

    from models.build import build
    from training.setup import model_of

    with torch.device("meta"):
        denoiser = build(model_of(config, data))
    return denoiser.to_empty(device="cuda")


def _counted(work: Callable[[], None]) -> Counts:
    """What one round of some work takes, after a first round that makes what is kept."""
    import torch

    from tests.pretend.events import WAITS, Events

    work()
    gc.collect()
    torch.cuda.reset_peak_memory_stats()
    with Events() as events:
        work()
    peak = torch.cuda.max_memory_allocated() / GIB
    return {
        "kernels": events.counts["launch"],
        "library calls": events.counts["library"],
        "waits": sum(events.counts[kind] for kind in WAITS),
        "peak GiB": round(peak, 2),
    }


def in_process(recipes: Sequence[str]) -> dict[str, Counts]:
    """Count in a new process that sees a pretended GPU."""
    command = [sys.executable, "-m", "tests.pretend.counts", "--here", *recipes]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(line) for line in done.stdout.splitlines())


def torch_version() -> str:
    """Major and minor version of PyTorch, which counts depend on."""
    return ".".join(version("torch").split(".")[:2])


def recorded() -> dict[str, Counts]:
    """The counts in the file for this PyTorch, by recipe; empty if it has none."""
    return _file().get(torch_version(), {})


def _file() -> dict[str, dict[str, Counts]]:
    """All that is recorded: version -> recipe -> counts."""
    found: dict[str, dict[str, Counts]] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def _as_text(everything: dict[str, dict[str, Counts]]) -> str:
    """JSON with a line a recipe."""
    versions = []
    for name, recipes in sorted(everything.items()):
        lines = [f"  {json.dumps(key)}: {json.dumps(recipes[key])}" for key in sorted(recipes)]
        versions.append(f" {json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n" + ",\n".join(versions) + "\n}\n"


def differences(expected: Counts, found: Counts) -> list[str]:
    """What is not as expected, in words; of what one of the two has."""
    lines = []
    for part in PARTS:
        if part not in expected or part not in found:
            continue
        for key, before in expected[part].items():
            now = found[part][key]
            slack = SLACK if key == "peak GiB" else 0
            if abs(now - before) > slack:
                lines.append(f"{key} of a {part}: {before} -> {now}")
    return lines


def main() -> None:
    """Count, and print or write what was counted."""
    parser = argparse.ArgumentParser(prog="python -m tests.pretend.counts", description=__doc__)
    parser.add_argument("recipes", nargs="*", default=RECIPES, help="names of recipes, or all")
    parser.add_argument("--write", action="store_true", help="renew the file")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        for recipe in options.recipes:
            print(json.dumps([recipe, measured(recipe)]), flush=True)
        return
    found = in_process(options.recipes)
    if options.write:
        everything = _file()
        merged = recorded() | found
        everything[torch_version()] = {name: merged[name] for name in RECIPES if name in merged}
        FILE.write_text(_as_text(everything), encoding="utf-8")
    for recipe, counts in found.items():
        print(recipe, json.dumps(counts))


if __name__ == "__main__":
    main()
