"""`make bench` knows every benchmark program, and each can be run by it."""

import importlib
import json
from collections.abc import Sequence
from pathlib import Path

import click
import pytest
import torch

from benchmarks import bench_generate, bench_training
from benchmarks.__main__ import PROGRAMS, Program, run_one
from benchmarks.bench_generate import PRECISIONS
from tests.command import ROOT, call
from torch_utils.precision import has_fast_bf16

TINY = ("--channels=8", "--resolution=16")
OTHERS = {"digits_quality.py"}  # beside the list: what judges `make demo`


def has_command(path: Path) -> bool:
    return "@click.command" in path.read_text() and not path.name.startswith(("reference_", "__"))


def test_every_benchmark_program_is_in_the_list() -> None:
    files = {path.name for path in (ROOT / "benchmarks").glob("*.py") if has_command(path)}
    assert {program.file for program in PROGRAMS} == files - OTHERS
    assert len({program.stem for program in PROGRAMS}) == len(PROGRAMS)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_a_listed_program_takes_what_make_bench_gives_it(program: Program) -> None:
    command = importlib.import_module(f"benchmarks.{program.file.removesuffix('.py')}").main
    options = {flag: p for p in command.params if isinstance(p, click.Option) for flag in p.opts}
    assert "--out" in options
    assert ("--device" in options) == program.has_device
    given = {arg.split("=")[0] for arg in program.args}
    assert given <= options.keys()
    assert {flag for flag, option in options.items() if option.required} <= given


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_no_number_of_an_option_is_too_small_to_measure(program: Program) -> None:
    command = importlib.import_module(f"benchmarks.{program.file.removesuffix('.py')}").main
    for option in command.params:
        if option.type.name.startswith("integer"):
            with pytest.raises(click.BadParameter, match=r"is not in the range x>="):
                option.type.convert("-1", option, None)


def test_committed_results_of_listed_programs_say_what_they_were_measured_on() -> None:
    results = ROOT / "benchmarks" / "results"
    for program in PROGRAMS:
        for path in results.glob(f"{program.stem}-*.json"):
            record = json.loads(path.read_text())
            for part in record["axes"].values() if program.stem == "scaling" else [record]:
                assert next(iter(part)) == "hardware", path
                assert {"device", "torch", "commit"} <= part["hardware"].keys(), path


def test_the_list_can_be_printed_and_an_unknown_benchmark_is_one_line() -> None:
    shown = call("benchmarks.__main__", "--list")
    assert shown.returncode == 0, shown.stderr
    assert [line.split()[0] for line in shown.stdout.splitlines()] == [p.stem for p in PROGRAMS]
    wrong = call("benchmarks.__main__", "--only=trainings")
    assert wrong.returncode == 2
    assert "trainings" in wrong.stderr
    assert "training" in wrong.stderr.replace("trainings", "")
    assert len(wrong.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_program_that_is_run_writes_its_numbers_under_its_name(tmp_path: Path) -> None:
    small = Program("bench_training.py", "", 1, ("--batch=2", "--pairs=1", *TINY))
    assert run_one(small, "cpu", tmp_path) == 0
    record = json.loads((tmp_path / "training-cpu.json").read_text())
    precisions = PRECISIONS if has_fast_bf16() else PRECISIONS[:1]
    assert list(record["comparisons"]) == [*precisions, "optimizer and average"]
    for row in record["comparisons"].values():
        assert row["speed"]["min"] <= row["speed"]["median"] <= row["speed"]["max"]
    small = Program("bench_generate.py", "", 1, ("--num=1", "--steps=2", "--pairs=1", *TINY))
    assert run_one(small, "cpu", tmp_path) == 0
    record = json.loads((tmp_path / "generate-cpu.json").read_text())
    assert record["programs"].keys() == {"yardstick", *precisions}


@pytest.mark.parametrize(("is_fast", "precisions"), [(True, PRECISIONS), (False, ("fp32",))])
def test_bf16_is_measured_on_cpus_that_have_instructions_for_it(
    is_fast: bool, precisions: Sequence[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for module in (bench_generate, bench_training):
        monkeypatch.setattr(module, "has_fast_bf16", lambda: is_fast)
    calls = bench_generate.commands(tmp_path / "net", tmp_path, "cpu", num=1, batch=1, steps=2)
    assert list(calls) == ["yardstick", *precisions]
    size = {"model_channels": 8, "channel_mult": [1], "num_blocks": 1}
    rows = bench_training.measure(torch.device("cpu"), 1, 1, size, 8)
    assert list(rows) == [*precisions, "optimizer and average"]


def test_the_benchmark_of_augmentation_compares_in_pairs(tmp_path: Path) -> None:
    small = Program("bench_augment.py", "", 1, ("--batch=4", "--pairs=2"))
    assert run_one(small, "cpu", tmp_path) == 0
    for row in json.loads((tmp_path / "augment-cpu.json").read_text())["sizes"].values():
        assert 0 < row["speedup"]["min"] <= row["speedup"]["median"] <= row["speedup"]["max"]


def test_a_program_that_fails_is_noticed(tmp_path: Path) -> None:
    assert run_one(Program("bench_training.py", "", 1, ("--batch=-1",)), "cpu", tmp_path) != 0
