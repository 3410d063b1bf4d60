"""Folders of the library diffusers: what is read, what is written, what is refused in one line."""

import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from importers.diffusers import is_diffusers, read_diffusers, write_diffusers
from models.build import build
from models.config import ModelConfig, PreconditioningConfig
from models.snapshot import SnapshotInfo
from tests.parity.weights import fill_by_rule
from torch_utils.errors import UserError

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
NETWORK = {
    "name": "ddpm",
    "model_channels": 16,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [4],
    "num_groups": 8,
    "dropout": 0.0,
}
MODELS: dict[str, dict[str, Any]] = {
    "plain": {},
    "heads": {"num_heads": None, "head_dim": 8, "middle_heads": "same", "cosine_first": True},
    "scaled": {"modulation": "scale_shift", "middle_attention": "plain", "down_padding": "both"},
    "scaled-normed": {"modulation": "scale_shift", "freq_endpoint": False},
    "blocks": {"resampler": "block", "attn_resolutions": [8], "middle_attention": "none"},
    "mixed": {"attn_resampler": "block", "emb_channels": 48, "norm_eps": 1e-3},
}
SAMPLING = {"name": "ddpm", "grid": "steps", "steps": 1000, "spacing": "leading"}
SAMPLING |= {"variance": "large", "clip": True}


def model_config(label_dim: int = 0, output: str = "eps", **options: Any) -> ModelConfig:
    return ModelConfig(
        network=NETWORK | options,
        preconditioning=PreconditioningConfig(name="ddpm", output=output, schedule="beta_linear"),
        img_resolution=(8, 8),
        img_channels=3,
        label_dim=label_dim,
    )


def written(folder: Path, config: ModelConfig, **told: Any) -> Path:
    denoiser = build(config)
    fill_by_rule(denoiser)
    write_diffusers(folder, denoiser, SnapshotInfo(config, sampling=told or dict(SAMPLING)))
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("folders") / "plain", model_config())


@pytest.fixture
def folder(plain: Path, tmp_path: Path) -> Path:
    """A sound folder of one's own."""
    return Path(shutil.copytree(plain, tmp_path / "model"))


def change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_is_written_is_read_back_to_the_bit(name: str, tmp_path: Path) -> None:
    config = model_config(label_dim=5 if name == "heads" else 0, **MODELS[name])
    written(tmp_path / "first", config)
    first = read_diffusers(tmp_path / "first")
    denoiser = build(config)
    fill_by_rule(denoiser)
    assert first.state_dict.keys() == denoiser.state_dict().keys()
    for key, tensor in denoiser.state_dict().items():
        assert torch.equal(first.state_dict[key], tensor), key
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([3.0, 700.0])
    with torch.no_grad():
        expected = denoiser.eval().model(x, t)
        assert torch.equal(first.denoiser().model(x, t), expected)
    assert first.info.sampling == SAMPLING
    write_diffusers(tmp_path / "second", first.denoiser(), first.info)
    second = read_diffusers(tmp_path / "second")
    assert (second.info, second.notes) == (first.info, first.notes)
    for file in ("model_index.json", "unet/config.json", "scheduler/scheduler_config.json"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()
    assert (tmp_path / "first" / WEIGHTS).read_bytes() == (
        tmp_path / "second" / WEIGHTS
    ).read_bytes()


def test_old_names_of_attention_and_parts_side_by_side_are_read(
    plain: Path, tmp_path: Path
) -> None:
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(plain / WEIGHTS)
    for new, name in old.items():
        tensors = {key.replace(f".{new}.", f".{name}."): value for key, value in tensors.items()}
    assert sum(".query." in key for key in tensors) > 1
    torch.save(tensors, tmp_path / "diffusion_pytorch_model.bin")
    for part in ("unet/config.json", "scheduler/scheduler_config.json", "model_index.json"):
        shutil.copy(plain / part, tmp_path)
    assert is_diffusers(tmp_path)
    found, expected = read_diffusers(tmp_path), read_diffusers(plain)
    assert found.info == expected.info
    assert all(torch.equal(found.state_dict[k], v) for k, v in expected.state_dict.items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_several_parts_are_read(dtype: torch.dtype, folder: Path) -> None:
    expected = read_diffusers(folder).state_dict
    tensors = {name: value.to(dtype) for name, value in load_file(folder / WEIGHTS).items()}
    (folder / WEIGHTS).unlink()
    names = sorted(tensors)
    places = {name: f"part-{i % 2}.safetensors" for i, name in enumerate(names)}
    for part in sorted(set(places.values())):
        kept = {name: tensors[name] for name in names if places[name] == part}
        save_file(kept, folder / "unet" / part)
    index = folder / f"{WEIGHTS}.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    found = read_diffusers(folder).state_dict
    for name, tensor in expected.items():
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], tensor.to(dtype).float())


def test_a_network_alone_is_read_with_a_note(plain: Path) -> None:
    model = read_diffusers(plain / "unet")
    assert is_diffusers(plain / "unet")
    assert "the folder has no scheduler" in model.notes[0]
    assert model.info.sampling["name"] == "ddpm"


def test_other_folders_are_not_taken_for_one(tmp_path: Path) -> None:
    assert not is_diffusers(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert not is_diffusers(tmp_path)
    assert not is_diffusers(tmp_path / "absent")


def test_dynamic_clipping_is_written_and_read(tmp_path: Path) -> None:
    told = SAMPLING | {"clip": "dynamic"}
    found = read_diffusers(written(tmp_path / "out", model_config(), **told))
    assert found.info.sampling == told
    assert found.notes == ()


DPM_SOLVER = {"_class_name": "DPMSolverMultistepScheduler"}


@pytest.mark.parametrize(
    ("changes", "sampling", "preconditioning"),
    [
        ({}, {**SAMPLING}, {"output": "eps"}),
        (
            {"_class_name": "DDIMScheduler", "steps_offset": 1, "prediction_type": "v_prediction"},
            {"name": "ddim", "grid": "steps", "steps": 50, "spacing": "leading", "offset": 1}
            | {"clip_x0": True},
            {"output": "v"},
        ),
        (
            {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 100}
            | {
                "clip_sample": False,
                "variance_type": "fixed_small",
                "timestep_spacing": "trailing",
            },
            {"name": "ddpm", "grid": "steps", "steps": 100, "spacing": "exact"}
            | {"variance": "small"},
            {"schedule": {"name": "beta_cosine", "num_steps": 100}},
        ),
        (
            {"trained_betas": [0.1, 0.2, 0.3], "prediction_type": "sample"},
            {**SAMPLING, "steps": 3},
            {"output": "x0", "schedule": {"name": "beta_list", "betas": [0.1, 0.2, 0.3]}},
        ),
        (
            {"_class_name": "DPMSolverMultistepScheduler", "timestep_spacing": "trailing"}
            | {"thresholding": True},
            {"name": "dpmpp", "grid": "steps", "steps": 50, "spacing": "exact", "order": 2}
            | {"lower_order_final": True, "clip": True},
            {"output": "eps"},
        ),
        (
            {"_class_name": "UniPCMultistepScheduler", "timestep_spacing": "trailing"}
            | {"solver_order": 3, "solver_type": "bh1"},
            {"name": "unipc", "grid": "steps", "steps": 50, "spacing": "exact", "order": 3}
            | {"lower_order_final": True, "variant": "bh1"},
            {"output": "eps"},
        ),
    ],
    ids=["ddpm", "ddim", "cosine", "trained", "dpm-solver", "unipc"],
)
def test_a_scheduler_becomes_schedule_and_sampling(
    changes: dict[str, Any],
    sampling: dict[str, Any],
    preconditioning: dict[str, Any],
    folder: Path,
) -> None:
    change(folder / "scheduler" / "scheduler_config.json", **changes)
    info = read_diffusers(folder).info
    assert info.sampling == sampling
    assert preconditioning.items() <= info.model.preconditioning.model_dump().items()


def test_rescaled_betas_end_without_signal_and_begin_as_they_were(folder: Path) -> None:
    change(folder / "scheduler/scheduler_config.json", rescale_betas_zero_snr=True)
    schedule = read_diffusers(folder).info.model.preconditioning.schedule
    assert isinstance(schedule, dict)
    kept = np.cumprod(1 - np.array(schedule["betas"])) ** 0.5
    plain = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)) ** 0.5
    assert kept[-1] == 0
    assert kept[0] == pytest.approx(plain[0])
    slope = np.diff(kept) / np.diff(plain)
    np.testing.assert_allclose(slope, slope[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"thresholding": True, "sample_max_value": 2.0}, "sample_max_value 2 is not available"),
        (
            {"thresholding": True, "sample_max_value": 2.0, "_class_name": "DDIMScheduler"},
            "dynamic thresholding is not available: clip_x0",
        ),
        ({"clip_sample_range": 2.0}, "clip_sample_range 2 is not available: .* not clipped"),
        ({"variance_type": "learned_range"}, "the network predicts is left out"),
        (DPM_SOLVER, "timestep_spacing leading is not available: trailing takes its place"),
        (DPM_SOLVER | {"solver_order": 3}, "lower_order_final holds there below 15 steps"),
        (DPM_SOLVER | {"algorithm_type": "sde-dpmsolver++"}, "algorithm_type sde-dpmsolver"),
        (DPM_SOLVER | {"use_karras_sigmas": True}, "use_karras_sigmas True is not available"),
        (DPM_SOLVER | {"thresholding": True, "sample_max_value": 2.0}, "sample_max_value 2 is not"),
    ],
)
def test_what_is_not_available_is_noted(changes: dict[str, Any], note: str, folder: Path) -> None:
    change(folder / "scheduler" / "scheduler_config.json", **changes)
    assert re.search(note, " ".join(read_diffusers(folder).notes))


def test_a_learned_variance_is_left_out(folder: Path) -> None:
    expected = read_diffusers(folder).state_dict
    tensors = load_file(folder / WEIGHTS)
    for name in ("conv_out.weight", "conv_out.bias"):
        tensors[name] = torch.cat([tensors[name], torch.ones_like(tensors[name])])
    save_file(tensors, folder / WEIGHTS)
    change(folder / "unet" / "config.json", out_channels=6)
    model = read_diffusers(folder)
    assert "variance that the network predicts" in model.notes[0]
    assert all(torch.equal(model.state_dict[k], v) for k, v in expected.items())


class _Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


def _bin(folder: Path, tree: Any) -> None:
    (folder / WEIGHTS).unlink()
    torch.save(tree, folder / "unet/diffusion_pytorch_model.bin")


def _tensors(folder: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / WEIGHTS)
    edit(tensors)
    save_file(tensors, folder / WEIGHTS)


def _unet(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: change(folder / "unet/config.json", **changes)


def _scheduler(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: change(folder / "scheduler/scheduler_config.json", **changes)


def _text(file: str, text: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / file).write_text(text)


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no folder": (shutil.rmtree, "there is no folder"),
    "no config": (lambda f: (f / "unet/config.json").unlink(), "there is no config.json"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "there are no weights in"),
    "no scheduler": (lambda f: shutil.rmtree(f / "scheduler"), "there is no scheduler_config"),
    "pipeline": (
        lambda f: change(f / "model_index.json", _class_name="StableDiffusionPipeline"),
        "the pipeline is StableDiffusionPipeline: known are DDPMPipeline and DDIMPipeline",
    ),
    "network": (_unet(_class_name="UNet2DConditionModel"), "the network is UNet2DConditionModel"),
    "scheduler": (_scheduler(_class_name="PNDMScheduler"), "the scheduler is PNDMScheduler"),
    "order": (_scheduler(**DPM_SOLVER, solver_order=4), "solver_order is 4: it must be 1, 2 or 3"),
    "lowered": (
        _scheduler(**DPM_SOLVER, lower_order_final=1),
        "lower_order_final is 1: it must be true",
    ),
    "bound": (
        _scheduler(**DPM_SOLVER, thresholding=True, sample_max_value="x"),
        "sample_max_value is 'x': it must be a number",
    ),
    "list": (_text("unet/config.json", "[1]"), "is not a mapping"),
    "text": (_text("unet/config.json", "{"), "is not JSON"),
    "deep": (_text("unet/config.json", "[" * 100_000), "is not JSON"),
    "nan": (_unet(norm_eps=float("nan")), "norm_eps is nan: it must be a positive"),
    "nan betas": (_scheduler(beta_start=float("nan")), "beta_start is nan"),
    "huge width": (_unet(block_out_channels=[2**40, 2**41]), "block_out_channels is 10995"),
    "many blocks": (_unet(layers_per_block=900), "asks for 1800 blocks"),
    "wide": (_unet(block_out_channels=[2**19, 2**20]), "of another shape"),
    "huge image": (_unet(sample_size=2**62), "sample_size is 46116"),
    "no size": (_unet(sample_size=None), "has no sample_size"),
    "huge table": (_scheduler(num_train_timesteps=10**9), "num_steps is 1000000000"),
    "zero betas": (_scheduler(trained_betas=[0.1, 0.0]), "numbers from 1e-12 to 1"),
    "betas": (_scheduler(trained_betas={"a": 1}), "betas is {'a': 1}"),
    "schedule": (_scheduler(beta_schedule="laplace"), "unknown beta_schedule"),
    "range": (_scheduler(clip_sample_range=-1), "clip_sample_range is -1"),
    "act": (_unet(act_fn="relu"), "act_fn is 'relu': our networks only have 'silu'"),
    "fourier": (_unet(time_embedding_type="fourier"), "time_embedding_type is 'fourier'"),
    "block": (
        _unet(down_block_types=["SkipDownBlock2D", "DownBlock2D"]),
        "has the block 'SkipDownBlock2D', which our networks do not have",
    ),
    "types": (_unet(down_block_types=[["DownBlock2D"], 3]), "has the block"),
    "one way": (_unet(up_block_types=["UpBlock2D", "UpBlock2D"]), "do not have attention where"),
    "odd heads": (_unet(attention_head_dim=7), "does not divide into heads of 7 channels"),
    "shape": (
        lambda f: _tensors(f, lambda t: t.update({"conv_in.weight": torch.zeros(16, 3, 1, 1)})),
        r"1 of another shape: conv_in.weight \[16, 3, 1, 1\]",
    ),
    "missing": (lambda f: _tensors(f, lambda t: t.pop("conv_in.bias")), "1 missing: conv_in.bias"),
    "superfluous": (
        lambda f: _tensors(f, lambda t: t.update({"x": torch.zeros(1)})),
        "1 not part of it: x",
    ),
    "both names": (
        lambda f: _tensors(
            f,
            lambda t: t.update(
                {"mid_block.attentions.0.query.bias": t["mid_block.attentions.0.to_q.bias"].clone()}
            ),
        ),
        "under both the old and the new names",
    ),
    "integers": (
        lambda f: _tensors(f, lambda t: t.update({"conv_in.bias": torch.zeros(16).long()})),
        "conv_in.bias of .* is torch.int64: it is not a weight",
    ),
    "infinite": (
        lambda f: _tensors(f, lambda t: t["conv_in.bias"].fill_(float("inf"))),
        "conv_in.bias of .* has values that are not finite",
    ),
    "truncated": (
        lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-7]),
        "is damaged",
    ),
    "header": (lambda f: (f / WEIGHTS).write_bytes(b"\xff" * 64), "its header is too long"),
    "trap": (lambda f: _bin(f, {"x": _Trap()}), r"names .(posix|nt)\.system"),
    "bare trap": (
        lambda f: (
            (f / WEIGHTS).unlink(),
            (f / "unet/diffusion_pytorch_model.bin").write_bytes(pickle.dumps(_Trap())),
        ),
        "cannot be read as plain tensors",
    ),
    "bin list": (lambda f: _bin(f, [torch.zeros(1)]), "is not a mapping of names to tensors"),
    "outside": (
        lambda f: (
            (f / WEIGHTS).unlink(),
            (f / f"{WEIGHTS}.index.json").write_text(
                '{"weight_map": {"x": "../../w.safetensors"}}'
            ),
        ),
        "which is not a safetensors file beside it",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line(
    fault: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    damage, message = FAULTS[fault]
    damage(folder)
    with pytest.raises(UserError) as caught:
        read_diffusers(folder)
    assert "\n" not in str(caught.value)
    assert re.search(message, str(caught.value)), str(caught.value)
    assert not (tmp_path / "executed").exists()


STRANGE: list[Any] = [None, True, -1, 0, 0.5, 2**63, 1e400, float("nan"), "", "x", [], {}, [[]]]
STRANGE += [["a"], [None, None], [2**30] * 2, {"a": [1]}]


@pytest.mark.parametrize("file", ["unet/config.json", "scheduler/scheduler_config.json"])
def test_strange_values_of_any_key_are_read_or_refused_in_one_line(file: str, folder: Path) -> None:
    sound = (folder / file).read_text()
    refused = []
    for key in json.loads(sound):
        for value in STRANGE:
            change(folder / file, **{key: value})
            try:
                read_diffusers(folder)
            except UserError as error:
                refused.append(str(error))
        (folder / file).write_text(sound)
    assert len(refused) > 100
    assert not any("\n" in line for line in refused)


def test_a_folder_that_cannot_be_written_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        written(tmp_path / "file" / "model", model_config())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (model_config(resampler="pool"), "the resampler pool"),
        (model_config(num_heads=4), "attention heads of different widths, 8 and 32"),
        (model_config(first_channels=32), "first_channels 32 other than"),
        (model_config(middle_attention="plain"), "middle_attention plain with modulation add"),
        (model_config(output="flow"), "a network that predicts flow"),
    ],
    ids=["pool", "heads", "first", "middle", "output"],
)
def test_what_the_library_cannot_express_is_named(
    config: ModelConfig, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"UNet2DModel of diffusers cannot express {message}"):
        written(tmp_path / "out", config)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_files_is_not_written_over(folder: Path) -> None:
    with pytest.raises(UserError, match="exists already and is not empty"):
        written(folder, model_config())
