"""Snapshots come back as they were, and what is not one is refused in one line."""

import math
from pathlib import Path

import pytest
import torch

from models.build import build
from models.config import ModelConfig, PreconditioningConfig, validated
from models.snapshot import (
    SnapshotInfo,
    find_snapshot,
    load_snapshot,
    read_info,
    save_snapshot,
    snapshot_path,
)
from samplers.settings import settings_from
from torch_utils.errors import UserError


def config() -> ModelConfig:
    return ModelConfig(
        network={"name": "ddpmpp", "model_channels": 16, "channel_mult": [1, 1], "num_blocks": 1},
        preconditioning=PreconditioningConfig(sigma_data=0.7),
        img_resolution=(4, 6),
        img_channels=1,
        label_dim=2,
    )


def write(path: Path) -> torch.nn.Module:
    denoiser = build(config()).eval()
    info = SnapshotInfo(
        config(),
        {"name": "heun", "steps": 9},
        ["a", "b"],
        "multi_hot",
        images=70,
        ema={"halflife": "5img"},
    )
    save_snapshot(path, denoiser.state_dict(), info)
    return denoiser


def test_a_snapshot_comes_back_as_it_was(tmp_path: Path) -> None:
    path = snapshot_path(tmp_path, 70)
    assert path.name == "network-snapshot-0000000070.safetensors"
    denoiser = write(path)
    loaded, info = load_snapshot(path)
    assert info.model == config()
    assert info.sampling == {"name": "heun", "steps": 9}
    assert info.label_kind == "multi_hot"
    assert (info.label_names, info.images, info.ema) == (["a", "b"], 70, {"halflife": "5img"})
    assert set(info.versions) == {"format", "torch", "python"}
    x, labels = torch.randn(3, 1, 4, 6), torch.eye(2)[[0, 1, 1]]
    assert torch.equal(loaded(x, 0.4, labels), denoiser(x, 0.4, labels))
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert list(tmp_path.iterdir()) == [path]  # no temporary file is left


def test_an_infinite_option_survives(tmp_path: Path) -> None:
    path = snapshot_path(tmp_path, 1)
    sampling = {"name": "heun", "S_max": math.inf, "S_churn": 3.0}
    save_snapshot(path, build(config()).state_dict(), SnapshotInfo(config(), sampling))
    assert settings_from(read_info(path).sampling).options["S_max"] == math.inf


def test_the_newest_snapshot_of_a_run_is_found(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no network-snapshot"):
        find_snapshot(tmp_path)
    for images in (5, 1000):
        write(snapshot_path(tmp_path, images))
    assert find_snapshot(tmp_path) == snapshot_path(tmp_path, 1000)


def test_what_is_no_snapshot_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(UserError, match="no snapshot at"):
        read_info(tmp_path / "absent.safetensors")
    text = tmp_path / "text.safetensors"
    text.write_text("hello")
    foreign = tmp_path / "foreign.safetensors"
    save_file({"w": torch.zeros(2)}, foreign, metadata={"driftless": "[]"})
    bare = tmp_path / "bare.safetensors"
    save_file({"w": torch.zeros(2)}, bare)
    for path in (text, foreign, bare):
        with pytest.raises(UserError, match="not a snapshot of Driftless"):
            load_snapshot(path)


def test_a_truncated_snapshot_is_refused(tmp_path: Path) -> None:
    path = snapshot_path(tmp_path, 1)
    write(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError):
        load_snapshot(path)


def test_tensors_that_do_not_match_the_config_are_refused(tmp_path: Path) -> None:
    path = snapshot_path(tmp_path, 1)
    state = build(config()).state_dict()
    state.pop("model.map_label.bias")
    save_snapshot(path, state, SnapshotInfo(config()))
    with pytest.raises(
        UserError, match=r"1 tensors do not match its config, first model\.map_label"
    ):
        load_snapshot(path)


def test_config_errors_name_the_key() -> None:
    tree = config().model_dump()
    with pytest.raises(UserError, match="did you mean 'label_dim'"):
        validated(ModelConfig, {**tree, "label_dims": 3}, "test")
    with pytest.raises(UserError, match=r"did you mean 'preconditioning\.sigma_data'"):
        validated(ModelConfig, {**tree, "preconditioning": {"sigma_dat": 3}}, "test")
    with pytest.raises(UserError, match="test: img_channels is 0"):
        validated(ModelConfig, {**tree, "img_channels": 0}, "test")
