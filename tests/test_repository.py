"""The files around the code: dependencies in step, help texts as checked in, size of scripts."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.manual import help_page, helps
from tests.test_layering import ALLOWED

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


# a page or module by its path, from the root, from tests/ or from the folder of what names it
REFERENCE = re.compile(r"(?<![\w./*<-])[\w-]+(?:/[\w.-]+)+\.(?:md|py)\b")
TEXTS = [
    *ROOT.glob("*.md"),
    *ROOT.glob("*.py"),
    *(path for name in ALLOWED for path in (ROOT / name).rglob("*.py")),
    *(path for name in ("docs", "tests") for path in (ROOT / name).rglob("*.md")),
    *(ROOT / "tests").rglob("*.py"),
]


def missing_references(text: str, folder: Path) -> list[str]:
    """Pages and modules that a text names by their path and that do not exist."""
    places = (ROOT, ROOT / "tests", folder)
    found = REFERENCE.findall(text)
    return [path for path in found if not any((place / path).exists() for place in places)]


def test_what_is_cited_is_in_the_repository() -> None:
    invented = "".join(["see spec", "/family.md and tests", "/conftest.py"])
    assert missing_references(invented, ROOT) == ["/".join(["spec", "family.md"])]
    for page in TEXTS:
        missing = missing_references(page.read_text(encoding="utf-8"), page.parent)
        assert not missing, f"{page.relative_to(ROOT)} cites {missing}"


# constructions that a reader has to read twice
RIDDLES = (
    "that is " + "none",
    "which is " + "none",
    "Nothing can be " + "seen of",
    "it is cut " + "what",
)


def test_no_sentence_is_a_riddle() -> None:
    pages = [*TEXTS, *(ROOT / "docs").rglob("*.txt"), *(ROOT / "configs").glob("*.yaml")]
    for page in pages:
        text = " ".join(page.read_text(encoding="utf-8").split())
        found = [words for words in RIDDLES if words in text and page != Path(__file__)]
        assert not found, f"{page.relative_to(ROOT)} says {found}"
