"""Weights are averaged, compared, and made of stored averages, one model in memory at a time."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from diffusion.denoiser import Denoiser
from models.averaging import Source, checked_shares, equal_shares, weighted_sum
from models.build import build
from models.compare import (
    config_differences,
    differing_blocks,
    differing_tensors,
    info_differences,
    renamed,
)
from models.config import ModelConfig
from models.posthoc import power_average, power_decay
from models.reconstruct import plan, stored_averages
from models.snapshot import SnapshotInfo, load_snapshot, save_snapshot, snapshot_path
from torch_utils.errors import UserError

NAME = "model.enc.4x6_conv.weight"


def config(**changes: object) -> ModelConfig:
    network = {"name": "ddpmpp", "model_channels": 16, "channel_mult": [1, 1], "num_blocks": 1}
    tree = {"network": network, "img_resolution": (4, 6), "img_channels": 1, **changes}
    return ModelConfig.model_validate(tree)


def model(seed: int, described: ModelConfig | None = None) -> Denoiser:
    torch.manual_seed(seed)
    return build(described or config()).eval().requires_grad_(False)


def source(seed: int, share: float, described: ModelConfig | None = None) -> Source:
    used = described or config()
    return Source(f"model {seed}", used, partial(model, seed, used), share)


# ---- averages


def test_the_sum_is_that_of_the_weights_and_constants_are_kept() -> None:
    found = weighted_sum([source(1, 0.25), source(2, 0.75)])
    first, second = (model(seed).state_dict() for seed in (1, 2))
    assert found.keys() == first.keys()
    trained = {name for name, _ in model(1).named_parameters()}
    for name, tensor in found.items():
        expected = first[name]
        if name in trained:
            expected = (0.25 * first[name].double() + 0.75 * second[name].double()).float()
        assert tensor.dtype == first[name].dtype
        assert torch.equal(tensor, expected), name
    assert not torch.equal(found[NAME], first[NAME])
    model(3).load_state_dict(found)


def test_sums_are_computed_in_float64() -> None:
    """In float32 the large terms would leave nothing of the small one."""
    found = weighted_sum([source(1, 1e9), source(1, 1.0), source(1, -1e9)])
    torch.testing.assert_close(found[NAME], model(1).state_dict()[NAME])


def test_models_of_other_configs_or_constants_are_not_added() -> None:
    other = config(img_channels=3)
    with pytest.raises(UserError, match=r"model 2 is another model than model 1: img_channels: 1"):
        weighted_sum([source(1, 0.5), source(2, 0.5, other)])

    def spoiled() -> Denoiser:
        found = model(2)
        next(found.model.buffers()).add_(1)
        return found

    with pytest.raises(UserError, match="is not trained, but differs"):
        weighted_sum([source(1, 0.5), Source("model 2", config(), spoiled, 0.5)])


def test_shares_are_one_for_each_and_add_up_to_one() -> None:
    assert equal_shares(4) == [0.25] * 4
    assert checked_shares([0.3, 0.7], 2) == [0.3, 0.7]
    with pytest.raises(UserError, match="1 weights for 2 models"):
        checked_shares([1.0], 2)
    for wrong in ([0.5, 0.6], [float("nan"), 1.0], [float("inf"), float("-inf")]):
        with pytest.raises(UserError, match="do not add up to 1"):
            checked_shares(wrong, 2)


# ---- differences


def test_equal_models_do_not_differ() -> None:
    a, b = model(1).state_dict(), model(1).state_dict()
    assert differing_tensors(a, b) == differing_blocks(a, b, config()) == []
    assert renamed(a, b) == {}
    a[NAME] = b[NAME] = torch.full_like(a[NAME], float("nan"))
    assert differing_tensors(a, b) == []


def test_the_size_of_differences_is_measured() -> None:
    a = model(1).state_dict()
    b = {name: tensor.clone() for name, tensor in a.items()}
    b[NAME][0, 0, 0, 0] += 0.5
    (row,) = differing_tensors(a, b)
    assert (row.name, row.count, row.problem) == (NAME, 1, "")
    assert row.largest == pytest.approx(0.5)
    assert row.relative == pytest.approx(0.5 / a[NAME].norm().item(), rel=1e-5)
    (block,) = differing_blocks(a, b, config())
    members = [a[name] for name in a if name.startswith("model.enc.4x6_conv.")]
    norm = torch.cat([tensor.flatten() for tensor in members]).norm().item()
    assert (block.name, block.count) == ("model.enc.4x6_conv", 1)
    assert block.relative == pytest.approx(0.5 / norm, rel=1e-5)


def test_what_cannot_be_compared_is_said() -> None:
    a, b = model(1).state_dict(), model(1).state_dict()
    b["extra"] = a.pop(NAME)
    b[NAME] = b["extra"]
    bias = NAME.replace("weight", "bias")
    b[bias] = b[bias].double()
    problems = {row.name: row.problem for row in differing_tensors(a, b)}
    assert problems == {
        NAME: "only in the second",
        "extra": "only in the second",
        bias: "[16] float32 -> [16] float64",
    }
    assert {row.name: row.problem for row in differing_blocks(a, b, config())} == problems


def test_models_whose_tensors_differ_in_names_only_are_found() -> None:
    """Names of this network hold the resolution."""
    small, large = config(), config(img_resolution=(8, 6))
    a = model(1, small).state_dict()
    b = {name.replace("4x6", "8x6").replace("2x3", "4x3"): tensor for name, tensor in a.items()}
    assert b.keys() == model(1, large).state_dict().keys()
    pairs = renamed(a, b)
    assert pairs[NAME] == "model.enc.8x6_conv.weight"
    assert len(pairs) == sum("4x6" in name or "2x3" in name for name in a)
    b["model.enc.8x6_conv.weight"] = b["model.enc.8x6_conv.weight"] + 1
    assert renamed(a, b) == {}
    assert config_differences(small, large) == ["img_resolution: [4, 6] -> [8, 6]"]


def test_descriptions_are_compared_and_what_wrote_them_is_not() -> None:
    a = SnapshotInfo(config(), {"name": "heun"}, images=3, versions={"torch": "1"})
    b = replace(a, sampling={"name": "ddim"}, images=4, versions={})
    assert info_differences(a, b) == ["sampling.name: heun -> ddim", "images: 3 -> 4"]
    assert info_differences(a, replace(a, sampling={})) == ["sampling.name: heun -> absent",
                                                            "sampling: absent -> {}"]  # fmt: skip
    assert info_differences(a, a) == []


# ---- averages of any length


def write_run(folder: Path, num: int, target: float) -> dict[str, torch.Tensor]:
    """Snapshots of averages of weights that wander; returns the tracked average of a length."""
    lengths = (0.05, 0.1, target)
    averages = [model(0) for _ in lengths]
    weights = model(0)
    torch.manual_seed(5)
    for step in range(16 * num):
        for parameter in weights.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        for length, average in zip(lengths, averages, strict=True):
            beta = power_decay(length, seen=10 * step, batch=10)
            for old, new in zip(average.parameters(), weights.parameters(), strict=True):
                old.lerp_(new, 1 - beta)
        if step % 16 == 15:
            for length, average in [*zip(lengths, averages, strict=True)][:2]:
                images = 10 * (step + 1)
                info = SnapshotInfo(config(), images=images, ema=power_average(length))
                path = snapshot_path(folder, images, f"{length:.3f}")
                save_snapshot(path, average.state_dict(), info)
    return averages[-1].state_dict()


def relative_error(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    gap = sum((found[name] - tensor).square().sum().item() for name, tensor in expected.items())
    size = sum(tensor.square().sum().item() for tensor in expected.values())
    return float((gap / size) ** 0.5)


def test_the_average_of_a_length_that_was_not_stored_is_the_tracked_one(tmp_path: Path) -> None:
    tracked = write_run(tmp_path, 24, 0.15)
    made = plan(tmp_path, 0.15)
    found = made.weights()
    assert relative_error(found, tracked) < 1e-3
    newest = load_snapshot(snapshot_path(tmp_path, 3840, "0.100"))[0].state_dict()
    assert relative_error(newest, tracked) > 5e-3  # else this would prove little
    assert not made.fit.is_poor
    assert made.info.images == 3840
    assert made.info.ema is not None
    assert (made.info.ema["sigma_rel"], made.info.ema["made_of"]["averages"]) == (0.15, 48)
    # what was made is not taken for what was stored
    save_snapshot(snapshot_path(tmp_path, 3840, "0.150"), found, made.info)
    save_snapshot(snapshot_path(tmp_path, 3840), found, replace(made.info, ema={"kind": "ramp"}))
    assert len(stored_averages(tmp_path)) == 48


def test_an_average_of_an_earlier_point_uses_nothing_later(tmp_path: Path) -> None:
    write_run(tmp_path, 4, 0.15)
    made = plan(tmp_path, 0.1, 320)
    assert max(entry.info.images for entry in made.stored) == 320
    stored = load_snapshot(snapshot_path(tmp_path, 320, "0.100"))[0].state_dict()
    assert relative_error(made.weights(), stored) < 1e-6
    with pytest.raises(
        UserError, match="no averages at 300 images: the nearest are at 160 and 320"
    ):
        plan(tmp_path, 0.1, 300)


def test_a_run_without_averages_or_of_two_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no averages to make others of .* ema\.posthoc=on"):
        plan(tmp_path, 0.1)
    write_run(tmp_path, 2, 0.15)
    with pytest.raises(UserError, match=r"must be from 0\.001 to 0\.28"):
        plan(tmp_path, 0.5)
    other = config(img_channels=3)
    info = SnapshotInfo(other, images=320, ema=power_average(0.05))
    save_snapshot(snapshot_path(tmp_path, 320, "0.050"), model(0, other).state_dict(), info)
    with pytest.raises(UserError, match="is another model than"):
        plan(tmp_path, 0.1)
