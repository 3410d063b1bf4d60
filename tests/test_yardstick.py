"""The yardstick computes the same numbers as our programs, so that times can be compared."""

import ast
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from benchmarks.bench_training import Yardstick, ours_under_training, written_images
from benchmarks.reference_network import reference_forward, without_prefix
from benchmarks.reference_step import ReferenceStep, ZippedImages, loaded
from models.build import build
from models.config import ModelConfig
from models.snapshot import SnapshotInfo, save_snapshot
from tests.command import ROOT, call, run
from tests.networks.small import conditions, images, small_net
from tests.parity.weights import fill_by_rule
from tests.test_layering import PACKAGES, SCRIPTS
from torch_utils.errors import Failure

SMALL = {"model_channels": 16, "channel_mult": [1, 2], "num_blocks": 2, "attn_resolutions": [8]}


@pytest.mark.parametrize("name", ["network", "step", "sampler"])
def test_the_yardstick_uses_nothing_of_ours(name: str) -> None:
    tree = ast.parse((ROOT / "benchmarks" / f"reference_{name}.py").read_text())
    modules = [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    modules += [
        alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names
    ]
    assert "torch" in modules
    for module in modules:
        assert module.split(".")[0] not in {*PACKAGES, *SCRIPTS}
        assert not module.startswith("benchmarks.") or "reference" in module


def test_the_plain_network_is_the_same_arithmetic() -> None:
    net = small_net(label_dim=4, num_blocks=2)
    state = net.state_dict()
    labels = torch.eye(4)[:3]
    with torch.no_grad():
        for given in (None, labels):
            expected = net(images(3), conditions(3), given)
            found = reference_forward(state, images(3), conditions(3), given)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_plain_step_has_our_loss_our_gradients_and_our_new_weights(tmp_path: Path) -> None:
    data = written_images(tmp_path / "images.zip", num=32, side=16)
    trainer, source = ours_under_training(data, "fp32", batch=8, network={**SMALL, "dropout": 0.0})
    fill_by_rule(trainer.denoiser)
    fill_by_rule(trainer.average)
    trainer.seen = 1_000_000  # in the ramps of learning rate and average
    ((batch, draws, seed),) = source.at(trainer.seen)
    plain = ReferenceStep(without_prefix(trainer.denoiser.state_dict()))
    plain.seen = trainer.seen

    torch.manual_seed(seed)
    variate = (draws.sigma.log() + 1.2) / 1.2
    loss = plain.gradients(batch.images, batch.labels, variate[:, None, None, None], draws.noise)
    gradients = {name: p.grad.clone() for name, p in plain.parameters.items() if p.grad is not None}
    ours = trainer.step([(batch, draws)], [seed])

    torch.testing.assert_close(loss.flatten(1).sum(1).mean(), ours, rtol=1e-5, atol=0)
    for name, parameter in trainer.denoiser.model.named_parameters():
        assert parameter.grad is not None
        scale = float(gradients[name].abs().max())
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=0, atol=1e-4 * scale)
        plain.parameters[name].grad = parameter.grad  # Adam divides rounding by its own size
    plain.update(8)
    for name, parameter in trainer.denoiser.model.named_parameters():
        torch.testing.assert_close(parameter, plain.parameters[name], rtol=1e-6, atol=1e-7)
    for name, parameter in trainer.average.model.named_parameters():
        torch.testing.assert_close(parameter, plain.average[name], rtol=1e-6, atol=1e-7)
    assert trainer.seen == plain.seen
    count, total, _ = plain.moments.tolist()
    mean = trainer.tally.flush()["Loss/loss"]["mean"]
    assert count == loss.numel()
    assert total / count == pytest.approx(mean, rel=1e-4)


def test_steps_of_a_process_that_has_ended_are_one_line(tmp_path: Path) -> None:
    with Yardstick({}, tmp_path / "missing.zip", 1, torch.device("cpu")) as plain:
        for _ in range(2):  # it may still be there for the first one
            with pytest.raises(Failure, match=r"has ended, exit code 1$"):
                plain.step()


def test_the_plain_loader_hands_over_the_decoded_images_in_shuffled_order(tmp_path: Path) -> None:
    data = written_images(tmp_path / "images.zip", num=12, side=8)
    dataset = ZippedImages(str(data), use_labels=False)
    batches = loaded(dataset, 4)
    pictures = torch.cat([next(batches)[0] for _ in range(3)])
    assert (pictures.dtype, pictures.shape) == (torch.uint8, (12, 3, 8, 8))
    expected = {dataset[index][0].tobytes() for index in range(12)}
    found = [picture.numpy().tobytes() for picture in pictures]
    assert set(found) <= expected
    assert len(set(found)) > 6
    assert found != [dataset[index][0].tobytes() for index in range(12)]


@pytest.mark.parametrize("label_dim", [0, 3])
def test_the_plain_sampler_makes_the_images_of_generate(tmp_path: Path, label_dim: int) -> None:
    config = ModelConfig(
        network={"name": "ddpmpp", **SMALL},
        img_resolution=(16, 16),
        img_channels=3,
        label_dim=label_dim,
    )
    denoiser, network = build(config), tmp_path / "net.safetensors"
    fill_by_rule(denoiser)
    kind = "class" if label_dim else None
    save_snapshot(network, denoiser.state_dict(), SnapshotInfo(config, label_kind=kind))
    how = (f"--network={network}", "--batch=4", "--steps=5", "--device=cpu")
    plain = run("benchmarks/reference_sampler.py", *how, f"--outdir={tmp_path / 'a'}", "--num=6")
    assert plain.returncode == 0, plain.stderr
    ours = call("generate.py", *how, f"--outdir={tmp_path / 'b'}", "--seeds=0-5")
    assert ours.returncode == 0, ours.stderr
    for seed in range(6):
        pixels = [
            np.asarray(PIL.Image.open(tmp_path / folder / f"{seed:06d}.png")).astype(int)
            for folder in ("a", "b")
        ]
        assert np.ptp(pixels[0]) > 100
        difference = np.abs(pixels[0] - pixels[1])
        assert difference.max() <= 1
        assert difference.mean() < 0.01
