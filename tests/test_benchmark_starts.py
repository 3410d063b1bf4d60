"""Benchmarks compute and wait as the programs that they stand for, and say what they ran on."""

import json
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.bench_neighbour import CHOSEN
from benchmarks.bench_scaling import measure_processes
from benchmarks.hardware import commit, own_environment, prepared_device
from tests.command import ENVIRONMENT, ROOT
from torch_utils.threads import SPINS
from training.config import TrainingConfig

SPINNING = "GOMP_SPINCOUNT"


def test_cudnn_times_its_algorithms_in_benchmarks_where_it_does_in_training() -> None:
    before = torch.backends.cudnn.benchmark
    try:
        for trains in (True, False):
            prepared_device("cpu", trains=trains)
            assert torch.backends.cudnn.benchmark == (trains and TrainingConfig().run.bench)
    finally:
        torch.backends.cudnn.benchmark = before


def started(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A program of ours as a user starts it, who has chosen nothing but `variables`."""
    malloc = ("MALLOC_", "GLIBC_TUNABLES")
    kept = {
        name: value
        for name, value in ENVIRONMENT.items()
        if name not in CHOSEN and not name.startswith(malloc)
    }
    command, options = [sys.executable, *words], {"capture_output": True, "text": True}
    return subprocess.run(command, cwd=ROOT, env=kept | variables, timeout=300, **options)


def test_a_benchmark_that_is_started_as_documented_waits_for_threads_as_our_programs(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out.json"
    sizes = ("--device=cpu", "--batch=4", "--pairs=1", f"--out={out}")
    done = started("-m", "benchmarks.bench_augment", *sizes)
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text())["hardware"]["spins"] == str(SPINS)


def test_the_plain_sampler_waits_for_threads_as_openmp_does() -> None:
    script = "benchmarks/reference_sampler.py"  # run by its path, as bench_generate.py does
    code = f"import os, runpy; runpy.run_path({script!r}); print(os.environ.get({SPINNING!r}))"
    done = started("-c", code)
    assert done.stdout == "None\n", done.stderr
    assert SPINNING not in own_environment()


HANDED_ON = f"""
import subprocess
from pathlib import Path
import benchmarks.__main__ as listed
from benchmarks.hardware import own_environment
def noted(*words, env, **options):
    print(env.get({SPINNING!r}))
    return subprocess.CompletedProcess(words, 0)
noted(env=own_environment())
subprocess.run = noted
listed.run_one(listed.PROGRAMS[0], "cpu", Path())
"""


def test_what_the_user_chose_for_threads_is_handed_on_and_what_benchmarks_chose_is_not() -> None:
    for chosen, expected in (({}, "None"), ({SPINNING: "77"}, "77")):
        done = started("-c", HANDED_ON, **chosen)
        assert done.stdout.split() == [expected] * 2, done.stderr


# frees 128 MiB in blocks that malloc does not map on their own, and allocates them again
PAGES = """
import ctypes, resource
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def turn():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [libc.malloc(2**20) for _ in range(128)]
    for block in blocks:
        ctypes.memset(block, 1, 2**20)
    for block in blocks:
        libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
turn()
print(turn(), turn())
"""
# what is called in processes that do not begin with a command line
AFRESH = {
    "bench_compile": """
import torch
from benchmarks.bench_compile import first_step
size = {"model_channels": 16, "channel_mult": [1], "num_blocks": 1}
first_step(False, size, 8, 1, "fp32", torch.device("cpu"))
""",
    "bench_scaling": """
import torch
from benchmarks.bench_scaling import needs_of
needs_of({"batch": 1, "resolution": 8, "channels": 8}, torch.device("cpu"))
""",
    "neighbour_work": """
import io, sys
from benchmarks.neighbour_work import main
sys.stdin, sys.stdout = io.StringIO(), sys.stderr
main("scoring")
sys.stdout = sys.__stdout__
""",
}


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
@pytest.mark.parametrize("name", AFRESH)
def test_processes_that_benchmarks_start_keep_freed_memory_as_our_programs(name: str) -> None:
    done = started("-c", AFRESH[name] + PAGES)
    assert done.returncode == 0, done.stderr
    released = started("-c", PAGES)
    kept = min(map(int, done.stdout.split()))
    assert kept < min(map(int, released.stdout.split())) / 10


def test_a_benchmark_finds_our_tests_and_not_those_of_another_package() -> None:
    done = started("-m", "benchmarks.bench_fid", "--help")
    assert done.returncode == 0, done.stderr
    assert "Time the stages of scoring" in done.stdout


def test_no_text_starts_a_benchmark_by_the_path_of_its_file() -> None:
    texts = [path for pattern in ("*.md", "Makefile", "*.toml") for path in ROOT.glob(pattern)]
    for folder, pattern in (("docs", "*.md"), ("configs", "*"), ("benchmarks", "*.py")):
        texts += (ROOT / folder).rglob(pattern)
    texts = [path for path in texts if path.is_file()]
    by_path = re.compile(r"python3?\s+benchmarks/")
    found = {path.name for path in texts if by_path.search(path.read_text(encoding="utf-8"))}
    # what a benchmark starts, and is not to wait as our programs do
    assert found == {"reference_sampler.py", "neighbour_work.py"}
    assert len(texts) > 60


def test_the_record_of_a_machine_says_whether_the_code_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> str:
        names = ("-c", "user.name=a", "-c", "user.email=a@b")
        command = ["git", "-C", str(tmp_path), *names, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    file, result = tmp_path / "code.py", tmp_path / "benchmarks" / "results" / "a.json"
    result.parent.mkdir(parents=True)
    for path in (file, result):
        path.write_text("1")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message=a")
    name = git("rev-parse", "--short", "HEAD")
    monkeypatch.setattr("benchmarks.hardware.ROOT", tmp_path)
    result.write_text("2")  # as the program before wrote it
    assert commit() == name
    file.write_text("2")
    assert commit() == f"{name}-dirty"


def test_no_more_processes_are_measured_than_there_are_gpus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert measure_processes((1, 2), torch.device("cuda"), 1) == []
