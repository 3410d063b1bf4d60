"""Hostile files are refused in one line that names what they ask for, and nothing runs."""

import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from importers.edm import is_edm, read_edm
from tests.command import assert_refused, call, run
from tests.importers.edm_files import CANARY, pickled, write
from tests.importers.malicious import PICKLES, RAN, STATES, protocols, sound
from torch_utils.errors import UserError

CASES = {
    **{f"pickle-{name}": ("a.pkl", *case) for name, case in PICKLES.items()},
    **{f"state-{name}": ("training-state-000001.pt", *case) for name, case in STATES.items()},
}


@pytest.fixture(autouse=True)
def _nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    yield
    assert not Path(RAN).exists()
    assert not Path(CANARY).exists()


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_file_is_refused_and_named(name: str, tmp_path: Path) -> None:
    file, content, words = CASES[name]
    path = write(tmp_path / file, content())
    with pytest.raises(UserError) as caught:
        read_edm(path, weights="raw" if file.endswith(".pt") else "ema")
    message = str(caught.value)
    assert words in message
    assert len(message) < 400
    assert message.startswith(str(path))


@pytest.mark.parametrize("name", CASES)
def test_the_door_refuses_a_hostile_file_with_exit_code_2(name: str, tmp_path: Path) -> None:
    file, content, words = CASES[name]
    path = write(tmp_path / file, content())
    weights = ["--weights=raw"] if file.endswith(".pt") else []
    done = call("generate.py", f"--network={path}", "--outdir=out", *weights)
    assert_refused(done, words if content() else "a.pkl")
    assert not Path("out").exists()


def test_a_call_in_every_protocol_is_refused(tmp_path: Path) -> None:
    for content in protocols():
        path = write(tmp_path / "a.pkl", content)
        assert is_edm(path)
        with pytest.raises(UserError, match=r"'(posix|nt)\.system'"):
            read_edm(path)


def test_no_hostile_file_takes_much_memory(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("from tests.importers.test_malicious import read_all\nread_all('512')\n")
    done = run(str(program))
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) == len(CASES)


def read_all(mebibytes: str) -> None:
    """Read every hostile file with so much memory beyond what is mapped at the start."""
    contents = [(file, content()) for file, content, _ in CASES.values()]
    with tempfile.TemporaryDirectory() as folder:
        read_edm(write(Path(folder, "sound.pkl"), pickled(sound()[1])))  # loads what is large
        if sys.platform == "linux":
            import resource

            from tests.limited import mapped

            limit = mapped() + int(mebibytes) * 2**20
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        refused = 0
        for file, content in contents:
            try:
                read_edm(write(Path(folder, file), content), weights="raw")
            except UserError:
                refused += 1
    print(refused)
