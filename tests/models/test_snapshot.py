"""Snapshots come back as they were, and what is not one is refused in one line."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from models.build import build
from models.config import ModelConfig, PreconditioningConfig
from models.snapshot import (
    SnapshotInfo,
    find_snapshot,
    load_snapshot,
    read_info,
    save_snapshot,
    snapshot_path,
)
from networks import NETWORKS
from samplers.settings import generation_settings
from torch_utils.errors import UserError
from torch_utils.sections import validated


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
    assert generation_settings(read_info(path).sampling).options["S_max"] == math.inf


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


def rewritten(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """The same weights under a changed description, without a checksum."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    with safe_open(path, framework="pt") as file:
        record = json.loads(file.metadata()["driftless"])
    record.pop("sha256")
    change(record)
    save_file(load_file(path), path, metadata={"driftless": json.dumps(record)})


def test_snapshots_without_a_checksum_are_read(tmp_path: Path) -> None:
    path = snapshot_path(tmp_path, 1)
    write(path)
    rewritten(path, lambda record: None)
    assert load_snapshot(path)[1].label_names == ["a", "b"]


def test_a_flipped_bit_anywhere_in_a_snapshot_is_found(tmp_path: Path) -> None:
    path = snapshot_path(tmp_path, 1)
    write(path)
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    for position in [*range(0, start, 997), start, (start + len(content)) // 2, len(content) - 1]:
        path.write_bytes(
            content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :]
        )
        with pytest.raises(UserError) as caught:
            load_snapshot(path)
        assert position < start or "checksum" in str(caught.value)


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("network", "num_blocks", 10**9, "asks for 2000000000 blocks, but it has"),
        ("network", "num_blocks", 400, "asks for 800 blocks, but it has"),
        ("network", "num_blocks", 2, "tensors do not match its config"),
        ("network", "num_blocks", "a" * 10**4, "must be"),
        ("network", "channel_mult", "a" * 10**4, "must be"),
        ("network", "channel_mult", [1] * 10**4, "asks for 10000 blocks, but it has"),
        ("network", "model_channels", 10**9, "must be from 1 to 1048576"),
        ("network", "model_channels", 2**14, "tensors do not match its config"),
        ("model", "label_dim", 10**9, "label_dim"),
        ("model", "img_resolution", [2**40, 2], "img_resolution"),
        ("preconditioning", "sigma_data", True, "give a number"),
        (
            "preconditioning",
            "schedule",
            {"name": "beta_linear", "num_steps": 10**9},
            "from 2 to 65536",
        ),
        (None, "label_names", [1, 2], r"wrong at label_names\.0"),
        (None, "images", 10**30, "not a snapshot"),
        (None, "images", "many", "wrong at images"),
        (None, "sampling", [1], "wrong at sampling"),
        (None, "surprise", 1, "unknown entries"),
    ],
)
def test_a_description_that_asks_for_too_much_is_one_line(
    section: str | None, key: str, value: Any, message: str, tmp_path: Path
) -> None:
    path = snapshot_path(tmp_path, 1)
    write(path)

    def change(record: dict[str, Any]) -> None:
        model = record["model"]
        places = {None: record, "model": model, "network": model["network"]}
        places["preconditioning"] = model["preconditioning"] = {"name": "ddpm"}
        if section != "preconditioning":
            model["preconditioning"] = {"name": "edm"}
        places[section][key] = value

    rewritten(path, change)
    with pytest.raises(UserError, match=message):
        load_snapshot(path)


def test_a_network_larger_than_the_machine_is_refused() -> None:
    tree = config().model_dump()
    tree["network"] |= {"model_channels": 2**20}
    with pytest.raises(UserError, match=r"needs more than \d+ GiB, this machine has"):
        build(ModelConfig(**tree))


@pytest.mark.parametrize("name", sorted(NETWORKS))
@pytest.mark.parametrize("preconditioning", ["edm", "iddpm", "ddpm"])
def test_loading_draws_nothing_and_gives_the_model_that_was_built(
    name: str, preconditioning: str, tmp_path: Path
) -> None:
    described = ModelConfig(
        network={"name": name, "model_channels": 64, "channel_mult": [1, 1], "num_blocks": 1},
        preconditioning=PreconditioningConfig(name=preconditioning),
        img_resolution=(8, 8),
        img_channels=1,
        label_dim=2,
    )
    built = build(described).eval()
    path = snapshot_path(tmp_path, 1)
    save_snapshot(path, built.state_dict(), SnapshotInfo(described))
    before = torch.get_rng_state()
    loaded, _ = load_snapshot(path)
    assert torch.equal(torch.get_rng_state(), before)
    tensors = {**dict(loaded.named_parameters()), **dict(loaded.named_buffers())}
    assert not any(tensor.is_meta for tensor in tensors.values())
    x, labels = torch.randn(2, 1, 8, 8), torch.eye(2)
    assert torch.equal(loaded(x, 0.4, labels), built(x, 0.4, labels))
    path.write_bytes(b"")  # the weights are in memory: what becomes of the file is all one
    assert torch.equal(loaded(x, 0.4, labels), built(x, 0.4, labels))
