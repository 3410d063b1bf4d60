"""`make test-full`: every test and every mutant, and the report of it, written by the run itself.

`python -m tests.report` refuses to start from files that differ from the last commit, because the
report in benchmarks/results/ names the commit that it is of.
"""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from torch_utils.errors import UserError

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "benchmarks" / "results" / "test-full.txt"
PYTEST = ("-m", "pytest", "-n", "2", "--dist", "loadfile", "-m", "")
MUTANTS = ("-m", "tests.mutants")
PACKAGES = ("torch", "numpy", "scipy", "pytest", "hypothesis")


def commit_of(root: Path) -> str:
    """The commit that the files of a working tree are.

    Raises:
        UserError: they are not a commit: some are changed or new; or it is no git repository.
    """
    changed = _git(root, "status", "--porcelain")
    if changed:
        first = changed.splitlines()[0].strip()
        raise UserError(f"the tree has changes that are in no commit ({first}, ...): commit them")
    return _git(root, "rev-parse", "HEAD")


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{root} is no git repository with a commit: {done.stderr.strip()}")
    return done.stdout.strip()


def last_line(output: str, pattern: str) -> str:
    """The last line of a program's output that counts results."""
    found = [line.strip("= ") for line in output.splitlines() if re.search(pattern, line)]
    return found[-1] if found else "it ended without counting its results"


def machine() -> str:
    """The processor, with the number of cores that this process may use."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = re.findall(r"model name\s*: (.+)", info.read_text(encoding="utf-8"))
        name = models[0] if models else name
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores"


def report(commit: str, counts: Sequence[tuple[str, str]]) -> str:
    """The text of the report.

    Args:
        commit: what was tested.
        counts: each command and the line in which it counts its results.
    """
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    lines = [
        "`make test-full`: all tests, the slow ones included, and all mutants.",
        f"commit {commit}, {datetime.now(UTC):%Y-%m-%d}",
        f"Python {platform.python_version()}, {versions}",
        machine(),
        "",
        *(f"{command}: {count}" for command, count in counts),
    ]
    return "\n".join(lines) + "\n"


def _run(words: Sequence[str]) -> tuple[int, str]:
    """Run a module of Python; its output is shown, and returned."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    return process.returncode, "".join(lines)


def main() -> int:
    """Run everything and write the report; the exit code says whether all of it passed."""
    try:
        commit = commit_of(ROOT)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    counts, codes = [], []
    for words, pattern in ((PYTEST, r"\d+ (passed|failed|error)"), (MUTANTS, r"mutants killed")):
        code, output = _run(words)
        counts.append((" ".join(words[1:2]), last_line(output, pattern)))
        codes.append(code)
    if _git(ROOT, "rev-parse", "HEAD") != commit or _git(ROOT, "status", "--porcelain"):
        print("error: the tree was changed meanwhile: no report is written", file=sys.stderr)
        return 2
    REPORT.write_text(report(commit, counts), encoding="utf-8")
    print(f"wrote {REPORT.relative_to(ROOT)}")
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
