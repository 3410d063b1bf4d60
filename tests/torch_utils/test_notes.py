"""Lines on stderr: which of several processes prints what."""

from collections.abc import Callable

import pytest

from torch_utils import notes
from torch_utils.notes import say, say_here, warn, warn_here


@pytest.fixture
def printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """What a process prints by a function that is called twice with "text"."""

    def by(function: Callable[[str], None], **variables: str) -> str:
        monkeypatch.setattr(notes, "_said", set())
        for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        function("text"), function("text")
        return capsys.readouterr().err

    return by


FIRST = {"WORLD_SIZE": "16", "RANK": "8", "LOCAL_RANK": "0"}
THIRD = {"WORLD_SIZE": "16", "RANK": "11", "LOCAL_RANK": "3"}


def test_what_all_processes_see_is_printed_by_the_first_of_a_machine(
    printed: Callable[..., str],
) -> None:
    assert printed(say) == printed(say, **FIRST) == "text\ntext\n"
    assert printed(warn) == printed(warn, **FIRST) == "warning: text\n"
    assert printed(say, **THIRD) == printed(warn, **THIRD) == ""


def test_what_a_process_finds_out_by_itself_is_printed_by_it_with_its_rank(
    printed: Callable[..., str],
) -> None:
    assert printed(say_here) == "text\ntext\n"
    assert printed(warn_here) == printed(warn_here, WORLD_SIZE="1") == "warning: text\n"
    assert printed(warn_here, **FIRST) == "warning: process 8: text\n"
    assert printed(warn_here, **THIRD) == "warning: process 11: text\n"
    assert printed(say_here, **THIRD) == "process 11: text\n" * 2
