"""Commands in the README and the manual are parsed by the programs that they call."""

import importlib
import re
import shlex
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SCRIPTS = ("train", "generate", "fid", "dataset_tool", "snapshot_tool")


def commands(page: Path) -> list[list[str]]:
    """Words of every command line in code blocks that calls one of our scripts."""
    found = []
    for block in re.findall(r"```[a-z]*\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
        for line in block.replace("\\\n", " ").splitlines():
            if re.match(r"\s*(python|torchrun) .*\b\w+\.py\b", line):
                found.append(shlex.split(line, comments=True))
    return found


CASES = [(page.name, words) for page in PAGES for words in commands(page)]


@pytest.mark.parametrize(("page", "words"), CASES, ids=lambda x: x if isinstance(x, str) else None)
def test_a_command_in_the_docs_is_understood(page: str, words: list[str]) -> None:
    (position,) = [i for i, word in enumerate(words) if word.endswith(".py")]
    script, arguments = Path(words[position]).stem, words[position + 1 :]
    if script not in SCRIPTS:
        assert (ROOT / words[position]).exists(), f"{page}: {words[position]}"
        return
    command: click.Command = importlib.import_module(script).main
    context = command.make_context(script, list(arguments))
    if isinstance(command, click.Group):
        name, inner, rest = command.resolve_command(context, list(arguments))
        assert inner is not None, name
        inner.make_context(str(name), rest, parent=context)


def test_there_are_commands_to_check() -> None:
    assert len(CASES) >= 7


def test_links_in_the_docs_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
