"""Checkpoint files: containers, side files, and files that must not be trusted."""

import argparse
import json
import pickle  # only to make the file that must be refused
import textwrap
from pathlib import Path

import pytest
import torch
import yaml

from importers.checkpoint import load_checkpoint
from tests.command import assert_refused, call, run
from tests.importers.foreign import ddpm_xyf, numbered, sa_dpm
from torch_utils.errors import UserError

STATE = numbered(sa_dpm(32, [1, 2], 1, [False, True]))
LINEAR = {"name": "linear", "num_steps": 1000, "beta_start": 1e-4, "beta_end": 0.02}
SIDE = {"image_size": 16, "schedule": LINEAR}


def write(path: Path, container: object, side: dict | None = None) -> Path:
    torch.save(container, path)
    if side is not None:
        path.with_suffix(".yaml").write_text(yaml.safe_dump(side))
    return path


def doubled() -> dict[str, torch.Tensor]:
    return {name: 2 * tensor for name, tensor in STATE.items()}


@pytest.mark.parametrize(
    "container",
    [
        STATE,
        {f"module.{name}": tensor for name, tensor in STATE.items()},
        {"model": doubled(), "ema": {"decay": 0.9999, "shadow": STATE, "num_updates": 3}},
        {"model": STATE},
        {"state_dict": STATE, "epoch": 3},
    ],
    ids=["bare", "module", "shadow", "model", "state_dict"],
)
def test_published_containers_are_opened(container: object, tmp_path: Path) -> None:
    found = load_checkpoint(write(tmp_path / "a.pth", container, SIDE))
    assert found.family == "sa-dpm"
    assert found.sizes["img_resolution"] == (16, 16)
    assert sum(t.double().sum() for t in found.state_dict.values()) == pytest.approx(
        float(sum(t.double().sum() for t in STATE.values()))
    )


def test_raw_weights_on_request(tmp_path: Path) -> None:
    both = {"model": doubled(), "ema": {"shadow": STATE}}
    path = write(tmp_path / "a.pt", both, SIDE)
    ema, raw = load_checkpoint(path), load_checkpoint(path, weights="raw")
    for name, tensor in ema.state_dict.items():
        torch.testing.assert_close(raw.state_dict[name], 2 * tensor)
    with pytest.raises(UserError, match="no raw weights"):
        load_checkpoint(write(tmp_path / "b.pt", {"ema": {"shadow": STATE}}, SIDE), weights="raw")


def test_what_is_missing_is_listed_with_the_place_to_write_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pth", STATE)
    with pytest.raises(
        UserError, match=r"img_resolution.*schedule.*a\.yaml, or give --model-config"
    ):
        load_checkpoint(path)
    config = tmp_path / "other.json"
    config.write_text(json.dumps({"img_resolution": 16, "schedule": LINEAR}))
    assert load_checkpoint(path, model_config=config).settings["prediction"] == "eps"
    config.write_text("[1]")
    with pytest.raises(UserError, match="not a mapping"):
        load_checkpoint(path, model_config=config)
    config.write_text(json.dumps({"img_resolution": 16, "schedul": "linear"}))
    with pytest.raises(UserError, match="schedule"):
        load_checkpoint(path, model_config=config)


def test_a_published_config_file_serves_as_side_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pth", STATE)
    published = """
        data: {dataset: AFHQ, image_size: 16, channels: 3}
        model:
          {ch: 32, ch_mult: [1, 2], attn_resolutions: [8], resamp_with_conv: True, ema_rate: 0.99}
        diffusion:
          beta_schedule: linear
          beta_start: 1e-4
          beta_end: 0.02
          num_diffusion_timesteps: 500
        training: {batch_size: 32, n_epochs: 100}
    """
    path.with_suffix(".yml").write_text(published)
    found = load_checkpoint(path)
    assert found.sizes["img_resolution"] == (16, 16)
    assert found.settings == {
        "prediction": "eps",
        "schedule": {"name": "beta_linear", "num_steps": 500, "beta_start": 1e-4, "beta_end": 0.02},
    }
    with_ours = published.replace("image_size: 16, ", "") + "    img_resolution: [16, 24]"
    path.with_suffix(".yml").write_text(textwrap.dedent(with_ours).replace("[8]", "[12]"))
    assert load_checkpoint(path).sizes["img_resolution"] == (16, 24)
    path.with_suffix(".yml").write_text(published.replace("[8]", "[16]"))
    with pytest.raises(UserError, match=r"attn_resolutions is given as \[16\]"):
        load_checkpoint(path)


@pytest.mark.parametrize("labels", [0, 10], ids=["unconditional", "conditional"])
def test_a_published_file_of_the_ddpm_implementation_counts_the_classes_of_its_data(
    labels: int, tmp_path: Path
) -> None:
    shapes = ddpm_xyf(32, [1, 2], 1, [False, True], num_classes=labels)
    path = write(tmp_path / "model.pt", {"model": numbered(shapes)})
    published = """
        seed: 2022
        data:
          target: datasets.cifar10.CIFAR10
          params: {root: ~/data/CIFAR-10/, img_size: 16, img_channels: 3}
          num_classes: 10
        dataloader: {num_workers: 4, pin_memory: true, prefetch_factor: 2}
        model:
          target: models.unet.UNet
          params:
            {dim: 32, dim_mults: [1, 2], use_attn: [false, true], num_res_blocks: 1, n_heads: 1,
             dropout: 0.1}
        diffusion:
          target: diffusions.ddpm.DDPM
          params:
            {total_steps: 1000, beta_schedule: linear, beta_start: 1e-4, beta_end: 2e-2,
             objective: pred_eps, var_type: fixed_large}
        train: {n_steps: 800000, batch_size: 128, ema_decay: 0.9999, ema_gradual: true}
    """
    path.with_suffix(".yaml").write_text(published)
    found = load_checkpoint(path)
    assert found.sizes["label_dim"] == labels
    assert found.settings["schedule"]["beta_start"] == 1e-4
    # what describes the model has to agree with its tensors
    wrong = published.replace("dim: 32,", f"dim: 32, num_classes: {labels + 1},")
    path.with_suffix(".yaml").write_text(wrong)
    with pytest.raises(UserError, match=f"label_dim is given as {labels + 1}"):
        load_checkpoint(path)


def test_the_training_checkpoint_of_sa_dpm_is_opened(tmp_path: Path) -> None:
    arguments = argparse.Namespace(config="afhq.yml", lamda=0.2)
    raw = {f"module.{name}": tensor for name, tensor in STATE.items()}
    container = {"args": arguments, "model_dict": raw, "epoch": 3, "step": 9}
    path = write(tmp_path / "ckpt.pth", container, SIDE)
    assert load_checkpoint(path, weights="raw").family == "sa-dpm"
    with pytest.raises(UserError, match="no ema weights"):
        load_checkpoint(path)


def test_averages_without_names_are_not_replaced_by_raw_weights(tmp_path: Path) -> None:
    container = {"model": STATE, "ema": {"shadow": list(STATE.values())}}
    path = write(tmp_path / "a.pt", container, SIDE)
    with pytest.raises(UserError, match="no ema weights"):
        load_checkpoint(path)
    assert load_checkpoint(path, weights="raw").family == "sa-dpm"


@pytest.mark.parametrize(
    "container",
    [
        {0: torch.zeros(2)},
        STATE | {"conv_in.weight": torch.zeros(())},
        STATE | {"norm_out.bias": torch.zeros(32).to_sparse()},
        STATE | {"conv_out.weight": torch.zeros(5, 32, 3, 3), "conv_out.bias": torch.zeros(5)},
    ],
    ids=["numbers", "scalar", "sparse", "channels"],
)
def test_odd_tensors_are_one_line(container: dict, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        load_checkpoint(write(tmp_path / "a.pth", container, SIDE))


def test_keys_that_are_no_names_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pth", STATE)
    path.with_suffix(".yaml").write_text("image_size: 16\n1: 2\n")
    with pytest.raises(UserError, match="the key 1 is not a name"):
        load_checkpoint(path)


class Trap:
    """Unpickled without care, it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    for name, content in [
        ("a.pth", pickle.dumps({"model": Trap(mark)})),
        ("b.pth", b"not a checkpoint"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match="cannot be read as plain tensors"):
            load_checkpoint(tmp_path / name)
    torch.save({"model": STATE, "args": Trap(mark)}, tmp_path / "c.pth")
    with pytest.raises(UserError, match="cannot be read as plain tensors"):
        load_checkpoint(tmp_path / "c.pth")
    assert not mark.exists()


def test_the_command_prints_what_a_file_holds(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pth", STATE, SIDE)
    done = run("snapshot_tool.py", "info", path)
    assert done.returncode == 0, done.stderr
    found = yaml.safe_load(done.stdout)
    assert found["family"] == "sa-dpm"
    assert found["model"]["network"]["channel_mult"] == [1, 2]
    assert found["parameters"] == sum(tensor.numel() for tensor in STATE.values())
    path.with_suffix(".yaml").unlink()
    assert_refused(call("snapshot_tool.py", "info", path), "img_resolution", "--model-config")
    assert_refused(call("snapshot_tool.py", "info", tmp_path / "absent.pth"), "no snapshot at")
    assert_refused(call("snapshot_tool.py", "inform"), "inform", "info")


def test_the_command_reads_our_snapshots(tmp_path: Path) -> None:
    from tests.test_generate_cli import write_snapshot

    path = write_snapshot(tmp_path / "net.safetensors", 3)
    found = yaml.safe_load(call("snapshot_tool.py", "info", path).stdout)
    assert found["model"]["label_dim"] == 3
    for images in (3, 20):  # of a run the newest
        write_snapshot(tmp_path / f"network-snapshot-{images:010d}.safetensors", images)
    found = yaml.safe_load(call("snapshot_tool.py", "info", tmp_path).stdout)
    assert found["model"]["label_dim"] == 20
    assert found["label_names"] == ["ant", "bee", "cow"]
