"""`import driftless`: loads, samples and trains, and leaves the process as it was."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run some lines in another folder, from where Driftless can be imported."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, env=environment
    )


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1, done.stdout
    return done.stderr.splitlines()[-1]


def test_the_import_is_light() -> None:
    done = python("import driftless, sys; assert 'torch' not in sys.modules", ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["data/__init__.py", "models.py"])
def test_a_foreign_package_of_a_name_of_ours_is_named(name: str, tmp_path: Path) -> None:
    foreign = tmp_path / name
    foreign.parent.mkdir(exist_ok=True)
    foreign.touch()
    package = name.split("/")[0].removesuffix(".py")
    line = last_line(python("import driftless", tmp_path))
    assert line == (
        f"ImportError: {foreign} hides the package {package} of Driftless, in {ROOT}: "
        "rename it, or start Python in another folder"
    )


def test_a_foreign_package_that_was_imported_before_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "__init__.py").touch()
    code = "import sys, metrics; sys.path.pop(0); import driftless"
    line = last_line(python(code, tmp_path))
    assert f"{tmp_path}/metrics/__init__.py hides the package metrics of Driftless" in line
    assert "in a process that does not import it" in line
    code = "import sys; sys.modules['losses'] = type(sys)('losses'); import driftless"
    assert "a module losses without a file hides" in last_line(python(code, tmp_path / "metrics"))


def test_a_folder_of_data_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "models").mkdir()
    done = python("import driftless, data.cache, models.build", tmp_path)
    assert done.returncode == 0, done.stderr
