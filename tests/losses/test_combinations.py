"""Every term with every preconditioning and output on a real network, and all terms in one run."""

from typing import Any

import pytest
import torch

import losses
from diffusion.denoiser import Denoiser
from diffusion.outputs import OUTPUTS
from diffusion.preconditioning import PRESETS
from losses.batch import Batch, Draws, Generators
from losses.objective import Objective
from models.build import build
from models.config import ModelConfig
from tests.training.runs import CPU, tiny_config
from torch_utils.precision import autocast
from training.config import TrainingConfig
from training.data import load_training_data
from training.setup import create_objective, create_trainer, model_of
from training.source import MicroBatches

# options that make a term cheap, or fit for every preset; the others of the table have defaults
CHOSEN: dict[str, dict[str, Any]] = {
    "sequence_aware": {"lambda": 0.5, "grid": {"name": "rho", "steps": 18}},
    "consistency": {"lambda": 1.0, "num_steps": 3, "batch_fraction": 0.5},
}
NAMES = [name for name in losses.TERMS if name != "vlb"]  # that one needs a discrete schedule
TERMS = [{"name": name, **CHOSEN.get(name, {})} for name in NAMES]
CHOICES = [
    (preset, output) for preset in PRESETS for output in (*OUTPUTS, None) if preset != "iddpm"
] + [("iddpm", None)]


def made(preset: str, output: str | None) -> tuple[Denoiser, Objective, Batch, Draws]:
    """A small model whose last layer is not zero, its published objective with more terms."""
    scalings: dict[str, Any] = {"name": preset, "output": output}
    tree = {"preconditioning": scalings, "loss": {"terms": TERMS}}
    objective = create_objective(TrainingConfig.model_validate(tree))
    torch.manual_seed(0)
    network = {"name": "ddpmpp", "model_channels": 8, "channel_mult": [1], "num_blocks": 1,
               "attn_resolutions": []}  # fmt: skip
    config = ModelConfig(
        network=network,
        preconditioning=tree["preconditioning"],
        img_resolution=(8, 6),
        img_channels=2,
    )
    denoiser = build(config).train()
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    batch = Batch(torch.rand(4, 2, 8, 6) * 2 - 1)
    sources = Generators(torch.Generator().manual_seed(1), torch.Generator().manual_seed(2))
    return denoiser, objective, batch, objective.draw(sources, batch)


@pytest.mark.parametrize(("preset", "output"), CHOICES)
def test_any_term_trains_any_output(preset: str, output: str | None) -> None:
    denoiser, objective, batch, draws = made(preset, output)
    terms = objective(denoiser, batch, draws)
    assert set(terms.values) == set(NAMES)
    terms.total().backward()
    for name, parameter in denoiser.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_under_autocast_the_gradients_are_those_of_full_precision() -> None:
    # autocast keeps casts of weights: one made without gradient must not serve a call with one
    found = []
    for precision in ("fp32", "bf16"):
        denoiser, objective, batch, draws = made("edm", None)
        with autocast(precision, torch.device("cpu")):
            terms = objective(denoiser.eval(), batch, draws)
        terms.total().backward()
        found.append(
            torch.cat([p.grad.flatten() for p in denoiser.parameters() if p.grad is not None])
        )
    assert (found[0] - found[1]).norm() < 0.05 * found[0].norm()


def test_three_terms_on_one_edm_network_train() -> None:
    terms = (
        "loss.terms=[denoising,{name: sequence_aware,lambda: 0.5,grid: {name: rho,steps: 18}},"
        "{name: consistency,lambda: 1.0,batch_fraction: 0.25}]"
    )
    config = tiny_config(
        terms, "loss.uncertainty=false", "loss.input_perturbation=0", "augment.p=0"
    )
    data = load_training_data(config.data)
    trainer = create_trainer(config, model_of(config, data), CPU)
    source = MicroBatches(config, data, trainer.objective, CPU)
    means = []
    for _ in range(3):
        for _ in range(20):
            pairs = [(batch, draws) for batch, draws, _ in source.at(trainer.seen)]
            trainer.step(pairs)
        flushed = trainer.tally.flush()
        means.append({name: flushed[f"Loss/{name}"]["mean"] for name in trainer.objective.terms})
    for name in ("denoising", "sequence_aware"):
        assert means[2][name] < 0.9 * means[0][name], means
    assert set(means[0]) == {"denoising", "sequence_aware", "consistency"}
