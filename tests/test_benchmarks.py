"""Benchmarks run and measure the right thing; what they measure is never judged here."""

import json
import re
from pathlib import Path

import pytest
import torch

from benchmarks.hardware import prepared_device
from tests.command import ROOT, run, run_afresh


def test_float32_means_in_benchmarks_what_it_means_in_training() -> None:
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    for flag in flags:
        flag.allow_tf32 = True
    assert prepared_device("cpu") == torch.device("cpu")
    assert not any(flag.allow_tf32 for flag in flags)


def test_the_benchmark_of_fused_kernels_says_that_it_needs_a_gpu(tmp_path: Path) -> None:
    done = run("benchmarks/bench_fused.py", "--device=cpu", f"--out={tmp_path / 'out.json'}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "nothing was measured: the fused kernels need a GPU\n"
    assert not list(tmp_path.iterdir())


def test_the_precision_benchmark_writes_a_row_for_every_band(tmp_path: Path) -> None:
    from tests.test_generate_cli import write_snapshot

    snapshot = write_snapshot(tmp_path / "net.safetensors", 0)
    out = tmp_path / "out.json"
    import numpy as np

    from torch_utils.images import save_png

    for index in range(4):
        noise = np.random.default_rng(index).integers(0, 256, (1, 8, 6), dtype=np.uint8)
        save_png(tmp_path / "data" / f"{index}.png", noise)
    done = run(
        "benchmarks/bench_precision.py",
        *(f"--network={snapshot}", f"--data={tmp_path / 'data'}", "--device=cpu", f"--out={out}"),
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(out.read_text())
    assert len(record["bands"]) == 5
    for band in record["bands"]:
        assert 0 < band["fp16"] < band["bf16"] < band["rms_D"]
    assert {"device", "torch", "commit"} <= record["hardware"].keys()


def test_the_benchmark_of_losses_counts_the_samples_that_each_term_needs(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = run(
        "benchmarks/bench_losses.py",
        *("--device=cpu", "--size=digits-tiny", "--batch=16", "--rounds=2", f"--out={out}"),
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(out.read_text())
    counts = {row["variant"]: (row["forward"], row["backward"]) for row in record["variants"]}
    assert counts["plain"] == counts["uncertainty"] == (16, 16)
    assert counts["sequence_aware K=3"] == (48, 48)
    # two rollouts of five steps from two samples, and their ends
    for rollout in ("online", "ema"):
        assert counts[f"consistency 1/8 {rollout}"] == (16 + 2 + 2 * 2 * 4 + 4, 16 + 4)
    assert all(row["measured"] > 0 for row in record["variants"])
    assert {"device", "torch", "commit"} <= record["hardware"].keys()


def test_the_benchmark_of_samplers_covers_the_registry_and_counts_its_calls(tmp_path: Path) -> None:
    from benchmarks.bench_samplers import NO_CHAINS
    from samplers import SAMPLERS

    out = tmp_path / "out.json"
    done = run(
        "benchmarks/bench_samplers.py",
        *("--device=cpu", "--call-ms=1", "--batch=1", "--steps=3", "--rounds=1"),
        *("--error-steps=8,16", f"--out={out}"),
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(out.read_text())
    timed = {row["sampler"]: row["plain_calls"] + row["dual_calls"] for row in record["overhead"]}
    for name, row in SAMPLERS.items():
        assert timed[name] == row.num_calls(3, row.options, True)
        found = record["errors"][name]
        assert [at["calls"] for at in found] == [
            row.num_calls(n, row.options, True) for n in (8, 16)
        ]
        # what remembers earlier steps has no law that is carried from step to step
        assert ("law" not in found[0]) == (name in NO_CHAINS)
        assert name in NO_CHAINS or found[1]["law"] < found[0]["law"]
        assert ("state" in found[0]) == (not row.is_stochastic(row.options))
    assert all(row["overhead"] > 0 for row in record["overhead"])
    assert {"device", "torch", "commit"} <= record["hardware"].keys()


def test_the_benchmark_of_distances_compares_the_same_numbers(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = run(
        "benchmarks/bench_distances.py",
        *("--device=cpu", "--num=1000", "--features=64", "--subsets=8", "--rounds=1"),
        *("--long-rounds=1", f"--out={out}"),
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(out.read_text())
    full, deficient, *others = record["stages"].values()
    assert len(others) == 3
    assert full["relative_difference"]["edm"] < 1e-9
    assert deficient["relative_difference"]["edm"] < 1e-6
    for row in others:
        assert all(difference < 1e-3 for difference in row["relative_difference"].values())
    assert all(row["images_per_s"]["driftless"]["median"] > 0 for row in record["stages"].values())
    assert {"device", "torch", "scipy", "commit"} <= record["hardware"].keys()


def test_the_published_pass_over_images_gives_the_statistics_of_ours(tmp_path: Path) -> None:
    from benchmarks import published_scores as published
    from benchmarks.bench_fid import write_images
    from data.dataset import ImageDataset
    from metrics import detectors
    from metrics.evaluate import evaluate
    from tests.inception import random_weights, save_weights

    path = write_images(tmp_path, 8, 3)
    detector = detectors.load("inception", weights=str(save_weights(tmp_path / "random.pth")))
    dataset = ImageDataset(path)
    ours = evaluate(detector, dataset.batches(2), dataset.image_shape).statistics.finalize()
    network = published.plain_network(random_weights())
    theirs = published.score(path, network, len(ours.mu), torch.device("cpu"))
    assert ours.num == theirs.num == 3
    for one, two in ((ours.mu, theirs.mu), (ours.sigma, theirs.sigma)):
        torch.testing.assert_close(torch.tensor(one), torch.tensor(two), rtol=1e-3, atol=1e-4)


def test_the_benchmark_of_conversions_makes_the_same_data_sets_both_ways(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = run("benchmarks/bench_dataset_tool.py", "--num=2", "--rounds=1", f"--out={out}")
    assert done.returncode == 0, done.stderr
    record = json.loads(out.read_text())
    for row in list(record.values())[2:]:
        assert set(row["images_per_s"]) == {"published", "one", "all"}
    assert {"device", "torch", "commit"} <= record["hardware"].keys()


def test_the_benchmark_of_few_steps_measures_every_form_that_can_make_5_calls(
    tmp_path: Path,
) -> None:
    from benchmarks.few_steps import FORMS, settings_of
    from models.build import build
    from models.config import ModelConfig
    from models.snapshot import SnapshotInfo, save_snapshot
    from tests.parity.weights import fill_by_rule

    small = {"name": "ddpmpp", "model_channels": 16, "channel_mult": [1], "num_blocks": 1}
    config = ModelConfig(network=small, img_resolution=(8, 8), img_channels=1, label_dim=10)
    denoiser, network, out = build(config), tmp_path / "net.safetensors", tmp_path / "out.json"
    fill_by_rule(denoiser)
    save_snapshot(network, denoiser.state_dict(), SnapshotInfo(config, {}, None, "class"))
    done = run(
        "benchmarks/few_steps.py",
        *(f"--network={network}", "--device=cpu", "--num=8", "--compared=4", "--quick"),
        *(f"--out={out}", f"--picture={tmp_path / 'digits.png'}"),
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(out.read_text())
    assert [row["form"] for row in record["rows"]] == [f for f in FORMS if settings_of(f, 5)]
    for row in record["rows"]:
        settings = settings_of(row["form"], 5)
        assert settings is not None
        assert (settings.num_calls, settings.steps) == (row["calls"], row["steps"])
        draws = settings.row.is_stochastic(settings.options)
        for key in ("digits", "golden", "distance"):
            assert (row[key] is None) == draws
            assert draws or row[key] > 0
        assert row["frechet"] > 0
    found = {row["form"]["name"]: row for row in record["rows"]}
    for key in ("digits", "golden"):  # exact denoisers, whatever the network
        assert found["ipndm"][key] < found["heun"][key]
    assert len(record["other_seeds"]["frechet"]) == 2
    assert (tmp_path / "digits.png").stat().st_size > 1000
    assert {"device", "torch", "commit"} <= record["hardware"].keys()


@pytest.mark.slow
def test_the_benchmark_of_a_neighbour_measures_each_setting_alone_and_beside(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out.json"
    done = run(
        "benchmarks/bench_neighbour.py",
        *("--rounds=1", "--seconds=0.01", "--work=generation", "--work=scoring", f"--out={out}"),
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(out.read_text())
    assert list(record["work"]) == ["generation", "scoring"]
    for rows in record["work"].values():
        assert [row["setting"] for row in rows] == ["1000", "OpenMP's own", "one thread"]
        assert rows[-1]["threads"] == 1
        assert all(row["alone_s"]["min"] > 0 < row["slower"]["median"] for row in rows)
    assert {"device", "torch", "cores", "commit"} <= record["hardware"].keys()


def test_the_demo_beside_a_neighbour_is_that_of_make() -> None:
    from benchmarks.bench_neighbour import demo_commands

    text = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    (recipe,) = re.findall(r"^demo: .*\n((?:\t.*\n)+)", text, re.MULTILINE)
    expected = [line.split() for line in recipe.replace("$(DEMO)", "/demo").splitlines()]
    found = [["$(BIN)/python", *command] for command in demo_commands(Path("/demo"), 7)]
    assert found[0].pop() == "run.duration=7it"
    assert found == expected


def test_the_benchmark_of_starts_sees_a_first_step_and_an_image(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    names = ["fid.py --help", "generate.py, one image", "train.py, first step"]
    done = run(
        "benchmarks/bench_start.py",
        *("--rounds=1", *(f"--only={name}" for name in names), f"--out={out}"),
    )
    assert done.returncode == 0, done.stderr
    seconds = json.loads(out.read_text())["seconds"]
    assert list(seconds) == names
    assert all(row["min"] > 0 for row in seconds.values())


@pytest.mark.slow
def test_the_benchmark_of_growth_fits_exponents_and_checks_the_forecast(tmp_path: Path) -> None:
    from benchmarks.bench_scaling import exponent

    assert abs(exponent([1, 2, 4], [3, 12, 48]) - 2) < 1e-9
    out = tmp_path / "out.json"
    for axes in ("processes,steps", "batch"):  # the second keeps what the first has measured
        done = run_afresh(
            "benchmarks/bench_scaling.py",
            *("--device=cpu", "--rounds=1", f"--axes={axes}", "--points=2", f"--out={out}"),
        )
        assert done.returncode == 0, done.stderr
    record = json.loads(out.read_text())
    assert list(record["axes"]) == ["batch", "steps", "processes"]
    for axis in record["axes"].values():
        assert len(axis["rows"]) == 2
        assert {"device", "torch", "commit"} <= axis["hardware"].keys()
    batch = record["axes"]["batch"]
    assert batch["exponents"]["gflops"] == 1
    for row in batch["rows"]:
        assert abs(row["forecast_gb"] / row["peak_gb"] - 1) < 0.15


def test_the_benchmark_of_profiles_shares_a_step_out_among_kinds(tmp_path: Path) -> None:
    from benchmarks.bench_profile import kind_of

    assert kind_of("aten::mkldnn_convolution") == "convolutions"
    assert kind_of("aten::native_group_norm_backward") == "norms"
    for sums in ("forward", "backward"):
        assert kind_of(f"group_norm_{sums}_kernel") == "norms"
        assert kind_of(f"residual_sum_{sums}_kernel") == "other arithmetic"
    assert kind_of("void at::native::(anonymous namespace)::RowwiseMomentsCUDAKernel<float>") == (
        "norms"
    )
    assert kind_of("void at::native::GammaBetaBackwardCUDAKernel1<float>") == "norms"
    assert kind_of("void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64>>") == (
        "attention"
    )
    assert kind_of("fmha_cutlassF_f32_aligned_64x64_rf_sm80") == "attention"
    assert kind_of("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16") == "attention"
    assert kind_of("sm90_xmma_wgrad_implicit_gemm_bf16bf16_bf16f32_f32") == "convolutions"
    assert kind_of("nvjet_hsh_128x256_64x4_2x1_v_bz_coopA_NNT") == "matrix products"
    for name in ("_foreach_lerp_", "_foreach_copy_", "dot"):
        assert kind_of(f"aten::{name}") == "optimizer and averages", name
    assert kind_of("aten::copy_") == "casts and copies"
    assert kind_of("aten::mul") == "other arithmetic"
    assert kind_of("autograd::engine::evaluate_function: AddBackward0") == "dispatch and autograd"
    out = tmp_path / "out.json"
    done = run(
        "benchmarks/bench_profile.py",
        *("--device=cpu", "--precisions=fp32", "--channels=16", "--size=16", "--batch=2"),
        *("--rounds=1", f"--out={out}"),
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(out.read_text())
    found = record["precisions"]["fp32"]
    assert abs(sum(found["shares"].values()) - 1) < 0.01
    assert found["shares"]["convolutions"] > 0
    assert found["gflops"] > 0
    assert found["share_of_peak"] > 0
    assert {"device", "torch", "commit"} <= record["hardware"].keys()


def test_the_benchmark_of_half_precision_times_every_way_and_compares_every_sampler(
    tmp_path: Path,
) -> None:
    from samplers import SAMPLERS
    from tests.test_generate_cli import write_snapshot

    snapshot = write_snapshot(tmp_path / "net.safetensors", 0)
    done = run(
        "benchmarks/bench_half.py",
        *("--channels=16", "--resolution=8", "--batch=1", "--num=1", "--device=cpu"),
        *(f"--network={snapshot}", f"--out={tmp_path / 'out.json'}"),
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out.json").read_text())
    assert len(record["calls"]) == 5
    assert all(row["s_per_image"] > 0 for row in record["calls"].values())
    assert record["errors"].keys() == SAMPLERS.keys() - {"ito_taylor"}
    for row in record["errors"].values():
        assert 0 < row["network fp32, solver float32"] < row["network bf16, solver float32"]


def test_float32_in_channels_last_is_that_on_every_device() -> None:
    from benchmarks.bench_half import channels_last, yardstick

    plain = yardstick(8, 8, torch.device("meta"))  # a GPU's choice would be contiguous
    for denoiser, layout in (
        (channels_last(plain), torch.channels_last),
        (plain, torch.contiguous_format),
    ):
        weights = [parameter for parameter in denoiser.parameters() if parameter.ndim == 4]
        assert weights
        assert all(weight.is_contiguous(memory_format=layout) for weight in weights)


def test_the_benchmark_of_outputs_encodes_the_same_pictures_at_every_level(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = run(
        "benchmarks/bench_outputs.py",
        *("--device=cpu", "--batches=2,3", "--resolutions=16", "--num=3", "--rounds=1"),
        f"--out={out}",
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(out.read_text())
    assert [row["batch"] for row in record["noises"]] == [2, 3]
    sizes = {row["level"]: row["bytes"] for row in record["pngs"]}
    assert sizes[0] > sizes[1] >= sizes[6] > 100
    assert record["writing"][0]["images a second"]["median"] > 0


@pytest.mark.slow
def test_the_benchmark_of_compiling_times_first_steps_and_pairs(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    sizes = ("--channels=16", "--mult=1", "--blocks=1", "--side=8", "--batch=2")
    done = run(
        "benchmarks/bench_compile.py",
        *("--device=cpu", "--precisions=fp32", "--rounds=2", f"--out={out}", *sizes),
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(out.read_text())["fp32"]
    assert record["first_step_s"].keys() == {"eager", "compiled", "compiled_again"}
    assert record["step_s"].keys() == {"eager", "compiled"}
    assert record["speedup"]["min"] <= record["speedup"]["median"] <= record["speedup"]["max"]
