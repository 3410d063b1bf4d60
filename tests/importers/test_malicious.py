"""Hostile files are refused in one line that names what they ask for, and nothing runs."""

from pathlib import Path
from typing import Any

import pytest

from importers.edm import is_edm, read_edm
from tests.importers.edm_files import CANARY, write
from tests.importers.malicious import PICKLES, RAN, STATES, protocols
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


def test_a_call_in_every_protocol_is_refused(tmp_path: Path) -> None:
    for content in protocols():
        path = write(tmp_path / "a.pkl", content)
        assert is_edm(path)
        with pytest.raises(UserError, match=r"'(posix|nt)\.system'"):
            read_edm(path)
