"""The tables of mutants fit the source, and the runner tells what is killed from what survives."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants import MUTANTS
from tests.mutations import Mutant

ROOT = Path(__file__).parents[1]

# run on its own, so that what it forks has imported nothing of ours
JUDGE = """
import sys
from tests import mutants
from tests.mutations import Mutant
tests = ("tests/diffusion/test_steps.py::test_posterior_mean_is_ddpms",)
mutants.MUTANTS = [
    Mutant("diffusion/steps.py", "q * x + (1 - q) * denoised", "q * x + denoised", tests),
    Mutant("diffusion/steps.py", "q * x + (1 - q) * denoised", "(1 - q) * denoised + q * x", tests),
    Mutant("diffusion/steps.py", "no such text", "", tests),
]
sys.exit(mutants.main([]))
"""


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_mutant_changes_one_place_and_names_tests_that_exist(mutant: Mutant) -> None:
    changed = mutant.applied((ROOT / mutant.file).read_text(encoding="utf-8"))
    assert changed is not None, "the original text must occur exactly once"
    assert mutant.original != mutant.replacement
    assert "\n" not in mutant.original + mutant.replacement
    compile(changed, mutant.file, "exec")
    for test in mutant.tests:
        path, _, name = test.partition("::")
        text = (ROOT / path).read_text(encoding="utf-8")
        assert f"def {name.partition('[')[0]}" in text, test


def test_no_mutant_is_listed_twice() -> None:
    assert len({str(mutant) for mutant in MUTANTS}) == len(MUTANTS)


def test_a_dropped_factor_is_killed_and_a_change_of_nothing_survives() -> None:
    source = (ROOT / "diffusion" / "steps.py").read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", JUDGE],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=300,
    )
    assert done.returncode == 1, done.stderr
    killed, survived, missing, summary = done.stdout.splitlines()
    assert killed.startswith("killed: diffusion/steps.py: q * x + (1 - q) * denoised -> ")
    assert killed.endswith("tests/diffusion/test_steps.py::test_posterior_mean_is_ddpms")
    assert survived.startswith("SURVIVED: ")
    assert missing.startswith("does not apply: ")
    assert summary == "1 of 3 mutants killed"
    assert (ROOT / "diffusion" / "steps.py").read_bytes() == source, "only the copy is changed"
