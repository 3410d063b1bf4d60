"""The files around the code: dependencies in step, help texts as checked in, size of scripts."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.manual import help_page, helps

ROOT = Path(__file__).parents[1]
COMMANDS = [words for words, _ in helps()]


def test_environment_yml_lists_what_pyproject_lists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        wanted += extra
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["dependencies"][-1]["pip"] == wanted
    assert f"python{project['requires-python']}" in environment["dependencies"]


@pytest.mark.parametrize("words", COMMANDS, ids="-".join)
def test_help_is_the_text_checked_in_and_needs_no_torch(words: list[str]) -> None:
    code = (
        "import sys, runpy; sys.argv = sys.argv[1:]\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally:\n    assert 'torch' not in sys.modules, 'help imported torch'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / words[0]), *words[1:], "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "100", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    page = help_page(words)
    assert page.exists(), f"run make docs-tables: {page.name} is not there"
    assert done.stdout == page.read_text(encoding="utf-8"), "run make docs-tables: help changed"


def test_there_is_no_help_of_a_command_that_is_gone() -> None:
    assert sorted((ROOT / "docs" / "help").iterdir()) == sorted(map(help_page, COMMANDS))


def test_scripts_stay_short() -> None:
    for script in ("train.py", "generate.py", "fid.py", "dataset_tool.py"):
        assert len((ROOT / script).read_text(encoding="utf-8").splitlines()) <= 225, script
