"""Compiled runs: what compiling leaves alone, the bits of a resumed run, and what happens without.

Most graphs here are traced without making kernels, which takes seconds a graph; the tests with
kernels are slow.
"""

import copy
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from networks.compiled import BlockCompiler
from tests.command import ENVIRONMENT, ROOT, torchrun
from tests.training.runs import (
    CPU,
    OVERRIDES,
    assert_equal_states,
    tiny_config,
    tiny_data,
    train_tiny,
)
from training.compiling import compile_blocks, reason_of
from training.run_log import LOG_FILE
from training.setup import create_trainer, model_of
from training.source import MicroBatches
from training.state import newest_state
from training.trainer import Trainer

PLAIN = "loss.terms=[denoising]"  # fewer kinds of calls
NO_DROPOUT = "network.dropout=0"  # masks of compiled blocks are others
TINY = ["--config=configs/digits-tiny.yaml", *OVERRIDES, "--compile=1", "preview=off"]
FAILED = "not compiled, blocks run eagerly: the C++ compiler failed"
NO_COMPILER = "not compiled, blocks run eagerly: there is no C++ compiler (g++, or what CXX names)"


def new_trainer(*overrides: str) -> tuple[Trainer, MicroBatches]:
    """The small run's trainer with its first weights, and its data."""
    config, data = tiny_config(*overrides), tiny_data()
    trainer = create_trainer(config, model_of(config, data), CPU)
    return trainer, MicroBatches(config, data, trainer.objective, CPU)


def compiled(trainer: Trainer, source: MicroBatches, compiler: BlockCompiler) -> str:
    """Compile a trainer's blocks; the line."""
    batch, draws, _ = next(source.at(trainer.seen))
    line = compile_blocks(trainer, batch, draws, compiler)
    assert line is not None
    return line


def damaged_kernel(folder: Path) -> Path:
    """An empty file with a name as the compiler gives it."""
    path = folder / "ab" / f"c{'ab' * 25}a.main.so"
    path.parent.mkdir()
    path.touch()
    return path


def take(trainer: Trainer, source: MicroBatches, num: int) -> dict[str, Any]:
    """A copy of the state after so many steps."""
    for _ in range(num):
        given = list(source.at(trainer.seen))
        trainer.step([(batch, draws) for batch, draws, _ in given], [seed for *_, seed in given])
    return copy.deepcopy(trainer.state())


def test_compiling_changes_nothing_that_a_step_depends_on() -> None:
    trainer, source = new_trainer("loss.uncertainty=true", PLAIN)
    take(trainer, source, 1)
    trainer.trained.zero_grad(set_to_none=True)
    before, random = copy.deepcopy(trainer.state()), torch.get_rng_state()
    line = compiled(trainer, source, BlockCompiler("aot_eager"))
    assert line.startswith("compiled 5 blocks in ")
    assert torch.equal(torch.get_rng_state(), random)
    assert_equal_states(trainer.state(), before)
    assert all(p.grad is None for p in trainer.trained.parameters())


def test_compiled_steps_are_those_of_eager_blocks_and_go_on_to_the_same_bits() -> None:
    compiler = BlockCompiler("aot_eager")
    eager, source = new_trainer(PLAIN, NO_DROPOUT)
    expected = take(eager, source, 3)
    trainer, source = new_trainer(PLAIN, NO_DROPOUT)
    compiled(trainer, source, compiler)
    num = compiler.num_graphs
    assert num
    half = take(trainer, source, 1)
    whole = take(trainer, source, 2)
    for name, tensor in expected["denoiser"].items():
        torch.testing.assert_close(whole["denoiser"][name], tensor, rtol=1e-3, atol=2e-5, msg=name)
    later, source = new_trainer(PLAIN, NO_DROPOUT)
    later.load(half)
    compiled(later, source, compiler)
    assert_equal_states(take(later, source, 2), whole)
    assert compiler.num_graphs == num


def test_without_a_compiler_blocks_stay_eager_and_a_line_says_why() -> None:
    trainer, source = new_trainer(PLAIN)
    with torch._inductor.config.patch({"cpp.cxx": (None, "/nowhere")}):
        assert compiled(trainer, source, BlockCompiler()) == NO_COMPILER
    models = trainer.denoiser, trainer.average
    assert not any(getattr(m, "compiler", None) for model in models for m in model.modules())
    eager, _ = new_trainer(PLAIN)
    assert_equal_states(take(trainer, source, 1), take(eager, source, 1))


def test_a_run_without_a_compiler_trains_to_its_end(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "train.py", f"--outdir={tmp_path}", "--nosubdir", *TINY, PLAIN,
         "run.duration=2it"],
        capture_output=True, text=True, cwd=ROOT, timeout=300,
        env={**ENVIRONMENT, "CXX": "/nowhere", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    log = (tmp_path / LOG_FILE).read_text().splitlines()
    assert NO_COMPILER in log
    (line,) = [line for line in log if line.startswith("first step after ")]
    assert log.index(line) == log.index(NO_COMPILER) + 1


def test_reasons_are_plain_words_or_one_line() -> None:
    missing = type("TritonMissing", (Exception,), {})("Cannot find a working triton installation")
    wrapped = RuntimeError("backend='inductor' raised")
    wrapped.__cause__ = missing
    assert reason_of(wrapped) == "Triton is not installed"
    assert reason_of(ValueError("one\ntwo")) == "ValueError: one"


def test_damaged_kernels_are_removed_first_and_the_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    path = damaged_kernel(tmp_path)
    line = compiled(*new_trainer(PLAIN), BlockCompiler("aot_eager"))
    assert line.startswith("compiled 5 blocks in ")
    assert line.endswith(f" graphs; damaged files removed from {tmp_path}: 1")
    assert not path.exists()


def test_a_failure_that_damage_may_explain_names_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where headers are kept
    damaged_kernel(tmp_path)
    (tmp_path / "locks").touch()  # instead of a folder
    line = compiled(*new_trainer(PLAIN), BlockCompiler("aot_eager"))
    assert line.startswith("not compiled, blocks run eagerly: FileExistsError: ")
    assert line.endswith(f"; if a kernel on disk is damaged, remove {tmp_path}")


@pytest.mark.parametrize("error", [KeyError("uid not found"), ValueError("no folder")])
def test_where_nobody_knows_the_folder_blocks_are_compiled_or_run_eagerly(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown() -> str:
        raise error

    monkeypatch.setattr("torch._inductor.runtime.runtime_utils.default_cache_dir", unknown)
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    line = compiled(*new_trainer(PLAIN), BlockCompiler("aot_eager"))
    eager = f"not compiled, blocks run eagerly: {type(error).__name__}: {error}"
    if isinstance(error, KeyError):  # PyTorch asks, too, or need not know
        assert line.startswith((eager, "compiled 5 blocks in "))
    else:
        assert line == eager


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_with_kernels_resumes_to_the_same_bits(precision: str, tmp_path: Path) -> None:
    options = ("run.compile=true", f"run.precision={precision}")
    whole = train_tiny(tmp_path / "whole", *options)
    assert "compiled 5 blocks" in (tmp_path / "whole" / LOG_FILE).read_text()
    train_tiny(tmp_path / "run", *options, "run.duration=6it")
    found = train_tiny(tmp_path / "run", *options, resume=True)
    assert_equal_states(found["trainer"], whole["trainer"])


@pytest.mark.slow
def test_kernels_that_were_cut_off_are_compiled_anew_or_blocks_run_eagerly(tmp_path: Path) -> None:
    cache = tmp_path / "kernels"
    places = {"TORCHINDUCTOR_CACHE_DIR": str(cache), "TMPDIR": str(tmp_path)}

    def trained(name: str) -> tuple[dict[str, Any], str]:
        words = [f"--outdir={tmp_path / name}", "--nosubdir", *TINY, PLAIN, "run.duration=2it"]
        done = subprocess.run(
            [sys.executable, "train.py", *words], capture_output=True, text=True, cwd=ROOT,
            timeout=1800, env={**ENVIRONMENT, **places},
        )  # fmt: skip
        assert done.returncode == 0, (done.returncode, done.stderr)
        state = newest_state(tmp_path / name)[1]
        assert state is not None
        return state["trainer"], (tmp_path / name / LOG_FILE).read_text()

    whole, _ = trained("whole")
    libraries = sorted(cache.glob("??/*.main.so"))
    # opened after it was cut off to 4096 bytes, a library ends the process by a bus error
    for path, size in zip(libraries, (0, 4096, 8192), strict=False):
        os.truncate(path, size)
    for path in sorted(cache.glob("??/*.py"))[:2]:
        os.truncate(path, 0)
    again, log = trained("again")
    assert f" graphs; damaged files removed from {cache}: 5\n" in log
    assert_equal_states(again, whole)

    headers = sorted(tmp_path.glob("torchinductor_*/precompiled_headers/*.gch"))
    if not headers:
        return  # this PyTorch makes none
    for path in headers:
        os.truncate(path, path.stat().st_size // 2)
    libraries[0].unlink()
    _, log = trained("eager")
    folders = f"{cache} and {headers[0].parent}"
    assert f"{FAILED}; if a kernel on disk is damaged, remove {folders}\n" in log


@pytest.mark.slow
def test_two_compiled_processes_are_one_with_two_micro_batches(tmp_path: Path) -> None:
    one = train_tiny(tmp_path / "one", "run.compile=true")["trainer"]
    folder = tmp_path / "two"
    done = torchrun(2, "train.py", f"--outdir={folder}", "--nosubdir", *TINY, real=True)
    assert done.returncode == 0, done.stderr
    assert "compiled 5 blocks" in (folder / LOG_FILE).read_text()
    two = newest_state(folder)[1]
    assert two is not None
    assert one["seen"] == two["trainer"]["seen"]


@pytest.mark.slow
def test_one_process_without_a_compiler_keeps_all_eager(tmp_path: Path) -> None:
    script = tmp_path / "limited.py"
    script.write_text(
        "import os, runpy\n"
        "if os.environ['RANK'] == '1':\n"
        "    os.environ['CXX'] = '/nowhere'\n"
        f"runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')\n"
    )
    folder = tmp_path / "run"
    words = [f"--outdir={folder}", "--nosubdir", *TINY]
    done = torchrun(2, os.path.relpath(script, ROOT), *words, real=True)
    assert done.returncode == 0, done.stderr
    log = (folder / LOG_FILE).read_text()
    assert "not compiled, blocks run eagerly: it failed in another process" in log
