"""The bar moves within a batch, and never beyond what is done."""

import io
import sys

import pytest

from torch_utils.progress import Progress


class Terminal(io.StringIO):
    """Standard error as it is on a terminal."""

    def isatty(self) -> bool:
        return True


def test_shares_of_a_batch_are_shown_and_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with Progress(8, "generating", delay=0) as bar:
        bar._bar.mininterval = 0
        for share in (0.0, 0.5, 0.75):
            bar.within(4, share)
        bar.update(4)
        bar.within(4, 0.25)
        bar.update(4)
    parts = [part for part in screen.getvalue().split("\r") if "/8" in part]
    found = [int(part.split("/8")[0].split()[-1]) for part in parts]
    assert sorted(found) == found
    assert {0, 2, 4, 8} <= set(found) <= {0, 2, 3, 4, 5, 8}
