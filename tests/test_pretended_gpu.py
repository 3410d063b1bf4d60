"""The code as it runs on CUDA, on a machine without a GPU; see tests/pretend."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from safetensors.torch import load_file

from tests.pretend import counts
from tests.pretend.build import ROOT, environment, why_not

reason = why_not()
pytestmark = pytest.mark.skipif(reason is not None, reason=reason or "")

FUSED_CHECKS = (
    "a_step_by_fused_kernels_is_that_of_the_cpu",
    "sampling_by_fused_kernels_is_that_of_the_cpu",
    "fused_kernels_are_tried_before_they_compute",
    "what_fused_kernels_cannot_do_is_left_to_pytorch",
    "launches_are_repeated_and_else_tritons",
)
CHECKS = (
    "a_step_does_not_wait",
    "a_step_does_not_wait_for_a_state",
    "a_step_is_that_of_the_cpu",
    *FUSED_CHECKS,
    "data_are_uploaded_once",
    "what_pytorch_keeps_is_free",
    "sampling_does_not_wait",
    "sampling_is_that_of_the_cpu",
    "the_door_is_that_of_the_cpu",
    "layouts_stay",
    "a_denoiser_call_can_be_captured",
    "a_batch_is_replayed",
    "a_capture_without_memory_is_tried_once_more",
    "graphs_leave_no_memory",
    "large_batches_are_not_captured",
    "only_writers_wait_for_images",
    "a_failed_capture_is_over_for_the_allocator",
    "an_abandoned_capture_is_ended_once_and_on_its_device",
    "sampling_goes_on_where_the_cache_cannot_be_emptied",
    "what_cannot_be_captured_is_called",
    "float32_is_not_rounded",
    "inception_neither_rounds_nor_waits",
    "sums_of_features_do_not_wait",
    "sets_of_features_are_compared_as_on_the_cpu",
    "a_process_computes_on_its_own_device",
)

# one of each network, and of each way to train
REPRESENTATIVE = (
    "cdm-cifar10-uncond",
    "cifar10-uncond-ddpmpp",
    "cifar10-uncond-ncsnpp-ve",
    "ddpm-cifar10-guided",
    "imagenet64-adm",
    "sa-dpm-celebahq256",
    "vdiff-celeba64-tags",
)
RENEW = "`python -m tests.pretend.counts --write`"


def run(*command: str, devices: int = 1, computing: bool = False) -> str:
    """Run Python where pretended GPUs are seen; its output."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment(devices, computing=computing),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("Warning", "not computed on the CPU"):
        assert word not in done.stderr, done.stderr
    return done.stdout


def asked(request: pytest.FixtureRequest, name: str) -> list[str]:
    """The values of a parameter in those tests of this file that were chosen."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    ours = [item for item in items if item.module.__name__ == __name__]
    found = [item.callspec.params.get(name) for item in ours if hasattr(item, "callspec")]
    return [value for value in found if value is not None]


@pytest.fixture(scope="session")
def errors(request: pytest.FixtureRequest) -> dict[str, str | None]:
    """What became of the chosen checks, all in one process."""
    output = run("-m", "tests.pretend.checks", *asked(request, "check"), devices=2)
    return dict(json.loads(line) for line in output.splitlines())


def test_processes_can_build_the_libraries_at_the_same_time(tmp_path: Path) -> None:
    code = "from tests.pretend.build import libraries; print(*libraries())"
    command, variables = [sys.executable, "-c", code], {**os.environ, "TMPDIR": str(tmp_path)}
    started = [
        subprocess.Popen(command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    first, second = (process.communicate()[0].split() for process in started)
    assert first == second
    (cache,) = tmp_path.iterdir()
    (folder,) = cache.iterdir()
    assert {folder / Path(library).name for library in first} <= set(folder.iterdir())


def test_a_program_can_be_run_by_hand(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import torch\nprint('sum', torch.arange(5, device='cuda').sum().item())\n")
    done = subprocess.run(
        [sys.executable, "-m", "tests.pretend", "--waits", str(program)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout == "sum 10\n", done.stderr
    assert "d2h_pageable 1" in done.stderr or "d2h 1" in done.stderr


def test_a_launch_or_a_gib_more_is_seen() -> None:
    part = {"kernels": 100, "library calls": 10, "waits": 0, "peak GiB": 8.0}
    expected = {"step": part, "call": part}
    assert counts.differences(expected, expected) == []
    more = {"step": {**part, "kernels": 101}, "call": {**part, "peak GiB": 8.1, "waits": 1}}
    assert counts.differences(expected, more) == [
        "kernels of a step: 100 -> 101",
        "waits of a call: 0 -> 1",
        "peak GiB of a call: 8.0 -> 8.1",
    ]


def test_the_counts_on_record_are_of_the_published_recipes_and_nothing_waits_in_them() -> None:
    for name, recipes in json.loads(counts.FILE.read_text(encoding="utf-8")).items():
        assert sorted(recipes) == counts.RECIPES, name
        for recipe, expected in recipes.items():
            assert expected["step"]["waits"] == expected["call"]["waits"] == 0, (name, recipe)


LEDGER = """
import torch
import torch.nn.functional as F
from tests.pretend.ledger import Ledger
x, half = torch.ones(2, 3, 8, 16, device="cuda"), torch.ones(4, 256, device="cuda").half()
weight, bias = torch.ones(5, 3, 1, 1, device="cuda"), torch.ones(5, device="cuda")
with Ledger() as ledger:
    x + x[:1]
    half.mul_(2)
    x.zero_()
    F.conv2d(x, weight)
    F.conv2d(x, weight, bias)
    x.view(6, 128).mT
for name, cost in ledger.by_operation().items():
    print(name, cost.calls, cost.launches, cost.bytes)
print("total", ledger.total().launches, ledger.total().bytes)
"""


def test_a_ledger_tells_launches_and_bytes_of_operations() -> None:
    image, output = 3 * 8 * 16 * 4, 2 * 5 * 8 * 16 * 4
    lines = dict(line.split(" ", 1) for line in run("-c", LEDGER).splitlines())
    assert lines["add.Tensor"] == f"1 1 {5 * image}"
    assert lines["mul_.Tensor"] == f"1 1 {2 * 4 * 256 * 2}"
    assert lines["zero_.default"].split()[-1] == str(2 * image)
    # two products, and the kernel that adds a bias reads the output and writes it
    assert lines["convolution.default"] == f"2 3 {2 * output}"
    assert not [name for name in lines if name.startswith(("view", "transpose"))]
    moved = 5 * image + 2 * 4 * 256 * 2 + 2 * image + 2 * output
    assert lines["total"].split()[1] == str(moved)


WITHOUT_TRITON = pytest.mark.skipif(not counts.has_triton(), reason="there is no triton")


@pytest.mark.parametrize(
    "check",
    [pytest.param(name, marks=WITHOUT_TRITON if name in FUSED_CHECKS else []) for name in CHECKS],
)
def test_on_a_pretended_gpu(check: str, errors: dict[str, str | None]) -> None:
    assert errors[check] is None, errors[check]


@pytest.fixture(scope="session")
def counted(request: pytest.FixtureRequest) -> dict[str, counts.Counts]:
    """The counts of the chosen recipes, all in one process."""
    if not counts.recorded():
        pytest.skip(
            f"counts.json has no counts of PyTorch {counts.torch_version()}: add them by {RENEW}"
        )
    return counts.in_process(asked(request, "recipe"))


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(recipe, marks=[] if recipe in REPRESENTATIVE else pytest.mark.slow)
        for recipe in counts.RECIPES
    ],
)
def test_a_published_recipe_takes_the_launches_and_the_memory_on_record(
    recipe: str, counted: dict[str, counts.Counts]
) -> None:
    expected = counts.recorded().get(recipe)
    assert expected is not None, f"no counts on record: add them by {RENEW}"
    changed = counts.differences(expected, counted[recipe])
    assert not changed, f"{'; '.join(changed)}: undo it, or rewrite the file by {RENEW}"


def programs(*command_lines: str) -> list[str]:
    """Arguments of tests.pretend.programs."""
    return ["-m", "tests.pretend.programs", *" -- ".join(command_lines).split(" ")]


# two micro-batches a step, as two processes have
TRAIN = (
    "train.py --config=configs/digits-tiny.yaml --nosubdir --device=cuda --tick=1it"
    " run.batch_gpu=16 network.dropout=0.1 optimizer.decay=constant sampler.steps=2"
)
GENERATE = "generate.py --seeds=0-3 --steps=3"
GEN = (
    "fid.py gen --seeds=0-7 --steps=3 --detector=digits --metrics=fid,is,pr"
    " --ref=assets/digits-8x8.zip"
)

NLL = "fid.py nll --data=assets/digits-8x8.zip --num=4 --steps=2 --probes=2 --batch=3"


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with what one process of every command line made on a device, and the output."""
    root = tmp_path_factory.mktemp("pretended")
    snapshot = root / "run" / "network-snapshot-0000000096.safetensors"
    generate = f"{GENERATE} --network={root / 'run'}"
    fid = "--device=cuda --detector=digits"
    output = run(
        *programs(
            f"{TRAIN} --outdir={root / 'run'} --duration=2it",
            f"train.py --resume={root / 'run'} --allow-config-change run.duration=3it",
            f"{generate} --device=cpu --outdir={root / 'cpu'}",
            f"{generate} --device=cuda --outdir={root / 'cuda'}",
            f"{generate} --device=cuda --outdir={root / 'all'} --rng-device=cuda --class=each",
            f"{generate} --device=cpu --outdir={root / 'cuda'} --resume",
            f"{generate} --device=cuda --outdir={root / 'more.npz'} --seeds=2",
            f"{generate} --device=cuda --outdir={root / 'more.npz'} --resume",
            f"fid.py ref {fid} --data={root / 'cpu'} --dest={root / 'ref.npz'}",
            f"fid.py calc {fid} --images={root / 'cuda'} --ref={root / 'ref.npz'} --num=4",
            f"{GEN} --network={root / 'run'} --device=cpu --json={root / 'cpu.json'}",
            f"{GEN} --network={root / 'run'} --device=cuda --json={root / 'cuda.json'}",
            f"{NLL} --network={root / 'run'} --device=cpu --json={root / 'nll-cpu.json'}",
            f"{NLL} --network={root / 'run'} --device=cuda --json={root / 'nll-cuda.json'}",
            f"dataset_tool.py convert --source={root / 'cuda'} --dest={root / 'cuda.zip'}",
            f"snapshot_tool.py info {snapshot}",
        ),
        computing=True,
    )
    return root, output


def pictures(folder: Path) -> list[bytes]:
    """The contents of all PNGs of a folder."""
    return [path.read_bytes() for path in sorted(folder.rglob("*.png"))]


def test_every_command_line_does_on_a_gpu_what_it_does_on_the_cpu(
    commands: tuple[Path, str],
) -> None:
    root, output = commands
    assert "on cuda:0, from the start" in output
    assert "on cuda:0, from 64 images" in output
    assert len(pictures(root / "all")) == 40
    assert len(pictures(root / "cuda")) == 4
    assert pictures(root / "cuda") == pictures(root / "cpu")
    assert f"4 images in {root / 'cuda'} (4 were there)" in output
    assert f"4 images in {root / 'more.npz'} (1 were there)" in output
    with np.load(root / "more.npz") as file:
        for pixels, path in zip(file["arr_0"], sorted((root / "cuda").glob("*.png")), strict=True):
            np.testing.assert_array_equal(pixels[:, :, 0], np.asarray(PIL.Image.open(path)))
    distance = re.search(r"frechet distance \(digits\): (\S+)", output)
    assert distance is not None, output
    assert float(distance[1]) < 1e-6
    scores = [json.loads((root / f"{name}.json").read_text()) for name in ("cpu", "cuda")]
    for value in ("fid", "is", "precision", "recall"):
        assert scores[1][value] == pytest.approx(scores[0][value], rel=1e-6)
    assert scores[1]["fid"] > 1
    bits = [json.loads((root / f"nll-{name}.json").read_text())["bits"] for name in ("cpu", "cuda")]
    assert bits[1] == pytest.approx(bits[0], rel=1e-5)


def test_two_processes_do_over_nccl_what_one_does(
    commands: tuple[Path, str], tmp_path: Path
) -> None:
    root, _ = commands
    generate = f"{GENERATE} --network={root / 'run'} --device=cuda"
    run(
        *programs(
            f"--ranks=2 {TRAIN} --outdir={tmp_path / 'run'} --duration=3it",
            f"--ranks=2 {generate} --outdir={tmp_path / 'images'}",
        ),
        devices=2,
        computing=True,
    )
    assert pictures(tmp_path / "images") == pictures(root / "cuda")
    name = "network-snapshot-0000000096.safetensors"
    ours, theirs = (load_file(folder / "run" / name) for folder in (tmp_path, root))
    for key, tensor in theirs.items():
        torch.testing.assert_close(ours[key], tensor, rtol=1e-4, atol=1e-6, msg=key)


@WITHOUT_TRITON
def test_the_benchmark_of_fused_kernels_runs_through(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    run(
        "benchmarks/bench_fused.py",
        *("--device=cuda", "--sizes=ddpm-mnist", "--batch=2", "--rounds=1", f"--out={out}"),
    )
    record = json.loads(out.read_text())
    assert {row["layer"] for row in record["layers"]} >= {"norm, silu", "residual sum"}
    for row in (*record["layers"], *(row["forward_backward"] for row in record["networks"])):
        assert row["fused_ms"] > 0
        assert row["pytorch_ms"] > 0
    assert len(record["networks"]) == 2


def test_a_dry_run_tries_steps_and_a_profile_sees_the_host_where_kernels_are_hidden(
    tmp_path: Path,
) -> None:
    short = f"{TRAIN} --outdir={tmp_path} --duration=4it preview=off"
    output = run(*programs(f"{short} --dry-run", f"{short} --profile=1"), computing=True)
    assert "device: cuda" in output
    assert "the GPU's kernels could not be watched" in output
    (table,) = tmp_path.glob("profile-*/operators.txt")
    assert table.read_text(encoding="utf-8").startswith("a step, on average over 1: ")
