"""One door for every model: what a path is, and that every program gets the same model from it."""

import filecmp
import json
from pathlib import Path

import pytest
import torch
import yaml

import driftless
from importers.checkpoint import load_checkpoint
from importers.opening import OURS, find_model, is_model, kind_of, open_model, read_model
from models.snapshot import save_snapshot
from samplers.settings import generation_settings
from tests.command import ROOT, assert_refused, call
from tests.importers.foreign import sa_dpm, v_diffusion
from tests.importers.foreign_files import (
    FAMILIES,
    FILES,
    SA_DPM,
    SIDE,
    drawn,
    prefixed,
    v_diffusion_run,
)
from tests.machines.conditions import unprivileged
from tests.test_generate_cli import write_snapshot
from torch_utils.errors import UserError


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file or folder of every form, each in a folder of its own."""
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in FILES.items()}


def converted(path: Path, own: Path) -> Path:
    """The snapshot of ours that a foreign model becomes."""
    model = read_model(path)
    save_snapshot(own, model.denoiser().state_dict(), model.info)
    return own


@pytest.mark.parametrize("name", FILES)
def test_what_a_path_is_is_told_by_its_content(
    name: str, files: dict[str, Path], tmp_path: Path
) -> None:
    path = files[name]
    assert find_model(path) == path
    assert is_model(path)
    found = read_model(path)
    assert found.family == FAMILIES[name]
    generation_settings(found.info.sampling)
    if path.is_dir() or path.suffix == ".safetensors" or name == "edm":
        return
    renamed = tmp_path / "weights"  # neither its suffix nor its name tells anything
    renamed.write_bytes(path.read_bytes())
    renamed.with_suffix(".yaml").write_text(yaml.safe_dump(SIDE[FAMILIES[name]]))
    assert kind_of(renamed) == "checkpoint"
    assert read_model(renamed).family == FAMILIES[name]


@pytest.mark.parametrize("name", FILES)
def test_all_programs_make_the_images_of_the_converted_snapshot(
    name: str, files: dict[str, Path], tmp_path: Path
) -> None:
    path, own = files[name], converted(files[name], tmp_path / "own.safetensors")
    how = ["--seeds=0-1", "--steps=3"]
    for network, outdir in ((path, "a"), (own, "b")):
        done = call("generate.py", f"--network={network}", f"--outdir={tmp_path / outdir}", *how)
        assert done.returncode == 0, done.stderr
    same, *others = filecmp.cmpfiles(
        tmp_path / "a", tmp_path / "b", ["000000.png", "000001.png"], shallow=False
    )
    assert (len(same), others) == (2, [[], []])
    first = driftless.load(path, device="cpu").sample(range(2), steps=3, progress=False)
    second = driftless.load(own, device="cpu").sample(range(2), steps=3, progress=False)
    assert torch.equal(first, second)
    assert first.std() > 0.01


@pytest.mark.parametrize("name", ["sa-dpm-average", "edm"])
def test_a_foreign_model_is_scored_as_the_converted_snapshot(
    name: str, files: dict[str, Path], tmp_path: Path
) -> None:
    path, own = files[name], converted(files[name], tmp_path / "own.safetensors")
    how = ["--detector=pixels", "--steps=2"]
    done = call("generate.py", f"--network={own}", f"--outdir={tmp_path / 'ref'}", "--seeds=9-14")
    assert done.returncode == 0, done.stderr
    how.append(f"--ref={tmp_path / 'ref'}")
    scores = [
        call("fid.py", "gen", f"--network={network}", "--seeds=0-5", *how).stdout.splitlines()
        for network in (path, own)
    ]
    numbers = [[line for line in lines if "network" not in line] for lines in scores]
    assert len(numbers[0]) > 0
    assert numbers[0] == numbers[1]
    table = call("fid.py", "compare", path, own, tmp_path / "ref", "--num=6", *how)
    assert table.returncode == 0, table.stderr
    rows = [line.split() for line in table.stdout.splitlines()]
    values = [row[1:] for row in rows if row and row[0] in (str(path), str(own))]
    assert len(values) == 2
    assert values[0] == values[1]


def test_the_denoiser_is_that_of_the_published_formulas(files: dict[str, Path]) -> None:
    # DDPM: x0 = (z - sqrt(1 - alpha_bar) eps(z, t)) / sqrt(alpha_bar), at the levels of its table
    path = files["sa-dpm-average"]
    model = open_model(path).denoiser
    alpha_bar = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
    for step in (0, 250, 999):
        signal, noise = alpha_bar[step].sqrt(), (1 - alpha_bar[step]).sqrt()
        z = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        eps = model.model(z, torch.full([2], float(step)), None, None)
        expected = (z - noise * eps) / signal
        found = model((z / signal).float(), float(noise / signal))
        torch.testing.assert_close(
            found, expected.float(), rtol=1e-3, atol=1e-3 * float(1 / signal)
        )
    # v-diffusion: x0 = alpha z - sigma v(z, 1000 t)
    model = open_model(files["v-diffusion"]).denoiser
    level = torch.tensor(0.7, dtype=torch.float64)  # ln sigma / alpha
    alpha, sigma = torch.sigmoid(-2 * level).sqrt(), torch.sigmoid(2 * level).sqrt()
    ends = [2 / torch.pi * torch.atan(torch.exp(torch.tensor(-x / 2))) for x in (20.0, -20.0)]
    angle = 2 / torch.pi * torch.atan(torch.exp(level))
    time = 1000 * (angle - ends[0]) / (ends[1] - ends[0])
    z, labels = torch.randn(2, 3, 32, 32), torch.eye(4)[:2]
    v = model.model(z, time.expand(2).float(), labels, torch.ones(2, dtype=torch.bool))
    found = model((z / alpha).float(), float(sigma / alpha), labels)
    torch.testing.assert_close(found, (alpha * z - sigma * v).float(), rtol=1e-4, atol=1e-4)


def test_the_run_of_a_checkpoint_tells_sampler_progress_and_average(
    files: dict[str, Path],
) -> None:
    info = read_model(files["sa-dpm-training"]).info
    assert info.sampling == {"name": "ddim", "steps": 1000, "eta": 0.0, "spacing": "leading"}
    assert info.ema == {"kind": "constant", "decay": 0.9999}
    assert read_model(files["sa-dpm-training"], weights="raw").info.ema is None
    assert "40 steps and 3 epochs" in " ".join(read_model(files["sa-dpm-training"]).notes)
    info = read_model(files["v-diffusion"]).info
    assert info.sampling == {
        **{"name": "ddpm", "steps": 128, "clip": True, "variance": "interpolated"},
        **{"fraction": 0.3, "guidance": {"w": 0.1, "clip": "before"}},
    }
    assert (info.images, info.ema) == (50 * 128, {"kind": "ramp", "decay": 0.9999})
    assert (info.label_kind, info.label_dropout) == ("class", 0.1)
    assert info.model.img_resolution == (32, 32)
    info = read_model(files["ddpm-xyf-folder"]).info
    assert info.sampling == {
        **{"name": "ddpm", "steps": 1000, "variance": "small", "clip": True},
        "guidance": {"scale": 1.0, "clip": "both"},
    }
    assert (info.images, info.ema) == (10_000 * 64, {"kind": "ramp", "decay": 0.9999})
    assert info.label_dropout == 0.2


@pytest.mark.parametrize("name", ["sa-dpm-training", "ddim-list", "v-diffusion", "ddpm-xyf-folder"])
def test_averages_and_raw_weights_are_told_apart(name: str, files: dict[str, Path]) -> None:
    ema, raw = (
        load_checkpoint(files[name], weights=weights).state_dict for weights in ("ema", "raw")
    )
    shapes = {key: tensor.shape for key, tensor in ema.items()}
    assert shapes == {key: tensor.shape for key, tensor in raw.items()}
    assert not any(torch.equal(ema[key], raw[key]) for key in ema)


def test_averages_in_an_optimizer_that_do_not_fit_are_refused(
    files: dict[str, Path], tmp_path: Path
) -> None:
    container = torch.load(files["sa-dpm-training"], weights_only=False)
    container["optimizer"]["state"].popitem()
    torch.save(container, tmp_path / "ckpt.pth")
    with pytest.raises(UserError, match="has no ema weights"):
        load_checkpoint(tmp_path / "ckpt.pth")


def test_a_variance_that_is_learned_is_left_out(tmp_path: Path) -> None:
    plain = drawn(SA_DPM)
    doubled = {
        name: torch.cat([t, torch.full_like(t, 9.0)]) if name.startswith("conv_out") else t
        for name, t in plain.items()
    }
    models = []
    for name, state in (("plain", plain), ("doubled", doubled)):
        path = tmp_path / f"{name}.pth"
        torch.save(state, path)
        path.with_suffix(".yaml").write_text(yaml.safe_dump(SIDE["sa-dpm"]))
        models.append(open_model(path))
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(models[0].denoiser(x, 2.0), models[1].denoiser(x, 2.0))
    assert models[1].notes == ("the network's estimate of the variance is left out",)


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_one_set_of_weights_is_not_taken_for_the_other(
    weights: str, files: dict[str, Path], tmp_path: Path
) -> None:
    if weights == "raw":
        with pytest.raises(UserError, match="has averaged weights only"):
            read_model(files["sa-dpm-average"], weights="raw")
        return
    step = files["ddpm-xyf-folder"]
    with pytest.raises(UserError, match=r"averages without names; give .*ema_model\.pt"):
        read_model(step / "ema.pt")


def test_runs_and_snapshots_of_ours_are_found(tmp_path: Path) -> None:
    for images in (3, 20):
        write_snapshot(tmp_path / f"network-snapshot-{images:010d}.safetensors", 3)
    path = find_model(tmp_path)
    assert path.name == "network-snapshot-0000000020.safetensors"
    assert read_model(path).family == OURS
    assert is_model(tmp_path)
    with pytest.raises(UserError, match="holds its config"):
        read_model(path, model_config="a.yaml")
    with pytest.raises(UserError, match="one set of weights"):
        read_model(path, weights="raw")


def test_the_newest_pickle_of_a_run_of_edm_is_found(files: dict[str, Path], tmp_path: Path) -> None:
    for number in (12, 200):
        (tmp_path / f"network-snapshot-{number:06d}.pkl").write_bytes(files["edm"].read_bytes())
    assert find_model(tmp_path).name == "network-snapshot-000200.pkl"
    assert read_model(find_model(tmp_path)).info.images == 200_000


def cut(path: Path, size: int, tmp_path: Path) -> Path:
    found = tmp_path / "network-snapshot-0000000001.safetensors"
    found.write_bytes(path.read_bytes()[:size])
    return found


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "is damaged: it is empty"),
        (8, "is damaged: it ends before its header"),
        (100, "is damaged: it ends in its header, after 100 bytes: copy it again"),
        (-100, "is damaged: it ends after"),
    ],
)
def test_a_snapshot_that_is_cut_off_is_called_that(size: int, words: str, tmp_path: Path) -> None:
    path = write_snapshot(tmp_path / "whole.safetensors", 3)
    broken = cut(path, size, tmp_path)
    done = call("generate.py", f"--network={broken}", f"--outdir={tmp_path / 'o'}")
    assert_refused(done, str(broken), words)


def test_a_snapshot_that_may_not_be_read_is_called_that(open_folder: Path) -> None:
    path = write_snapshot(open_folder / "a.safetensors", 3)
    path.chmod(0)
    with unprivileged(), pytest.raises(UserError, match=r"cannot read .*: Permission denied"):
        read_model(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<html>not found</html>", "no checkpoint of a known kind"),
        (b"\x80\x04]\x94.", "no network of EDM"),
        (b"PK\x03\x04 and so on", "cannot be read as plain tensors"),
        (b"\x10\0\0\0\0\0\0\0{}", "is damaged: it ends in its header"),
    ],
    ids=["page", "pickle", "zip", "safetensors"],
)
def test_what_is_no_model_is_one_line_everywhere(
    content: bytes, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    rest = f"--outdir={tmp_path / 'o'}"
    assert_refused(call("generate.py", f"--network={path}", rest), words)
    assert_refused(
        call("train.py", "--config=configs/digits-tiny.yaml", f"--transfer={path}", rest), words
    )
    with pytest.raises(UserError, match=words):
        driftless.load(path)


def test_what_tensors_do_not_tell_is_given_by_an_option(
    files: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(files["sa-dpm-average"].read_bytes())
    rest = [f"--outdir={tmp_path / 'o'}", "--seeds=0", "--steps=2"]
    refused = call("generate.py", f"--network={path}", *rest)
    assert_refused(refused, "img_resolution, schedule", "--model-config")
    side = files["sa-dpm-average"].with_suffix(".yaml")
    done = call("generate.py", f"--network={path}", f"--model-config={side}", *rest)
    assert done.returncode == 0, done.stderr
    model = driftless.load(path, device="cpu", model_config=side)
    assert model.info.model.img_resolution == (8, 8)
    raw = call("generate.py", f"--network={v_diffusion_run(tmp_path)}", "--weights=raw", *rest)
    assert raw.returncode == 0, raw.stderr


def test_training_starts_from_foreign_weights(files: dict[str, Path], tmp_path: Path) -> None:
    from training.setup import transferable

    for name, path in files.items():
        source = open_model(path).denoiser
        common = transferable(str(path), source)
        expected = source.state_dict()
        assert common.keys() == expected.keys(), name
        assert all(torch.equal(common[key], expected[key]) for key in common), name


def test_a_run_starts_from_foreign_weights(tmp_path: Path) -> None:
    path = tmp_path / "model_3_ema.pth"
    torch.save(prefixed(drawn(sa_dpm(32, [1, 2], 1, [False, True], image=1))), path)
    path.with_suffix(".yaml").write_text(yaml.safe_dump(SIDE["sa-dpm"]))
    source = open_model(path)
    recipe, outdir = tmp_path / "recipe.yaml", tmp_path / "run"
    tree = {
        "base": str(ROOT / "configs" / "digits-tiny.yaml"),
        "data": {"path": str(ROOT / "assets" / "digits-8x8.zip")},
        "network": json.loads(source.info.model.model_dump_json())["network"],
        "preconditioning": {"name": "ddpm"},
        "optimizer": {"lr": 1e-9},
        "sampler": {"steps": 2},
        "preview": {"enabled": False},
    }
    recipe.write_text(yaml.safe_dump(tree))
    how = [f"--config={recipe}", f"--outdir={outdir}", "--nosubdir", "run.duration=1it"]
    done = call("train.py", *how, f"--transfer={path}", "--cond=0")
    assert done.returncode == 0, done.stderr
    expected = source.denoiser.state_dict()
    assert f"transferred {len(expected)} tensors from {path}; left as init" in done.stdout
    trained = driftless.load(outdir, device="cpu").denoiser.state_dict()
    for name, tensor in expected.items():
        torch.testing.assert_close(trained[name], tensor, rtol=0, atol=1e-6)


def test_tags_of_faces_have_their_names(tmp_path: Path) -> None:
    path = tmp_path / "ckpt_1.pt"
    torch.save({"model": drawn(v_diffusion(32, [1], 1, [True], tags=40))}, path)
    path.with_suffix(".yaml").write_text(yaml.safe_dump(SIDE["v-diffusion"]))
    info = read_model(path).info
    assert info.label_kind == "multi_hot"
    assert (info.label_names or [])[5:9] == ["Bangs", "Big_Lips", "Big_Nose", "Black_Hair"]
    rest = [f"--outdir={tmp_path / 'o'}", "--seeds=0", "--steps=2"]
    done = call("generate.py", f"--network={path}", "--tags=Black_Hair,Bangs", *rest)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("side", "words"),
    [
        ({"sample_timesteps": "many"}, "steps"),
        ({"model_var_type": "fixed_tiny"}, "unknown model_var_type 'fixed_tiny'"),
        ({"intp_frac": [1], "model_var_type": "fixed_medium"}, "cannot be used"),
        (
            {"allow_rescale": True, "logsnr_schedule": "linear"},
            "allow_rescale told the network alpha squared",
        ),
    ],
    ids=["steps", "variance", "fraction", "rescale"],
)
def test_a_config_that_cannot_be_used_is_one_line(
    side: dict[str, object], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "ckpt_1.pt"
    torch.save({"model": drawn(v_diffusion(32, [1], 1, [True]))}, path)
    path.with_suffix(".yaml").write_text(yaml.safe_dump(SIDE["v-diffusion"] | side))
    done = call("generate.py", f"--network={path}", f"--outdir={tmp_path / 'o'}")
    assert_refused(done, words)
