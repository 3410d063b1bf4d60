"""A run from Python, in whatever thread, and beside other processes that want the same folder."""

import shutil
import signal
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from tests.command import start
from tests.training.runs import OVERRIDES, RECIPE, tiny_config, tiny_wish, train_tiny
from torch_utils.errors import UserError
from training.choice import old_run
from training.launch import Result, Start, run
from training.recipes import dump_config
from training.run_dir import CONFIG_FILE, locked
from training.state import state_path
from training.wanted import wanted_config

# holds a run as a process does that trains there; once told to, it saves a last state and ends
HOLDER = """
import sys, time
from pathlib import Path
from training.run_dir import locked

last, state, told = map(Path, sys.argv[1:])
with locked(state.parent):
    print("held", flush=True)
    while not told.exists():
        time.sleep(0.01)
    last.rename(state)
"""


def test_a_state_is_chosen_only_when_no_other_process_can_still_write_one(tmp_path: Path) -> None:
    folder, last = tmp_path / "run", tmp_path / "last.pt"
    train_tiny(folder, "run.duration=6it")
    (folder / CONFIG_FILE).write_text(dump_config(tiny_config()))
    state_path(folder, 96).rename(last)
    wanted, done = tiny_wish(), tiny_wish("run.duration=5it")
    script, told = tmp_path / "holder.py", tmp_path / "told"
    script.write_text(HOLDER)
    holder = start(str(script), last, state_path(folder, 96), told)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    for resume in (str(folder), "latest"):
        with ExitStack() as lock, pytest.raises(UserError, match="another process is training"):
            old_run(wanted, resume, str(folder), lock=lock)
        chosen, _ = old_run(wanted, resume, str(folder))  # only a look
        assert chosen is not None
        assert chosen.seen == 80
    with ExitStack() as lock:  # nothing is written to a complete run: whoever holds it is welcome
        chosen, _ = old_run(done, str(folder), lock=lock)
        assert chosen is not None
        assert chosen.is_complete
    told.touch()
    output, _ = holder.communicate(timeout=60)
    assert holder.returncode == 0, output
    with ExitStack() as lock:
        chosen, _ = old_run(wanted, str(folder), lock=lock)
        assert chosen is not None
        assert chosen.seen == 96
        with pytest.raises(UserError, match="another process is training"), locked(folder):
            pass
    with locked(folder):
        pass  # free again


def test_a_run_that_is_passed_over_is_not_held(tmp_path: Path) -> None:
    """Only one that can go on with the config is."""
    train_tiny(tmp_path / "00000-a", "run.duration=2it")
    shutil.copytree(tmp_path / "00000-a", tmp_path / "00001-b")
    for folder, width in (("00000-a", 32), ("00001-b", 16)):
        config = dump_config(tiny_config(f"network.model_channels={width}", "run.seed=3"))
        (tmp_path / folder / CONFIG_FILE).write_text(config)
    wider = tiny_wish("network.model_channels=32", allow_config_change=True)
    with ExitStack() as lock:
        chosen, lines = old_run(wider, "latest", str(tmp_path), lock=lock)
        assert chosen is None
        assert "no run in" in lines[0]
        for folder in tmp_path.iterdir():
            with locked(folder):
                pass


def test_a_run_in_a_thread_is_silent_and_leaves_everything_as_it_was(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(5)
    generator, handler = torch.get_rng_state(), signal.getsignal(signal.SIGINT)
    flags = torch.backends.cudnn.benchmark, torch.backends.cuda.matmul.allow_tf32
    results: list[Result] = []
    lines: list[str] = []

    def train(duration: str, resume: str | None = None) -> None:
        wanted = wanted_config(RECIPE, [*OVERRIDES, f"run.duration={duration}"])
        start = Start(outdir=str(tmp_path), recipe=str(RECIPE), resume=resume)
        results.append(run(wanted, start, say=lines.append, heeds_signals=True))

    for given in (("2it",), ("4it", "latest"), ("4it", "latest")):
        thread = threading.Thread(target=train, args=given)
        thread.start()
        thread.join()
    first, second, third = results
    assert first.folder == second.folder == third.folder
    assert first.is_complete
    assert third.is_complete
    assert first.config.run.duration == 32
    assert first.snapshot.name == "network-snapshot-0000000064.safetensors"
    assert any("from 32 images" in line for line in lines)
    assert lines[-1] == f"already done: 64 images; {first.folder}"
    log = (first.folder / "log.txt").read_text().splitlines()
    assert log == lines[:-1]
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.get_rng_state(), generator)
    assert signal.getsignal(signal.SIGINT) is handler
    assert (torch.backends.cudnn.benchmark, torch.backends.cuda.matmul.allow_tf32) == flags
    assert torch.get_default_dtype() == torch.float32


def test_a_start_that_says_two_things_is_refused() -> None:
    with pytest.raises(UserError, match="exclude each other"):
        Start(resume="runs/00000-a", transfer="x")
    with pytest.raises(UserError, match="--outdir"):
        Start(resume="latest")
