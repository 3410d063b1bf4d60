"""`--profile` shows where the time of steps goes, and changes nothing of the run."""

import gzip
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.command import assert_refused, call, torchrun
from tests.training.runs import (
    CPU,
    ROOT,
    assert_equal_states,
    tiny_config,
    tiny_data,
    train_tiny,
)
from training.loop import train
from training.profiling import (
    NUM_ROWS,
    Operator,
    StepProfile,
    activities_on,
    operators_of,
    table_of,
)
from training.run_log import LOG_FILE
from training.state import newest_state

TINY = ROOT / "configs" / "digits-tiny.yaml"
# few events a step
PLAIN = ("preview=off", "loss.terms=[denoising]", "run.batch=8", "run.dump=9it", "run.tick=9it")
FEW = (*PLAIN, "run.duration=6it")


def profile_in(folder: Path) -> tuple[Path, list[str], dict[str, object]]:
    """The one profile of a run: its folder, its table and its trace."""
    (found,) = folder.glob("profile-*")
    assert sorted(path.name for path in found.iterdir()) == ["operators.txt", "trace.json.gz"]
    trace = json.loads(gzip.decompress((found / "trace.json.gz").read_bytes()))
    return found, (found / "operators.txt").read_text().splitlines(), trace


def test_a_profile_has_the_steps_asked_for_and_changes_no_bit(tmp_path: Path) -> None:
    plain = train_tiny(tmp_path / "plain", *FEW)
    config, folder = tiny_config(*FEW), tmp_path / "watched"
    folder.mkdir()
    train(config, tiny_data(), folder, CPU, profile=2)
    state = newest_state(folder)[1]
    assert state is not None
    assert_equal_states(state, plain)
    found, table, trace = profile_in(folder)
    assert found.name == f"profile-{3 * 8:010d}"  # after two steps, and one to warm up
    assert table[0].startswith("a step, on average over 2: ")
    rows = {line.split()[0]: line.split() for line in table[4:]}
    # one update of the average a step: what was watched is the steps, all of them and no more
    assert float(rows["aten::convolution_backward"][1]) > 10
    events = trace["traceEvents"]
    assert isinstance(events, list)
    updates = [event for event in events if event.get("name") == "aten::_fused_adam_"]
    assert len(updates) == 2
    assert "profile of 2 step(s)" in (folder / LOG_FILE).read_text()


def test_a_run_that_ends_before_is_profiled_as_far_as_it_goes(tmp_path: Path) -> None:
    for name, steps in (("short", 5), ("none", 3)):
        (tmp_path / name).mkdir()
        config = tiny_config(f"run.duration={steps}it", *PLAIN)
        train(config, tiny_data(), tmp_path / name, CPU, profile=9)
    assert profile_in(tmp_path / "short")[1][0].startswith("a step, on average over 2: ")
    assert not list((tmp_path / "none").glob("profile-*"))
    log = (tmp_path / "none" / LOG_FILE).read_text()
    assert "no profile: it begins after 3 steps, and this start took 3" in log


def test_a_run_that_goes_on_is_profiled_from_there(tmp_path: Path) -> None:
    where = ("train.py", f"--config={TINY}", f"--outdir={tmp_path}", "--nosubdir", "preview=off")
    where += ("optimizer.decay=constant",)
    assert call(*where, "--duration=2it").returncode == 0
    done = call(*where, "--duration=8it", "--resume=latest", "--profile=2")
    assert done.returncode == 0, done.stderr
    assert profile_in(tmp_path)[0].name == f"profile-{(2 + 3) * 32:010d}"
    assert "profile" not in (tmp_path / "config.yaml").read_text()


def test_of_several_processes_the_main_one_is_profiled(tmp_path: Path) -> None:
    done = torchrun(
        2,
        "train.py",
        *(f"--config={TINY}", f"--outdir={tmp_path}", "--nosubdir", "--device=cpu"),
        *("--profile=1", "--duration=5it", "preview=off"),
    )
    assert done.returncode == 0, done.stderr
    assert profile_in(tmp_path)[1][0].startswith("a step, on average over 1: ")


def test_an_error_ends_the_profile_without_writing_it(tmp_path: Path) -> None:
    said: list[str] = []

    def fail() -> None:
        with StepProfile(1, tmp_path, torch.device("cpu"), 0, said.append) as watching:
            for step in range(3):
                watching.after_step(step)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not list(tmp_path.iterdir())
    assert said == []
    with StepProfile(1, tmp_path, torch.device("cpu"), 0, said.append) as watching:
        for step in range(9):  # a new one can begin
            watching.after_step(step)
    assert len(said) == 1


def test_only_what_can_be_watched_is() -> None:
    known = torch.profiler.supported_activities()
    cpu, cuda = torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA
    assert activities_on(torch.device("cpu")) == [cpu]
    assert activities_on(torch.device("cuda")) == [a for a in (cpu, cuda) if a in known]


def test_a_table_has_the_gpu_where_there_is_one_and_sums_what_it_leaves_out() -> None:
    rows = [Operator(f"op{n}", 1, 2.0, 0.0, 0.5, 1.0) for n in range(NUM_ROWS + 3)]
    table = table_of(rows, 4)
    assert "GPU" not in "".join(table)
    assert table[0].endswith(f"{2 * (NUM_ROWS + 3):.1f} ms on the CPU")
    assert table[-1].split() == ["(3", "others)", "3.0", "6.00", "7.0", "1.500", "3.0"]
    on_gpu = table_of([Operator("kernel", 1, 0.0, 3.0, 0.0, 0.0)], 1)
    assert on_gpu[0].endswith("3.0 ms on the GPU")
    assert on_gpu[-1].split() == ["kernel", "1.0", "0.00", "0.0", "3.00", "100.0", "0.000", "0.0"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [(("--profile=0",), "--profile is 0"), (("--profile=2", "-n"), "--profile needs steps")],
)
def test_a_profile_of_nothing_is_refused(
    arguments: tuple[str, ...], word: str, tmp_path: Path
) -> None:
    assert_refused(call("train.py", f"--config={TINY}", f"--outdir={tmp_path}", *arguments), word)
    assert not list(tmp_path.iterdir())


def event(key: str, device: str, cpu: float, gpu: float, is_span: bool = False) -> SimpleNamespace:
    """A row of a profiler's averages, times in microseconds."""
    return SimpleNamespace(
        key=key,
        count=2,
        device_type=SimpleNamespace(name=device),
        is_user_annotation=is_span,
        self_cpu_time_total=cpu,
        self_device_time_total=gpu,
        flops=0,
        self_device_memory_usage=0,
        self_cpu_memory_usage=0,
    )


def test_time_on_a_gpu_is_counted_once() -> None:
    """PyTorch tells it of kernels, of the operators that launch them, and of named spans."""
    averages = [
        event("aten::mm", "CPU", 30, 4000),
        event("gemm_kernel", "CUDA", 0, 4000),
        event("Optimizer.step#Adam.step", "CPU", 50, 0, is_span=True),
        event("Optimizer.step#Adam.step", "CUDA", 0, 5000, is_span=True),
        event("adam_kernel", "CUDA", 0, 1000),
        event("ProfilerStep*", "CPU", 900, 0),
    ]
    rows = operators_of(averages, 2, torch.device("cuda"))
    assert [(row.name, row.cpu_ms, row.gpu_ms) for row in rows] == [
        ("gemm_kernel", 0, 2),
        ("adam_kernel", 0, 0.5),
        ("Optimizer.step#Adam.step", 0.025, 0),
        ("aten::mm", 0.015, 0),
    ]
