"""Too little memory, on the host and on a GPU: one line that says what to change."""

import errno
import hashlib
import subprocess
import sys
from pathlib import Path

import click
import pytest
import torch

from tests.command import ENVIRONMENT, ROOT, run
from tests.pretend.build import environment, why_not
from torch_utils.command import Command, Group
from torch_utils.no_memory import is_out_of_memory, shortage

TINY = [
    *("--config=configs/digits-tiny.yaml", "--nosubdir", "run.batch=16", "preview=false"),
    "optimizer.decay=constant",
]
HUGE = ["--config=configs/digits-tiny.yaml", "--nosubdir", "run.batch=16384"]  # takes 4 GiB
needs_limits = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's limits")


def assert_out_of_memory(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """The run ended with exit code 1 and one line, beside what PyTorch's own code logs."""
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("[W")]
    assert len(lines) == 1, done.stderr
    for word in ("error: out of memory", *words):
        assert word in lines[0], (word, lines[0])


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of"
                " 79.10 GiB of which 1.20 GiB is free."
            ),
            "out of memory on the GPU: 2.5 GiB more did not fit",
        ),
        (
            RuntimeError(
                "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"
            ),
            "out of memory on the GPU",
        ),
        (RuntimeError("CUDA error: out of memory"), "out of memory on the GPU"),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate"
                " memory: you tried to allocate 268435456 bytes. Error code 12"
            ),
            "out of memory: 256.0 MiB more did not fit",
        ),
        (MemoryError(), "out of memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out of memory"),
    ],
)
def test_whoever_says_it(error: Exception, line: str) -> None:
    assert is_out_of_memory(error)
    assert shortage(error) == line


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), OSError(errno.ENOSPC, "No space left"), KeyError()]
)
def test_other_errors_are_others(error: Exception) -> None:
    assert not is_out_of_memory(error)


@click.group(cls=Group)
def program() -> None:
    """Allocates more than there is."""


@program.command(cls=Command, needs_less="allocate less (--size)")
def allocate() -> None:
    """Take a pebibyte."""
    torch.empty(2**50, dtype=torch.uint8)


def test_what_to_change_is_the_commands_to_say(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        program.main(["allocate"])
    assert left.value.code == 1
    gib = 2.0**20
    expected = f"error: out of memory: {gib:.1f} GiB more did not fit: allocate less (--size)\n"
    assert capsys.readouterr().err == expected


def python(*command: object, env: dict[str, str] = ENVIRONMENT) -> subprocess.CompletedProcess[str]:
    """Run Python from the repository's root."""
    return subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True, text=True, cwd=ROOT, env=env, timeout=300,
    )  # fmt: skip


@needs_limits
def test_training_on_the_host_says_what_to_change(tmp_path: Path) -> None:
    outdir, size = f"--outdir={tmp_path / 'run'}", "--batch-gpu=16384"
    site = tmp_path / "limit.py"
    site.write_text("from tests.limited import limit\nlimit(200)\n")
    done = run("train.py", *HUGE, outdir, size, site=site)
    assert_out_of_memory(done, "--batch-gpu", "--remat=1", "what was saved before is intact")


@needs_limits
@pytest.mark.slow
def test_a_process_without_memory_ends_the_job(tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    limited = ["-m", "tests.limited", 500, "--rank=1"]  # threads map much that they do not use
    train = ["train.py", *HUGE, f"--outdir={tmp_path / 'run'}", "--batch-gpu=8192"]
    done = python(*launcher, *limited, *train)
    assert done.returncode == 1
    assert done.stderr.count("error: out of memory") == 1
    assert "lost contact with the other processes" in done.stderr
    assert "training/trainer.py" not in done.stderr  # no traceback of ours


reason = why_not()


@pytest.mark.skipif(reason is not None, reason=reason or "")
def test_a_gpu_without_memory_leaves_the_run_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = [f"--outdir={folder}", *TINY, "--device=cpu", "--duration=1it"]
    assert run("train.py", *first).returncode == 0
    before = contents(folder)

    def on_gpu(mebibytes: int, *command: str) -> subprocess.CompletedProcess[str]:
        return python(*command, env=environment(memory=mebibytes * 2**20))

    go_on = [f"--resume={folder}", "--device=cuda", "run.duration=2it"]
    assert_out_of_memory(on_gpu(2, "train.py", *go_on), "on the GPU", "--batch-gpu")
    after = contents(folder)
    assert before.keys() == after.keys()
    assert all(after[name] == before[name] for name in before if name.endswith((".pt", "tensors")))
    images = ["--seeds=0-99999", "--batch=100000", "--steps=5", f"--outdir={tmp_path / 'images'}"]
    done = on_gpu(200, "generate.py", f"--network={folder}", "--device=cuda", *images)
    assert_out_of_memory(done, "on the GPU", "(--batch)")


def contents(folder: Path) -> dict[str, str]:
    """A hash of every file."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.is_file()
    }
