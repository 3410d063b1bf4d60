"""Resuming goes on to the same bits; damaged states are passed over; other configs are refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.runs import (
    CPU,
    assert_equal_states,
    tiny_config,
    tiny_data,
    tiny_wish,
    train_tiny,
)
from torch_utils.errors import Failure, UserError
from training.choice import old_run
from training.loop import train
from training.recipes import dump_config
from training.run_dir import CONFIG_FILE, create_run_dir, locked
from training.setup import checked_model, create_trainer, model_of, transfer, transferable
from training.source import MicroBatches
from training.state import load_state, newest_state, save_state, state_path

FEW = "run.duration=4it"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """An uninterrupted run of 12 steps."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / CONFIG_FILE).write_text(dump_config(tiny_config()))
    return folder, train_tiny(folder)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What four steps train."""
    return dict(train_tiny(tmp_path_factory.mktemp("few"), FEW)["trainer"])


def copy_until(source: Path, target: Path, images: int) -> None:
    """A run directory as it was after some images."""
    shutil.copytree(source, target)
    for path in target.glob("training-state-*.pt"):
        if path > state_path(target, images):
            path.unlink()


def test_n_steps_resume_n_steps_are_2n_steps_bit_for_bit(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    short = "run.duration=96img"  # 6 of 12 steps, in the middle of a tick of the whole run
    half = train_tiny(tmp_path / "run", short)
    assert half["trainer"]["seen"] == 96
    assert_equal_states(train_tiny(tmp_path / "run", resume=True)["trainer"], whole[1]["trainer"])


def test_the_whole_state_is_reached_from_every_saved_one(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, final = whole
    states = sorted(folder.glob("training-state-*.pt"))
    assert [path.name for path in states] == [
        f"training-state-{images:010d}.pt" for images in (144, 176, 192)
    ]
    for path in states[:2]:
        target = tmp_path / path.stem
        copy_until(folder, target, int(path.stem.split("-")[-1]))
        assert_equal_states(train_tiny(target, resume=True), final)
        ours, theirs = ((f / "stats.jsonl").read_text().splitlines() for f in (target, folder))
        assert len(ours) == len(theirs)
        for a, b in zip(map(json.loads, ours), map(json.loads, theirs), strict=True):
            assert a["Loss/loss"] == b["Loss/loss"]
            assert a["Progress/kimg"] == b["Progress/kimg"]


def test_a_kill_before_the_first_state_leaves_no_line_twice(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    lines = (whole[0] / "stats.jsonl").read_text().splitlines()
    (folder / "stats.jsonl").write_text("".join(f"{line}\n" for line in lines[:2]) + lines[2][:40])
    train_tiny(folder, resume=True)
    assert len((folder / "stats.jsonl").read_text().splitlines()) == len(lines)


@pytest.mark.parametrize(
    "override",
    ["network.dropout=0", "run.label_dropout=0", "run.seed=1", "data.xflip=false", "augment.p=0.2"],
)
def test_everything_random_matters_to_the_result(
    override: str, few: dict[str, Any], tmp_path: Path
) -> None:
    """Else the test above would prove little."""
    weights = few["denoiser"]
    changed = train_tiny(tmp_path / "run", FEW, override)["trainer"]["denoiser"]
    assert any(not torch.equal(changed[name], weights[name]) for name in weights)


def test_a_damaged_newest_state_gives_way_to_the_one_before(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder)
    newest, before, oldest = sorted(folder.glob("training-state-*.pt"), reverse=True)
    newest.write_bytes(newest.read_bytes()[:-1000])
    content = bytearray(before.read_bytes())
    content[len(content) // 2] ^= 1  # a single bit, which only a checksum can see
    before.write_bytes(bytes(content))
    path, state, problems = newest_state(folder)
    assert path == oldest
    assert state is not None
    assert len(problems) == 2
    assert all("damaged" in problem for problem in problems)
    oldest.write_bytes(b"")
    with pytest.raises(UserError, match="every training state"):
        newest_state(folder)


def test_states_are_plain_data_and_only_the_newest_are_kept(tmp_path: Path) -> None:
    for images in (1, 2, 3, 4):
        save_state(tmp_path, {"trainer": {"seen": images}}, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "training-state-0000000003.pt",
        "training-state-0000000004.pt",
    ]
    loaded = torch.load(state_path(tmp_path, 4), weights_only=True)
    assert loaded["trainer"] == {"seen": 4}
    torch.save([1], tmp_path / "other.pt")
    with pytest.raises(UserError, match="not a training state"):
        load_state(tmp_path / "other.pt")
    with pytest.raises(UserError, match="no training state at"):
        load_state(tmp_path / "absent.pt")


def test_a_changed_config_is_listed_and_refused(whole: tuple[Path, dict[str, Any]]) -> None:
    folder = whole[0]
    overrides = "optimizer.lr=0.5", "run.seed=9", "run.duration=40it"
    with pytest.raises(UserError, match=r"optimizer.lr: 0.002 -> 0.5; run.seed: 0 -> 9"):
        old_run(tiny_wish(*overrides), str(folder))
    chosen, notes = old_run(tiny_wish(*overrides, allow_config_change=True), str(folder))
    assert chosen is not None
    assert notes == [
        "config changed: optimizer.lr: 0.002 -> 0.5",
        "config changed: run.seed: 0 -> 9",
    ]
    assert chosen.seen == 192
    assert not chosen.is_complete  # the duration is longer now


def test_a_run_directory_has_one_trainer_at_a_time(tmp_path: Path) -> None:
    other = pytest.raises(UserError, match="another process is training")
    with locked(tmp_path), other, locked(tmp_path):
        pass
    with locked(tmp_path):
        pass  # free again


def test_run_directories_are_numbered_and_never_shared(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: create_run_dir(tmp_path / "out", "x"), range(16)))
    assert sorted(folder.name for folder in folders) == [f"{i:05d}-x" for i in range(16)]
    (tmp_path / "out" / "00040-y").mkdir()
    assert create_run_dir(tmp_path / "out", "x").name == "00041-x"
    (tmp_path / "out" / "config.yaml").touch()
    with pytest.raises(UserError, match="already holds a run"):
        create_run_dir(tmp_path / "out", None)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        create_run_dir(tmp_path / "file" / "out", "x")


def test_transfer_copies_by_name_and_lists_what_is_missing(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    data = tiny_data()
    plain = tiny_config("data.cond=false", "run.label_dropout=0", "run.duration=2it")
    train(plain, replace(data, labels=None), tmp_path, CPU)
    (snapshot,) = tmp_path.glob("network-snapshot-0000000032*")
    config = tiny_config()
    trainer = create_trainer(config, model_of(config, data), CPU)
    assert transfer(trainer, str(tmp_path)) == transfer(trainer, str(snapshot)).replace(
        str(snapshot), str(tmp_path)
    )
    line = transfer(trainer, str(snapshot))
    assert line.endswith("left as initialised: model.map_label.bias, model.map_label.weight")
    average = load_state(state_path(tmp_path, 32))["trainer"]["average"]
    for module in (trainer.denoiser, trainer.average):
        state = module.state_dict()
        for name, tensor in average.items():
            assert torch.equal(tensor, state[name]), name
    wider = tiny_config("network.model_channels=32")
    with pytest.raises(UserError, match="has shape"):
        transferable(str(snapshot), checked_model(wider, data))


def test_steps_that_are_not_finite_are_skipped_counted_and_end_the_run(tmp_path: Path) -> None:
    config = tiny_config("run.max_bad_steps=3", "run.tick=1it")
    data = tiny_data()
    model = model_of(config, data)
    trainer = create_trainer(config, model, CPU)
    source = MicroBatches(config, data, trainer.objective, CPU)
    pairs = [(batch, draws) for batch, draws, _ in source.at(0)]
    before = {name: tensor.clone() for name, tensor in trainer.denoiser.state_dict().items()}
    pairs[1][0].images.fill_(float("nan"))
    trainer.seen = 320  # past the first step, whose rate is 0
    trainer.step(pairs)
    for name, tensor in trainer.denoiser.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert (int(trainer.guard.skipped), trainer.seen, trainer.updates) == (1, 336, 1)
    trainer.step([(batch, draws) for batch, draws, _ in source.at(16)])
    assert (int(trainer.guard.skipped), int(trainer.guard.in_a_row)) == (1, 0)
    assert any(
        not torch.equal(tensor, before[name])
        for name, tensor in trainer.denoiser.state_dict().items()
    )

    # an endless run of them: weights too large for float32
    train_tiny(tmp_path / "run", "run.duration=2it")
    path, state, _ = newest_state(tmp_path / "run")
    assert state is not None
    name = "model.enc.8x6_conv.weight"
    state["trainer"]["denoiser"][name].fill_(1e38)
    with pytest.raises(Failure, match="3 steps in a row"):
        train(config, data, tmp_path / "run", CPU, state=state)
    assert newest_state(tmp_path / "run")[0] == path  # the last good state is still the newest
    last = json.loads((tmp_path / "run" / "stats.jsonl").read_text().splitlines()[-1])
    assert last["Progress/skipped_steps"]["mean"] >= 1
    assert last["Loss/loss"]["mean"] is None


def test_checkpointing_activations_changes_nothing(few: dict[str, Any], tmp_path: Path) -> None:
    final = train_tiny(tmp_path / "run", FEW, "run.remat=true")
    assert_equal_states(final["trainer"], few)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_trains_like_fp32(
    precision: str, whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    assert tiny_config().run.precision == "fp32"
    train_tiny(tmp_path / precision, f"run.precision={precision}", "run.loss_scaling=64")

    def losses(folder: Path) -> list[float]:
        lines = (folder / "stats.jsonl").read_text().splitlines()
        return [json.loads(line)["Loss/loss"]["mean"] for line in lines]

    assert losses(tmp_path / precision) == pytest.approx(losses(whole[0]), rel=0.05)
    assert losses(tmp_path / precision) != losses(whole[0])


def test_clipping_bounds_the_gradient() -> None:
    config = tiny_config("optimizer.clip_norm=1e-3")
    data = tiny_data()
    trainer = create_trainer(config, model_of(config, data), CPU)
    source = MicroBatches(config, data, trainer.objective, CPU)
    trainer.step([(batch, draws) for batch, draws, _ in source.at(0)])
    gradients = [p.grad for p in trainer.trained.parameters() if p.grad is not None]
    assert torch.nn.utils.get_total_norm(gradients).item() == pytest.approx(1e-3, rel=1e-3)


def test_the_learned_uncertainty_is_trained_and_part_of_the_state(
    few: dict[str, Any], tmp_path: Path
) -> None:
    (values,) = few["uncertainty"]
    assert values["weight"].abs().max() > 0
    plain = train_tiny(tmp_path / "plain", FEW, "loss.uncertainty=false")["trainer"]
    assert plain["uncertainty"] == []
