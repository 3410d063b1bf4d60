"""The report of `make test-full` is of the commit that it names."""

import subprocess
from pathlib import Path

import pytest

from tests.report import commit_of, last_line, report
from torch_utils.errors import UserError


def git(folder: Path, *words: str) -> str:
    """Run git in a folder, as somebody."""
    who = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    done = subprocess.run(
        ["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_only_a_commit_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no git repository"):
        commit_of(tmp_path)
    git(tmp_path, "init", "--quiet")
    (tmp_path / "a.py").write_text("1\n")
    with pytest.raises(UserError, match=r"\?\? a\.py"):
        commit_of(tmp_path)
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "a")
    assert commit_of(tmp_path) == git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "a.py").write_text("2\n")
    with pytest.raises(UserError, match=r"M a\.py"):
        commit_of(tmp_path)


def test_the_counts_are_those_that_the_programs_print() -> None:
    pattern = r"\d+ (passed|failed|error)"
    output = "1 passed so far\n==== 2 failed, 3,144 passed, 6 skipped in 9.00s ====\nbye\n"
    assert last_line(output, pattern) == "2 failed, 3,144 passed, 6 skipped in 9.00s"
    assert last_line("Killed\n", pattern) == "it ended without counting its results"
    text = report("abc", [("pytest", "3 passed")])
    assert "commit abc, " in text
    assert text.endswith("\npytest: 3 passed\n")
