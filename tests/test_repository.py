"""The files around the code: dependencies in step, help texts as checked in, size of scripts."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
COMMANDS = {
    "train": ["train.py"],
    "generate": ["generate.py"],
    "dataset_tool": ["dataset_tool.py"],
    "dataset_tool-convert": ["dataset_tool.py", "convert"],
    "dataset_tool-stats": ["dataset_tool.py", "stats"],
    "dataset_tool-cache": ["dataset_tool.py", "cache"],
    "dataset_tool-check": ["dataset_tool.py", "check"],
    "snapshot_tool": ["snapshot_tool.py"],
    "snapshot_tool-info": ["snapshot_tool.py", "info"],
    "fid": ["fid.py"],
    "fid-calc": ["fid.py", "calc"],
    "fid-ref": ["fid.py", "ref"],
}


def test_environment_yml_lists_what_pyproject_lists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        wanted += extra
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["dependencies"][-1]["pip"] == wanted
    assert f"python{project['requires-python']}" in environment["dependencies"]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_the_text_checked_in_and_needs_no_torch(name: str) -> None:
    script, *words = COMMANDS[name]
    code = (
        "import sys, runpy; sys.argv = sys.argv[1:]\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally:\n    assert 'torch' not in sys.modules, 'help imported torch'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / script), *words, "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "100", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    expected = ROOT / "docs" / "help" / f"{name}.txt"
    assert done.stdout == expected.read_text(encoding="utf-8"), (
        f"the help of {script} changed: write it to {expected.relative_to(ROOT)}"
    )


def test_scripts_stay_short() -> None:
    for script in ("train.py", "generate.py", "fid.py", "dataset_tool.py"):
        assert len((ROOT / script).read_text(encoding="utf-8").splitlines()) <= 225, script
