"""snapshot_tool.py: what it prints, what it writes, and that wrong input is one line."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file

from importers.converting import FORMS
from models.snapshot import load_snapshot, read_info, save_snapshot, snapshot_path
from snapshot_tool import convert
from tests.command import assert_refused, call, run
from tests.importers.foreign import sa_dpm
from tests.test_generate_cli import write_snapshot
from tests.training.runs import train_tiny

TOOL = "snapshot_tool.py"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with scores and a third average, which one reconstructed from the others can meet."""
    folder = tmp_path_factory.mktemp("run")
    score = ["evaluate.detector=pixels", "evaluate.num_images=20", "evaluate.every=16"]
    lively = ["run.duration=48it", "run.snap=1it", "run.tick=1it", "run.dump=16it"]
    plain = ["loss.terms=[denoising]", "optimizer.warmup=0", "optimizer.lr=1e-2"]
    plain += ["run.batch_gpu=16", "preview=off"]
    train_tiny(folder, "ema.posthoc=[0.05,0.1,0.15]", *score, *lively, *plain)
    return folder


@pytest.fixture
def snapshots(tmp_path: Path) -> tuple[Path, Path]:
    """Two snapshots of one config."""
    first, second = (tmp_path / name for name in ("a.safetensors", "b.safetensors"))
    write_snapshot(first, 3)
    denoiser, info = load_snapshot(first)
    for parameter in denoiser.parameters():
        parameter.mul_(0.7).add_(0.01)
    save_snapshot(second, denoiser.state_dict(), info)
    return first, second


# ---- info


def test_a_run_is_described_with_its_files_and_best_scores(whole: Path) -> None:
    done = call(TOOL, "info", whole)
    assert done.returncode == 0, done.stderr
    found = yaml.safe_load(done.stdout)
    snapshots = found["run"]["snapshots"]
    assert [row["images"] for row in snapshots] == [*range(16, 769, 16)]
    assert snapshots[-1]["other_averages"] == ["0.050", "0.100", "0.150"]
    assert [row["images"] for row in found["run"]["states"]] == [256, 512, 768]
    rows = [json.loads(line) for line in (whole / "stats.jsonl").read_text().splitlines()]
    scores = [row["Score/fd_pixels-20"]["mean"] for row in rows if "Score/fd_pixels-20" in row]
    best = found["run"]["best"]["fd_pixels-20"]
    assert len(scores) > 2
    assert best["score"] == min(scores)
    assert (whole / best["file"]).is_file()
    assert found["kind"] == "snapshot"
    assert found["file"] == str(snapshot_path(whole, 768))
    assert found["images"] == 768
    assert found["bytes"] == snapshot_path(whole, 768).stat().st_size
    assert found["ema"]["kind"] == "halflife"


def test_a_run_without_a_snapshot_is_described(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("{}")
    assert_refused(call(TOOL, "info", tmp_path), "snapshot")  # no run, as far as one can see
    (tmp_path / "log.txt").touch()
    found = yaml.safe_load(call(TOOL, "info", tmp_path).stdout)
    assert found == {"run": {"folder": str(tmp_path), "snapshots": [], "states": []}}


def test_other_averages_and_foreign_files_are_described(whole: Path, tmp_path: Path) -> None:
    found = yaml.safe_load(call(TOOL, "info", snapshot_path(whole, 768, "0.050")).stdout)
    assert (found["ema"]["kind"], found["ema"]["sigma_rel"]) == ("power", 0.05)
    path = foreign(tmp_path)
    found = yaml.safe_load(call(TOOL, "info", path).stdout)
    assert (found["kind"], found["family"]) == ("foreign checkpoint", "sa-dpm")
    assert found["bytes"] == path.stat().st_size
    state = torch.load(path, weights_only=True)
    assert found["parameters"] == sum(tensor.numel() for tensor in state.values())


def foreign(folder: Path) -> Path:
    """A checkpoint of SA-DPM with the facts beside it."""
    shapes = sa_dpm(32, [1, 2], 1, [False, True])
    random = torch.Generator().manual_seed(0)
    state = {name: 0.1 * torch.randn(shape, generator=random) for name, shape in shapes.items()}
    torch.save(state, folder / "model_1_ema.pth")
    schedule = {"name": "linear", "num_steps": 100, "beta_start": 1e-4, "beta_end": 0.02}
    side = {"image_size": 8, "schedule": schedule}
    (folder / "model_1_ema.yaml").write_text(yaml.safe_dump(side))
    return folder / "model_1_ema.pth"


# ---- convert


def test_a_converted_checkpoint_gives_the_same_images(tmp_path: Path) -> None:
    source, dest = foreign(tmp_path), tmp_path / "new" / "ours.safetensors"
    done = call(TOOL, "convert", source, f"--dest={dest}")
    assert done.returncode == 0, done.stderr
    assert f"sa-dpm {source} -> driftless {dest}" in done.stdout
    images = images_of_model(source, tmp_path / "a")
    assert len(images) == 2
    assert images_of_model(dest, tmp_path / "b") == images
    done = call(TOOL, "diff", source, dest)
    assert (done.returncode, done.stdout) == (0, "equal\n"), done.stdout


def test_a_state_dict_has_our_names_and_nothing_else(
    snapshots: tuple[Path, Path], tmp_path: Path
) -> None:
    dest = tmp_path / "plain.safetensors"
    done = call(TOOL, "convert", snapshots[0], f"--dest={dest}", "--to=state-dict")
    assert done.returncode == 0, done.stderr
    assert "config, labels and sampler settings are not in it" in done.stdout
    expected = load_file(snapshots[0])
    found = load_file(dest)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    with safe_open(dest, framework="pt") as file:
        assert "driftless" not in (file.metadata() or {})


def images_of_model(network: Path, outdir: Path) -> list[bytes]:
    options = [f"--network={network}", f"--outdir={outdir}", "--seeds=0-1", "--steps=4"]
    made = call("generate.py", *options)
    assert made.returncode == 0, made.stderr
    return [path.read_bytes() for path in sorted(outdir.rglob("*.png"))]


def test_a_folder_of_diffusers_gives_the_same_images(tmp_path: Path) -> None:
    source, folder = foreign(tmp_path), tmp_path / "folder"
    done = call(TOOL, "convert", source, f"--dest={folder}", "--to=diffusers")
    assert done.returncode == 0, done.stderr
    assert images_of_model(folder, tmp_path / "b") == images_of_model(source, tmp_path / "a")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    again = [TOOL, "convert", source, f"--dest={folder}", "--to=diffusers"]
    assert_refused(call(*again), "--overwrite")
    (folder / "unet" / "config.json").write_text("{}")
    assert call(*again, "--overwrite").returncode == 0
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []
    diffusers = pytest.importorskip("diffusers")
    pipeline = diffusers.DDPMPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    (image,) = pipeline(num_inference_steps=2, output_type="np").images
    assert image.shape == (8, 8, 3)


def test_what_diffusers_cannot_express_leaves_the_folder_as_it_was(
    snapshots: tuple[Path, Path], tmp_path: Path
) -> None:
    dest = f"--dest={tmp_path / 'folder'}"
    done = call(TOOL, "convert", snapshots[0], dest, "--to=diffusers")
    assert_refused(done, "cannot express the network ddpmpp")
    assert sorted(tmp_path.iterdir()) == sorted(snapshots)
    done = call(TOOL, "convert", snapshots[0], f"{dest}.safetensors", "--to=diffusers")
    assert_refused(done, "is a folder")


def test_nothing_is_replaced_unless_it_is_meant(
    snapshots: tuple[Path, Path], tmp_path: Path
) -> None:
    first, second = snapshots
    before = second.read_bytes()
    assert_refused(call(TOOL, "convert", first, f"--dest={second}"), str(second), "--overwrite")
    assert second.read_bytes() == before
    assert call(TOOL, "convert", first, f"--dest={second}", "--overwrite").returncode == 0
    assert call(TOOL, "diff", first, second).returncode == 0
    (tmp_path / "x.safetensors").mkdir()
    done = call(TOOL, "convert", first, f"--dest={tmp_path / 'x.safetensors'}", "--overwrite")
    assert_refused(done, "is a folder")
    done = call(TOOL, "convert", first, f"--dest={tmp_path / 'x.pth'}")
    assert_refused(done, "x.pth", ".safetensors")
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").touch()
    done = call(TOOL, "convert", first, f"--dest={other}", "--to=diffusers", "--overwrite")
    assert_refused(done, "folder of other files")
    assert (other / "thesis.tex").exists()
    done = call(TOOL, "convert", first, f"--dest={tmp_path / 'text' / 'x.safetensors'}")
    assert done.returncode == 0, done.stderr
    (tmp_path / "file").touch()
    done = call(TOOL, "convert", first, f"--dest={tmp_path / 'file' / 'x.safetensors'}")
    assert_refused(done, "cannot write")
    assert not [path for path in tmp_path.rglob("*") if ".tmp-" in path.name]


def test_the_forms_are_those_of_the_option() -> None:
    (option,) = [parameter for parameter in convert.params if parameter.name == "form"]
    assert tuple(option.type.choices) == FORMS


# ---- diff


def test_differences_are_listed_by_block_or_tensor(snapshots: tuple[Path, Path]) -> None:
    first, second = snapshots
    assert call(TOOL, "diff", first, first).stdout == "equal\n"
    weights = load_file(first)
    name = next(name for name in weights if name.endswith("_conv.weight"))
    weights[name][0, 0, 0, 0] += 0.5
    info = read_info(first)
    save_snapshot(second, weights, info)
    done = run(TOOL, "diff", first, second)
    assert done.returncode == 1, done.stderr
    head, _, row = done.stdout.splitlines()
    assert head == f"1 of {len(weights)} tensors differ"
    assert row.split()[:3] == [name.removesuffix(".weight"), "1", "0.5"]
    row = run(TOOL, "diff", first, second, "--tensors").stdout.splitlines()[-1]
    assert row.split()[:3] == [name, "1", "0.5"]


def test_two_points_of_a_run_differ_in_progress_and_weights(whole: Path) -> None:
    done = call(TOOL, "diff", snapshot_path(whole, 16), whole)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert "images: 16 -> 768" in lines
    assert any(line.endswith("tensors differ") for line in lines)


def test_what_cannot_be_compared_is_one_line(snapshots: tuple[Path, Path], tmp_path: Path) -> None:
    assert_refused(call(TOOL, "diff", snapshots[0], tmp_path / "none.safetensors"), "none")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(snapshots[0].read_bytes()[:-9])
    assert_refused(call(TOOL, "diff", snapshots[0], broken), "broken.safetensors")


# ---- average


def test_averages_have_the_shares_that_were_given(
    snapshots: tuple[Path, Path], tmp_path: Path
) -> None:
    first, second = (load_file(path) for path in snapshots)
    for options, share in ([], 0.5), (["--weights=0.25,0.75"], 0.25):
        dest = tmp_path / f"{share}.safetensors"
        done = call(TOOL, "average", *snapshots, f"--dest={dest}", *options)
        assert done.returncode == 0, done.stderr
        found = load_snapshot(dest)[0].state_dict()
        for name, tensor in found.items():
            torch.testing.assert_close(tensor, share * first[name] + (1 - share) * second[name])
    ema = read_info(dest).ema
    assert ema is not None
    assert [entry["share"] for entry in ema["of"]] == [0.25, 0.75]
    assert [entry["file"] for entry in ema["of"]] == [path.name for path in snapshots]


def test_averages_that_make_no_sense_are_one_line(
    snapshots: tuple[Path, Path], tmp_path: Path
) -> None:
    dest = f"--dest={tmp_path / 'x.safetensors'}"
    other = write_snapshot(tmp_path / "c.safetensors", 4)
    assert_refused(call(TOOL, "average", snapshots[0], other, dest), "label_dim: 3 -> 4")
    for weights, word in ("1", "2 models"), ("0.5,0.6", "add up to 1"), ("a,b", "numbers"):
        done = call(TOOL, "average", *snapshots, dest, f"--weights={weights}")
        assert_refused(done, word)
    assert_refused(call(TOOL, "average", *snapshots, f"--dest={other}"), "--overwrite")
    assert not (tmp_path / "x.safetensors").exists()


# ---- ema


def test_the_average_of_a_real_run_is_the_tracked_one(whole: Path, tmp_path: Path) -> None:
    """The run tracked the length 0.15, too; its files are not there when it is made."""
    folder, dest = tmp_path / "run", tmp_path / "made.safetensors"
    shutil.copytree(whole, folder)
    for path in folder.glob("network-snapshot-*-0.150.safetensors"):
        path.unlink()
    done = call(TOOL, "ema", f"--run={folder}", "--length=0.15", f"--dest={dest}")
    assert done.returncode == 0, done.stderr
    assert "of 96 stored averages" in done.stdout
    assert not done.stderr
    made, tracked = load_file(dest), load_file(snapshot_path(whole, 768, "0.150"))
    near = load_file(snapshot_path(whole, 768, "0.100"))

    def error(found: dict[str, torch.Tensor]) -> float:
        pairs = [(found[name], tensor) for name, tensor in tracked.items()]
        gap = sum((a - b).square().sum().item() for a, b in pairs)
        return float((gap / sum(b.square().sum().item() for _, b in pairs)) ** 0.5)

    assert error(made) < 1e-3
    assert error(near) > 5 * error(made)  # else this would prove little
    info = read_info(dest)
    assert info.ema is not None
    assert (info.images, info.ema["sigma_rel"]) == (768, 0.15)
    load_snapshot(dest)


def test_a_poor_fit_is_said(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for images in (256, 768):
        shutil.copy(snapshot_path(whole, images, "0.050"), folder)
    dest = tmp_path / "made.safetensors"
    done = call(TOOL, "ema", f"--run={folder}", "--length=0.2", f"--dest={dest}")
    assert done.returncode == 0
    assert done.stderr.startswith("warning: the fit is poor: a relative residual of ")
    assert dest.exists()
    again = call(TOOL, "ema", f"--run={folder}", "--length=0.2", f"--dest={dest}", "--images=256")
    assert_refused(again, "--overwrite")


def test_averages_that_cannot_be_made_are_one_line(whole: Path, tmp_path: Path) -> None:
    dest = f"--dest={tmp_path / 'x.safetensors'}"
    assert_refused(call(TOOL, "ema", f"--run={whole}", "--length=0.5", dest), "0.28")
    done = call(TOOL, "ema", f"--run={whole}", "--length=0.1", "--images=17", dest)
    assert_refused(done, "no averages at 17 images", "16 and 32")
    done = call(TOOL, "ema", f"--run={tmp_path}", "--length=0.1", dest)
    assert_refused(done, "ema.posthoc=on")
    assert_refused(call(TOOL, "ema", f"--run={tmp_path / 'none'}", "--length=0.1", dest), "none")
    damaged = tmp_path / "run"
    damaged.mkdir()
    for name in ("0.050", "0.100"):
        shutil.copy(snapshot_path(whole, 768, name), damaged)
    path = snapshot_path(damaged, 768, "0.050")
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    done = call(TOOL, "ema", f"--run={damaged}", "--length=0.07", dest)
    assert_refused(done, path.name, "checksum")


def test_a_description_by_hand_is_not_trusted(whole: Path, tmp_path: Path) -> None:
    source, dest = snapshot_path(whole, 768, "0.050"), tmp_path / "x.safetensors"
    weights, info = load_file(source), read_info(source)
    for ema, word in (
        ({"kind": "power"}, "no averages"),
        ({"kind": "power", "sigma_rel": "0.05"}, "no averages"),
        ({"kind": "power", "sigma_rel": 9.0}, "length of an average is 9"),
    ):
        save_snapshot(tmp_path / source.name, weights, replace(info, ema=ema))
        done = call(TOOL, "ema", f"--run={tmp_path}", "--length=0.07", f"--dest={dest}")
        assert_refused(done, word)
