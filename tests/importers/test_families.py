"""Imports: options are read from shapes, every element finds its place, and the rest is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import networks
from importers.families import FAMILIES, detect, import_network
from importers.naming import interleave, swap_halves
from importers.published import translate
from tests.importers.foreign import Shapes, ddpm_xyf, numbered, sa_dpm, v_diffusion
from torch_utils.errors import UserError

GOLDEN = Path(__file__).parents[1] / "parity" / "golden" / "networks_ddpm.json"
BASE = {"img_resolution": 16, "schedule": "logsnr_legacy"}
F, T = False, True


def read(shapes: Shapes, **config: Any) -> dict[str, Any]:
    """Options and sizes of a checkpoint of these shapes."""
    imported = import_network(numbered(shapes, "meta"), {**BASE, **config})
    return {**imported.network, **imported.sizes, **imported.settings}


# shapes, config, what has to be found
CHECKPOINTS: list[tuple[Shapes, dict[str, Any], dict[str, Any]]] = [
    (
        sa_dpm(32, [1, 2, 2], 2, [F, T, F], image=1),
        {},
        {
            "name": "ddpm",
            "channel_mult": [1, 2, 2],
            "num_blocks": 2,
            "attn_resolutions": [8],
            "img_channels": 1,
            "out_channels": 1,
            "norm_eps": 1e-6,
            "down_padding": "end",
            "dropout": 0.0,
            "prediction": "eps",
        },
    ),
    (sa_dpm(32, [2, 1], 1, [T, T], conv=False), {"dropout": 0.1}, {"resampler": "pool"}),
    (sa_dpm(64, [1], 3, [F]), {"dropout": 0.2}, {"num_blocks": 3, "dropout": 0.2}),
    (
        ddpm_xyf(32, [1, 2, 2], 2, [F, T, F]),
        {"prediction": "v", "num_heads": 4},
        {"num_heads": 4, "head_dim": None, "norm_eps": 1e-5, "down_padding": "both"},
    ),
    (ddpm_xyf(32, [1, 3], 1, [F, F]), {"prediction": "x0"}, {"num_heads": 1, "resampler": "conv"}),
    (
        ddpm_xyf(32, [1, 2, 2], 2, [T, F, T], num_classes=7),
        {"prediction": "eps", "head_dim": 16},
        {
            "num_heads": None,
            "head_dim": 16,
            "label_dim": 7,
            "resampler": "block",
            "modulation": "scale_shift",
            "num_blocks": 2,
            "attn_resolutions": [16, 4],
        },
    ),
    (
        v_diffusion(32, [1, 2, 1], 2, [F, T, T], classes=5, out=6),
        {"num_heads": 2},
        {
            "name": "vdiff",
            "channel_mult": [1, 2, 1],
            "num_blocks": 2,
            "attn_resolutions": [8, 4],
            "label_dim": 5,
            "multi_tags": False,
            "prediction": "x0_eps",
            "emb_channels": 128,
            "out_channels": 6,
        },
    ),
    (
        v_diffusion(32, [1, 2], 1, [F, F], tags=9, emb=48, heads=16),
        {"prediction": "v", "num_heads": 1},
        {"head_dim": 16, "multi_tags": True, "label_dim": 9, "emb_channels": 48},
    ),
    (
        v_diffusion(32, [2], 3, [T], heads=48),
        {"prediction": "v", "head_dim": 16},
        {"num_heads": 3, "num_blocks": 3, "model_channels": 32, "label_dim": 0},
    ),
]


@pytest.mark.parametrize(("shapes", "config", "expected"), CHECKPOINTS)
def test_shapes_tell_the_options(
    shapes: Shapes, config: dict[str, Any], expected: dict[str, Any]
) -> None:
    found = read(shapes, **config)
    assert {key: found[key] for key in expected} == expected
    assert found["img_resolution"] == (16, 16)
    assert set(networks.options(found["name"])) <= set(found)


@pytest.mark.parametrize(("shapes", "config", "expected"), CHECKPOINTS)
def test_every_element_has_one_place(
    shapes: Shapes, config: dict[str, Any], expected: dict[str, Any]
) -> None:
    weights = {f"module.{name}": tensor for name, tensor in numbered(shapes).items()}
    imported = import_network(weights, {**BASE, **config})
    options = dict(imported.network)
    network = networks.create(options.pop("name"), **imported.sizes, **options)
    network.load_state_dict(imported.state_dict)
    values = torch.cat([tensor.flatten() for tensor in imported.state_dict.values()])
    assert torch.equal(values.sort().values, torch.arange(len(values), dtype=torch.float32))


@pytest.mark.parametrize(
    ("shapes", "num_tensors", "num_parameters"),
    [
        (sa_dpm(128, [1, 2, 2, 2], 2, [F, T, F, F]), 328, 35_746_307),
        (sa_dpm(128, [1, 2, 2, 2, 4], 2, [F, F, T, F, F]), 390, 78_700_803),
        (sa_dpm(128, [1, 1, 2, 2, 4, 4], 2, [F, F, F, F, T, F]), 450, 113_673_219),
        (ddpm_xyf(128, [1, 2, 2, 2], 2, [F, T, F, F]), 328, 35_746_307),
        (ddpm_xyf(128, [1, 2, 2, 2], 2, [F, T, T, F], num_classes=10), 427, 44_178_947),
        (v_diffusion(256, [1, 1, 1], 3, [F, T, T], classes=10), 414, 60_806_403),
        (v_diffusion(256, [1, 1, 1], 3, [F, T, T]), 412, 60_795_139),
        (
            v_diffusion(192, [1, 2, 3, 4], 3, [F, T, T, T], tags=40, emb=768, heads=64, out=6),
            572,
            266_831_046,
        ),
    ],
)
def test_published_checkpoints_are_read_whole(
    shapes: Shapes, num_tensors: int, num_parameters: int
) -> None:
    assert len(shapes) == num_tensors
    weights = numbered(shapes, "meta")
    assert sum(tensor.numel() for tensor in weights.values()) == num_parameters
    config: dict[str, Any] = {**BASE, "img_resolution": 64, "num_heads": 1}
    if detect(weights) != "sa-dpm" and "out_conv.2.weight" not in weights:
        config["prediction"] = "eps"
    if shapes.get("out_conv.2.weight", [0])[0] == 3:
        config["prediction"] = "eps"
    imported = import_network(weights, config)
    assert sum(tensor.numel() for tensor in imported.state_dict.values()) == num_parameters


def test_the_shapes_of_the_golden_cases_are_those_written_down_here() -> None:
    cases = {case["name"]: case["state_shapes"] for case in json.loads(GOLDEN.read_text())["cases"]}
    assert cases["sadpm-16"] == sa_dpm(32, [1, 2], 1, [F, T])
    assert cases["ddpm-16"] == ddpm_xyf(32, [1, 2], 1, [F, T])
    assert cases["vdiff-uncond"] == v_diffusion(32, [1, 1], 1, [F, T])
    assert cases["vdiff-cond-both"] == v_diffusion(32, [1, 2], 2, [F, T], classes=10, out=6)


def test_rearrangements_keep_each_head_together() -> None:
    # two heads of two channels: q00 q01 q10 q11, k..., v...
    stacked = torch.arange(12)
    assert interleave(stacked).tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
    assert swap_halves(torch.arange(4)).tolist() == [2, 3, 0, 1]


def small() -> dict[str, Tensor]:
    return numbered(v_diffusion(32, [1, 2], 1, [F, T], classes=4))


def test_queries_keys_and_values_have_one_shape() -> None:
    weights = numbered(sa_dpm(32, [1], 1, [T]))
    sides = {"q": 16, "k": 32, "v": 48}  # of the right sum
    for name, side in sides.items():
        weights[f"mid.attn_1.{name}.weight"] = torch.zeros(side, 32, 1, 1)
    with pytest.raises(UserError, match=r"1 of another shape: mid\.attn_1\.q\.weight"):
        import_network(weights, BASE)


Edit = Callable[[dict[str, Tensor]], Any]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda w: w.pop("middle.1.norm.bias"), "1 missing: middle.1.norm.bias"),
        (lambda w: w.update(extra=torch.zeros(1)), "1 not part of it: extra"),
        (
            lambda w: w.update({"out_conv.0.weight": torch.zeros(5)}),
            "1 of another shape: out_conv.0.weight \\[5\\] \\(for \\[32\\]\\)",
        ),
        (
            lambda w: [w.pop(key) for key in list(w) if key.startswith("upsamples.level_0")],
            "missing: .*, .*, .*, \\.\\.\\.$",
        ),
        (lambda w: w.update(epoch=3), "'epoch' of the checkpoint is not a tensor"),
        (lambda w: w.update({"module.in_conv.bias": torch.zeros(32)}), "with and without"),
        (lambda w: w.update({"first_conv.weight": torch.zeros(1)}), "ddpm-xyf and v-diffusion"),
        (lambda w: w.pop("in_conv.weight"), "no known family has tensors with these names"),
        (lambda w: w.pop("out_conv.2.weight"), "has no tensor out_conv.2.weight"),
        (lambda w: w.update({"in_conv.weight": torch.zeros(3)}), "has shape \\[3\\]"),
        (
            lambda w: w.update({"downsamples.level_1.0.0.conv1.weight": torch.zeros(40, 1)}),
            "have \\[32, 40\\] channels, which are not multiples of 32",
        ),
    ],
)
def test_tensors_that_do_not_make_up_a_network_are_refused(edit: Edit, message: str) -> None:
    weights = small()
    edit(weights)
    with pytest.raises(UserError, match=message):
        import_network(weights, {**BASE, "prediction": "eps", "num_heads": 1})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"img_resolution": None, "schedule": None, "prediction": None, "num_heads": None},
            "do not tell img_resolution, schedule, prediction, num_heads or head_dim",
        ),
        ({"num_head": 1}, "did you mean 'num_heads'"),
        ({"channel_mult": [1, 1]}, r"channel_mult is given as \[1, 1\], but .* say \[1, 2\]"),
        ({"label_dim": 3}, "label_dim is given as 3, but .* say 4"),
        ({"attn_resolutions": [16]}, r"attn_resolutions is given as \[16\], but .* say \[8\]"),
        ({"attn_resolutions": 8}, "attn_resolutions is 8: it must be a list"),
        ({"num_heads": 5}, "num_heads 5 and head_dim None do not make up the attention"),
        ({"head_dim": 16}, "num_heads 1 and head_dim 16 do not make up the attention"),
        ({"num_heads": 0}, "num_heads is 0: it must be a positive integer or null"),
        ({"prediction": "x0_eps"}, "has 3 output channels for 3"),
        ({"prediction": "noise"}, "unknown prediction 'noise'"),
        ({"img_resolution": 15}, "must be a multiple of 2"),
        ({"img_resolution": "16"}, "img_resolution is '16': it must be"),
        ({"schedule": 3}, "schedule is 3"),
        ({"schedule": "bananas"}, "unknown schedule 'bananas'"),
        ({"schedule": "cosine"}, "do not tell schedule.logsnr_min, schedule.logsnr_max: give"),
        ({"schedule": {"name": "legacy", "bananas": 3}}, "'bananas'"),
        ({"prediction": ["v"]}, "unknown prediction"),
        ({"dropout": 2}, "dropout is 2: it must be"),
    ],
)
def test_configs_that_do_not_fit_are_refused(config: dict[str, Any], message: str) -> None:
    given = {**BASE, "prediction": "eps", "num_heads": 1}
    with pytest.raises(UserError, match=message):
        import_network(small(), given | config)


def test_what_the_shapes_tell_may_be_given_as_well() -> None:
    config = {
        **BASE,
        "img_resolution": (16, 24),
        "channel_mult": (1, 2),
        "label_dim": 4,
        "attn_resolutions": [99, 12],
        "prediction": "v",
        "head_dim": 16,
        "schedule": {"name": "cosine", "logsnr_min": -20.0, "logsnr_max": 20.0},
    }
    imported = import_network(small(), config)
    assert imported.family == "v-diffusion"
    assert imported.sizes["img_resolution"] == (16, 24)
    assert imported.network["attn_resolutions"] == [99, 12]
    assert imported.settings == {
        "prediction": "v",
        "schedule": {"name": "logsnr_cosine", "logsnr_min": -20.0, "logsnr_max": 20.0},
    }


def test_half_precision_weights_become_float32() -> None:
    weights = {name: tensor.half() for name, tensor in small().items()}
    imported = import_network(weights, {**BASE, "prediction": "eps", "num_heads": 1})
    assert {tensor.dtype for tensor in imported.state_dict.values()} == {torch.float32}


def test_published_configs_are_translated() -> None:
    sa = {"ch": 64, "ch_mult": [1, 2], "resamp_with_conv": False, "ema": True, "image_size": 32}
    assert translate("sa-dpm", sa) == {
        "model_channels": 64,
        "channel_mult": [1, 2],
        "resampler": "pool",
        "img_resolution": 32,
    }
    v = {"resolution": 64, "apply_attn": [False, True, True], "head_dim": 64, "embedding_dim": None}
    assert translate("v-diffusion", v) == {
        "img_resolution": 64,
        "attn_resolutions": [32, 16],
        "head_dim": 64,
    }
    assert translate("ddpm-xyf", {"use_attn": [True], "resblock_updown": True}) == {
        "resampler": "block"
    }
    schedule = {"logsnr_schedule": "linear", "logsnr_min": -20, "logsnr_max": 20}
    assert translate("v-diffusion", {**schedule, "model_out_type": "both"}) == {
        "schedule": {"name": "logsnr_alpha2_linear", "logsnr_min": -20, "logsnr_max": 20},
        "prediction": "x0_eps",
    }
    cosine = {"beta_schedule": "cosine", "beta_start": 1e-4, "total_steps": 4000}
    assert translate("ddpm-xyf", {**cosine, "objective": "pred_v"}) == {
        "schedule": {"name": "beta_cosine", "num_steps": 4000},
        "prediction": "v",
    }
    wide = translate("v-diffusion", {"apply_attn": [False, True]}, {"img_resolution": [16, 24]})
    assert wide["attn_resolutions"] == [12]
    with pytest.raises(UserError, match="img_size says that img_resolution is 32, not 16"):
        translate("ddpm-xyf", {"resolution": 16, "img_size": 32})
    with pytest.raises(UserError, match="true or false for each level"):
        translate("v-diffusion", {"resolution": 16, "apply_attn": True})
    with pytest.raises(UserError, match="did you mean 'sa-dpm'"):
        translate("sadpm", {})


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_a_reader_and_a_translation(name: str) -> None:
    assert callable(FAMILIES[name].load())
    assert translate(name, {}) == {}
