"""Augmentation within training: what the network is given, and where the randomness comes from."""

from pathlib import Path

import pytest
import torch

from losses.batch import Batch
from tests.training.runs import CPU, tiny_config, tiny_data, train_tiny
from torch_utils.errors import UserError
from training.augmentation import AugmentConfig, augmented
from training.setup import checked_model, create_objective, create_trainer, model_of
from training.source import MicroBatches


def first_batches(*overrides: str) -> list[Batch]:
    """The micro-batches of the first step."""
    config = tiny_config(*overrides)
    source = MicroBatches(config, tiny_data(), create_objective(config), CPU)
    return [batch for batch, _, _ in source.at(0)]


def test_the_edm_set_comes_with_nine_labels_and_none_is_off() -> None:
    plain = first_batches("augment.p=0")
    changed = first_batches("augment.p=1")
    for before, after in zip(plain, changed, strict=True):
        assert before.augment_labels is None
        assert after.augment_labels is not None
        assert after.augment_labels.shape == (8, 9)
        assert (after.images != before.images).flatten(1).any(1).all()
        assert after.labels is not None
        assert before.labels is not None
        assert torch.equal(after.labels, before.labels)
    assert not torch.equal(changed[0].augment_labels, changed[1].augment_labels)  # type: ignore[arg-type]


def test_flips_alone_mirror_and_tell_nobody() -> None:
    plain = torch.cat([batch.images for batch in first_batches("augment={p: 0}")])
    batches = first_batches("augment={set: flips, p: 0}")
    assert all(batch.augment_labels is None for batch in batches)
    images = torch.cat([batch.images for batch in batches])
    kept = [torch.equal(a, b) for a, b in zip(images, plain, strict=True)]
    mirrored = [torch.equal(a, b.flip(2)) for a, b in zip(images, plain, strict=True)]
    assert all(a != b for a, b in zip(kept, mirrored, strict=True))
    assert 2 < sum(mirrored) < 14


def test_a_batch_is_a_function_of_its_seed() -> None:
    batch, config = Batch(torch.randn(16, 3, 8, 6)), AugmentConfig(p=0.5)
    first, again, other = (augmented(batch, config, seed).images for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_labels_reach_the_network_in_every_micro_batch() -> None:
    config = tiny_config("augment.p=0.01", "optimizer.warmup=0img")
    data = tiny_data()
    trainer = create_trainer(config, model_of(config, data), CPU)
    source = MicroBatches(config, data, trainer.objective, CPU)
    trainer.step([(batch, draws) for batch, draws, _ in source.at(0)])
    gradients = {name: p.grad for name, p in trainer.denoiser.named_parameters()}
    assert gradients["model.map_augment.weight"] is not None


@pytest.mark.parametrize("network", ["ddpm", "vdiff"])
def test_networks_without_these_labels_take_flips_only(network: str, tmp_path: Path) -> None:
    tiny = f"network={{name: {network}, model_channels: 32, channel_mult: [1], num_blocks: 1}}"
    with pytest.raises(UserError, match="takes no augmentation labels"):
        checked_model(tiny_config(tiny), tiny_data())
    state = train_tiny(tmp_path / "run", tiny, "augment={set: flips, p: 0}", "run.duration=2it")
    assert state["trainer"]["seen"] == 32
