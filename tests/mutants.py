"""Mutants: changes of one line, each of which must make a named test fail.

`python -m tests.mutants` works on a copy of the source in a temporary folder, never on the working
tree. A mutant that survives shows a hole in the tests. Those of the mathematics are listed in
tests/mutations.py, those of other parts in the files beside it that end so, and those that only a
GPU would show in tests/pretend/mutations.py.
"""

import argparse
import importlib
import importlib.util
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.averaging_mutations import AVERAGING_MUTANTS
from tests.call_mutations import CALL_MUTANTS
from tests.compiling_mutations import COMPILING_MUTANTS
from tests.cost_mutations import COST_MUTANTS
from tests.download_mutations import DOWNLOAD_MUTANTS
from tests.editing_mutations import EDITING_MUTANTS
from tests.fusing_mutations import FUSING_MUTANTS
from tests.mutations import MUTANTS as MATHEMATICS
from tests.mutations import Mutant
from tests.output_mutations import OUTPUT_MUTANTS
from tests.pretend.mutations import DEVICE_MUTANTS

ROOT = Path(__file__).parents[1]
MUTANTS = [
    *MATHEMATICS,
    *AVERAGING_MUTANTS,
    *CALL_MUTANTS,
    *COST_MUTANTS,
    *COMPILING_MUTANTS,
    *FUSING_MUTANTS,
    *DOWNLOAD_MUTANTS,
    *OUTPUT_MUTANTS,
    *EDITING_MUTANTS,
    *DEVICE_MUTANTS,
]
TIME_LIMIT = 300.0  # seconds for one run of pytest

# what takes long to import and is not ours: imported once, before the children are forked
_PRELOADED = ("hypothesis", "numpy", "pytest", "scipy.interpolate", "torch._dynamo")
_OPTIONS = ("-x", "-p", "no:cacheprovider", "--hypothesis-seed=0", "--tb=no", "-rfEs")


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant.

    Attributes:
        status: killed, SURVIVED, skipped, "does not apply" or "does not run".
        detail: the test that failed, or why it was skipped, or what went wrong.
    """

    mutant: Mutant
    status: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.status}: {self.mutant}" + (f" | {self.detail}" if self.detail else "")


def run(mutants: Sequence[Mutant]) -> Iterator[Verdict]:
    """Judge mutants one after the other, in one copy of the source.

    Raises:
        SystemExit: the copy does not pass the tests before it is changed.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    methods = multiprocessing.get_all_start_methods()
    multiprocessing.set_start_method("fork" if "fork" in methods else "spawn", force=True)
    for name in _PRELOADED:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory(prefix="driftless-mutants-") as folder:
        root = Path(folder).resolve()
        _copy(root)
        code, report = _pytest(root, sorted({test for mutant in mutants for test in mutant.tests}))
        if code != 0:
            raise SystemExit(f"without any mutation the tests do not pass:\n{report}")
        for mutant in mutants:
            yield _judged(root, mutant)


def _copy(root: Path) -> None:
    """Copy every folder with Python files or recipes, and what lies beside them."""
    for path in ROOT.iterdir():
        if path.is_dir() and (any(path.glob("*.py")) or any(path.glob("*.yaml"))):
            shutil.copytree(path, root / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif path.suffix in (".py", ".toml"):
            shutil.copy(path, root)


def _judged(root: Path, mutant: Mutant) -> Verdict:
    path = root / mutant.file
    source = path.read_text(encoding="utf-8")
    changed = mutant.applied(source)
    if changed is None:
        count = source.count(mutant.original)
        return Verdict(mutant, "does not apply", f"the text occurs {count} times")
    path.write_text(changed, encoding="utf-8")
    try:
        code, report = _pytest(root, mutant.tests)
    finally:
        path.write_text(source, encoding="utf-8")
    lines = report.splitlines()
    failed = [line.removeprefix("FAILED ") for line in lines if line.startswith("FAILED ")]
    if code == 1 and failed:  # not 2: a file that cannot be imported says nothing of its tests
        return Verdict(mutant, "killed", failed[0].split(" - ")[0])
    skipped = [line.removeprefix("SKIPPED ") for line in lines if line.startswith("SKIPPED ")]
    if code == 0 and skipped and " passed" not in lines[-1]:
        return Verdict(mutant, "skipped", skipped[0])  # what they need is not here
    if code == 0:
        return Verdict(mutant, "SURVIVED")
    return Verdict(mutant, "does not run", f"exit code {code}: {' '.join(lines[-2:])}")


def _pytest(root: Path, tests: Sequence[str]) -> tuple[int | None, str]:
    """Exit code and output of pytest in the copy; None if it took too long."""
    log = root / "pytest.log"
    child = multiprocessing.Process(target=_in_copy, args=(root, log, [*_OPTIONS, *tests]))
    child.start()
    child.join(TIME_LIMIT)
    if child.is_alive():
        child.kill()
        child.join()
        return None, f"no end after {TIME_LIMIT:g} seconds"
    return child.exitcode, log.read_text(encoding="utf-8", errors="replace")


def _in_copy(root: Path, log: Path, arguments: list[str]) -> None:
    """Run pytest as a new process in the copy would; ends the process."""
    import pytest

    os.chdir(root)
    sys.path.insert(0, str(root))
    os.environ["PYTHONPATH"] = str(root)
    os.environ["COLUMNS"] = "1000"  # names of tests in one piece
    sys.dont_write_bytecode = True  # a change within a second would not make it stale
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]
    spec = importlib.util.find_spec("diffusion")
    assert spec is not None
    assert spec.origin == str(root / "diffusion" / "__init__.py"), spec.origin
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.exit(int(pytest.main(arguments)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge all mutants or some; the exit code is 0 if all that can be judged here are killed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", default="", help="mutants whose line in --list has these words")
    parser.add_argument("--list", action="store_true", help="print them and do nothing")
    options = parser.parse_args(arguments)
    chosen = [mutant for mutant in MUTANTS if options.only in str(mutant)]
    if not chosen:
        parser.error(f"no mutant has {options.only!r}")
    if options.list:
        print(*chosen, sep="\n")
        return 0
    counts: Counter[str] = Counter()
    for verdict in run(chosen):
        print(verdict, flush=True)
        counts[verdict.status] += 1
    num_judged = len(chosen) - counts["skipped"]
    rest = f", {counts['skipped']} skipped" if counts["skipped"] else ""
    print(f"{counts['killed']} of {num_judged} mutants killed{rest}")
    return 0 if counts["killed"] == num_judged else 1


if __name__ == "__main__":
    sys.exit(main())
