"""Fused kernels: what they compute, by Triton's interpreter, and when they are trusted."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from networks import fused
from networks.fused import Fusion
from tests.networks.interpreted import CHECKS

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def errors() -> dict[str, str | None]:
    """What became of all checks in one process with the interpreter."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("there is no triton")
    done = subprocess.run(
        [sys.executable, "-m", "tests.networks.interpreted"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(line) for line in done.stdout.splitlines())


@pytest.mark.parametrize("check", CHECKS)
def test_kernels_under_the_interpreter(check: str, errors: dict[str, str | None]) -> None:
    assert errors[check] is None, errors[check]


class Trial:
    """A trial that finds an error, or fails, and counts how often it is made."""

    def __init__(self, found: float | Exception) -> None:
        self.found, self.num = found, 0

    def __call__(self, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
        self.num += 1
        if isinstance(self.found, Exception):
            raise self.found
        return {"result": torch.tensor(0.0), "gradient": torch.tensor(self.found)}


def test_kernels_that_agree_are_tried_once_for_each_dtype() -> None:
    trial = Trial(1e-5)
    fusion = Fusion("things", trial)
    for _ in range(2):
        assert fusion.is_trusted(CPU, torch.float32)
        assert fusion.is_trusted(CPU, torch.bfloat16)
    assert trial.num == 2


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (2e-4, "their gradient differs by 0.0002"),
        (float("nan"), "their gradient differs by nan"),
        (ModuleNotFoundError("No module named 'triton'"), "ModuleNotFoundError: No module named"),
        (RuntimeError("\n first line\n second"), "RuntimeError: first line\n"),
    ],
    ids=str,
)
def test_kernels_that_do_not_agree_are_not_used_and_a_line_says_why(
    found: float | Exception, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = Trial(found)
    fusion = Fusion(f"things of {reason[-12:]!r}", trial)
    for _ in range(2):
        assert not fusion.is_trusted(CPU, torch.float32)
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "in float32 are not used on cpu: " in printed
    assert reason in printed
    assert trial.num == 1


def test_kernels_that_fail_later_are_not_used_again(capsys: pytest.CaptureFixture[str]) -> None:
    fusion = Fusion("failing things", Trial(0.0))

    def fail() -> None:
        raise ValueError("out of registers")

    assert fusion.attempt(torch.zeros(1), lambda: "computed") == "computed"
    assert fusion.is_trusted(CPU, torch.float32)
    assert fusion.attempt(torch.zeros(1), fail) is None
    assert not fusion.is_trusted(CPU, torch.float32)
    assert fusion.is_trusted(CPU, torch.bfloat16)
    assert "ValueError: out of registers" in capsys.readouterr().err


def test_too_little_memory_is_no_fault_of_the_kernels() -> None:
    fusion = Fusion("large things", Trial(0.0))

    def fail() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        fusion.attempt(torch.zeros(1), fail)
    assert fusion.is_trusted(CPU, torch.float32)
    tried = Fusion("large things", Trial(torch.OutOfMemoryError("CUDA out of memory")))
    with pytest.raises(torch.OutOfMemoryError):
        tried.is_trusted(CPU, torch.float32)


def test_a_variable_switches_kernels_off_untried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(fused.VARIABLE, "0")
    trial = Trial(0.0)
    assert not Fusion("things", trial).is_trusted(CPU, torch.float32)
    assert trial.num == 0


def test_a_choice_holds_untried_until_it_is_taken_back() -> None:
    trial = Trial(1.0)
    fusion = Fusion("chosen things", trial)
    for verdict in (True, False):
        fused.choose(CPU, verdict)
        try:
            assert fusion.is_trusted(CPU, torch.float32) == verdict
        finally:
            fused.choose(CPU, None)
    assert trial.num == 0
    assert not fusion.is_trusted(CPU, torch.float32)


def test_a_trial_is_apart_from_what_the_caller_is_in_the_middle_of() -> None:
    def trial(device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
        assert not torch.is_autocast_enabled("cpu")
        x = torch.ones(3, requires_grad=True)
        (gradient,) = torch.autograd.grad((x * x).sum(), x)
        return {"gradient": (gradient - 2).norm()}

    def fail(tensor: Tensor) -> Tensor:
        raise AssertionError("what a trial saves is not the caller's")

    hooks = saved_tensors_hooks(fail, fail)
    with torch.inference_mode(), hooks, torch.autocast("cpu", torch.bfloat16):
        assert Fusion("things apart", trial).is_trusted(CPU, torch.float32)


def test_tensors_on_the_cpu_are_no_business_of_kernels() -> None:
    assert not fused.is_plain(torch.zeros(1, 1, 2, 2))
