"""Benchmarks run and measure the right thing; what they measure is never judged here."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.hardware import prepared_device
from tests.command import run


def test_float32_means_in_benchmarks_what_it_means_in_training() -> None:
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    for flag in flags:
        flag.allow_tf32 = True
    assert prepared_device("cpu") == torch.device("cpu")
    assert not any(flag.allow_tf32 for flag in flags)


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


def test_the_benchmark_of_scores_compares_distances_and_times_every_stage(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = run(
        "benchmarks/bench_fid.py",
        *("--device=cpu", "--detector=digits", "--size=8", "--num=20", "--compared=1000"),
        *("--features=64", "--pairs=2", "--repeats=1", f"--out={out}"),
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(out.read_text())
    full, deficient = record["distance"]
    assert full["images"] > record["features"] > deficient["images"]
    assert full["relative_difference"] < 1e-9
    assert deficient["relative_difference"] < 1e-6
    assert all(row["ratio"] > 0 for row in record["distance"])
    stages = ["decode", "detector", "statistics", "all three"]
    assert list(record["stages"]) == [*stages, "kernel distance", "precision and recall"]
    assert [row["images"] for row in record["stages"].values()] == [20] * 4 + [100_000, 1000]
    assert all(row["per_second"] > 0 for row in record["stages"].values())
    assert {"device", "torch", "scipy", "commit"} <= record["hardware"].keys()


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
    assert len(record["calls"]) == 4
    assert all(row["s_per_image"] > 0 for row in record["calls"].values())
    assert record["errors"].keys() == SAMPLERS.keys() - {"ito_taylor"}
    for row in record["errors"].values():
        assert 0 < row["network fp32, solver float32"] < row["network bf16, solver float32"]


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
