"""The bar moves within a batch, and never beyond what is done."""

import io
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from torch_utils.progress import ByteProgress, Progress, silenced


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


@pytest.mark.parametrize("total", [25_000_000, None], ids=["known", "unknown"])
def test_bytes_are_shown_in_millions(total: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    screen, file = Terminal(), io.StringIO()
    for stream in (screen, file):
        monkeypatch.setattr(sys, "stderr", stream)
        with ByteProgress(total, "weights", delay=0, interval=0) as bar:
            bar.update(5_000_000)
            bar.update(5_000_000)
    assert "10.0M" in screen.getvalue()
    assert "B/s" in screen.getvalue()
    expected = "weights: 10.0 of 25.0 MB, " if total else "weights: 10.0 MB, "
    assert file.getvalue().splitlines()[-1].startswith(expected)
    assert file.getvalue().endswith(" MB/s\n")


def test_a_silenced_block_shows_neither_a_bar_nor_lines_and_silences_no_other_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen, file = Terminal(), io.StringIO()
    for stream in (screen, file):
        monkeypatch.setattr(sys, "stderr", stream)
        with silenced(), Progress(2, "generating", delay=0, interval=0) as bar:
            bar.update(2)
        assert stream.getvalue() == ""
    with silenced():
        other = threading.Thread(target=lambda: Progress(2, "here", interval=0).update(1))
        other.start()
        other.join()
    with silenced(False), Progress(2, "again", interval=0) as bar:
        bar.update(1)
    assert file.getvalue().splitlines()[0].startswith("here: 1 of 2 images")
    assert file.getvalue().splitlines()[1].startswith("again: 1 of 2 images")


NOTEBOOK = """
import io, sys, types

class Widget:
    def __init__(self, **values):
        self.layout, self.style = types.SimpleNamespace(), types.SimpleNamespace()
        self.__dict__.update({"bar_style": ""} | values)
        made.append(self)
    def close(self):
        pass

def module(name, **contents):
    found = sys.modules[name] = types.ModuleType(name)
    found.__dict__.update(contents)

made = []
kernel = types.SimpleNamespace(config={"IPKernelApp": {}})
module("ipykernel.zmqshell")
module("IPython", get_ipython=lambda: kernel)
module("IPython.display", display=lambda *shown: None)
module("ipywidgets", HTML=Widget, FloatProgress=Widget, HBox=Widget)

from torch_utils.progress import Progress, silenced
sys.stderr = io.StringIO()
with silenced(), Progress(4, "nothing", delay=0) as bar:
    bar.update(4)
assert not made
with Progress(4, "generating", delay=0, interval=0) as bar:
    bar.update(4)
assert [widget.value for widget in made if hasattr(widget, "max")] == [4]
assert sys.stderr.getvalue() == ""
"""


def test_a_notebook_gets_a_widget_and_no_lines() -> None:
    """Of the notebook there are the parts that tqdm asks for: the kernel and three widgets."""
    subprocess.run([sys.executable, "-c", NOTEBOOK], check=True, cwd=Path(__file__).parents[2])
