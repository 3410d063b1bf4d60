"""States are written by a thread from a copy: what it holds, who waits for it, what is said."""

import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.runs import (
    CPU,
    SlowFolder,
    assert_equal_states,
    tiny_config,
    tiny_data,
    train_tiny,
)
from torch_utils.errors import Failure, UserError
from training.checksum import checksum
from training.loop import train
from training.state import load_state, newest_state, save_state, state_path
from training.writer import StateWriter, host_copy


def state_of(seen: int, value: float) -> dict[str, Any]:
    """A little state of every kind of value that states hold."""
    return {
        "trainer": {
            "seen": seen,
            "weights": {"a": torch.full((3, 4), value).mT, "b": torch.tensor(7)},
            "half": torch.full((2,), value, dtype=torch.bfloat16),
            "flags": torch.tensor([True, False]),
            "none": torch.empty(0),
            "moments": [{0: torch.full((2,), value)}],
        },
        "config": {"betas": (0.9, 0.999), "name": None, "on": True, "text": "\u00e9"},
        "seconds": 0.1,
    }


def test_a_state_is_that_of_the_moment_of_saving_whatever_becomes_of_the_weights(
    tmp_path: Path,
) -> None:
    slow, state = SlowFolder(tmp_path), state_of(16, 1.0)
    with StateWriter(slow, None, CPU.device) as writer:
        writer.begin(state)  # returns at once
        assert slow.asked.wait(60)
        state["trainer"]["weights"]["a"].fill_(2)
        state["trainer"]["moments"][0][0].zero_()
        state["trainer"]["seen"] = 17
        state["config"]["name"] = "changed"
        slow.answers.set()
        writer.wait()
        found = load_state(state_path(tmp_path, 16))
    assert found.pop("format") == 2
    assert_equal_states(found, state_of(16, 1.0))


def test_one_state_is_written_at_a_time_and_the_end_of_the_block_waits(tmp_path: Path) -> None:
    slow = SlowFolder(tmp_path)

    def save_two() -> None:
        with StateWriter(slow, None, CPU.device) as writer:
            writer.begin(state_of(1, 1.0))
            slow.asked.clear()
            writer.begin(state_of(2, 2.0))

    saving = threading.Thread(target=save_two)
    saving.start()
    saving.join(0.5)
    assert saving.is_alive()
    assert not list(tmp_path.iterdir())
    slow.answers.set()
    saving.join(60)
    assert not saving.is_alive()
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        f"training-state-{seen:010d}.pt" for seen in (1, 2)
    ]


def test_an_exception_waits_for_the_state_and_is_what_is_told(tmp_path: Path) -> None:
    slow = SlowFolder(tmp_path)

    def interrupted() -> None:
        with StateWriter(slow, None, CPU.device) as writer:
            writer.begin(state_of(1, 1.0))
            threading.Timer(0.3, slow.answers.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert load_state(state_path(tmp_path, 1))["seconds"] == 0.1


def test_what_could_not_be_written_is_known_and_raised_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with StateWriter(tmp_path / "file" / "folder", None, CPU.device) as writer:
        writer.begin(state_of(1, 1.0))
        with pytest.raises(OSError, match="Not a directory"):
            writer.wait()
        assert not writer.has_failed
    with pytest.raises(OSError, match="Not a directory"), writer:
        writer.begin(state_of(1, 1.0))


def test_a_run_ends_at_the_step_after_a_state_could_not_be_written(tmp_path: Path) -> None:
    """Not at the next state, which would be due a million steps later."""
    (tmp_path / "training-state-0000000016.pt").mkdir()
    config = tiny_config("run.duration=1000000it", "run.dump=1000000it", "preview=off")
    with pytest.raises(Failure, match=r"cannot write to .*: Is a directory; what was saved before"):
        train(config, tiny_data(), tmp_path, CPU)
    (log,) = (tmp_path / "stats.jsonl").read_text().splitlines()[:1]
    assert '"Progress/tick"' in log


def test_the_bytes_are_a_function_of_the_content(tmp_path: Path) -> None:
    files = []
    for name in ("first", "second"):
        with StateWriter(tmp_path / name, None, CPU.device) as writer:
            writer.begin(state_of(1, 1.0))
        files.append(state_path(tmp_path / name, 1).read_bytes())
    (tmp_path / "third").mkdir()
    files.append(save_state(tmp_path / "third", host_copy(state_of(1, 1.0)), None).read_bytes())
    assert files[0] == files[1] == files[2]


def test_every_part_of_a_state_counts_for_its_checksum() -> None:
    def changed(*path: Any, value: Any) -> str:
        state = state_of(1, 1.0)
        place = state
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        return checksum(state)

    sums = [
        checksum(state_of(1, 1.0)),
        checksum(state_of(1, 1.5)),
        changed("trainer", "seen", value=2),
        changed("trainer", "weights", "b", value=torch.tensor(7.0)),
        changed("trainer", "weights", "b", value=torch.tensor([7])),
        changed("trainer", "none", value=torch.empty(0, 1)),
        changed("trainer", "moments", value=[]),
        changed("config", "betas", value=[0.9, 0.999]),
        changed("config", "name", value="None"),
        changed("config", "other", value=1),
    ]
    assert len(set(sums)) == len(sums)
    assert sums[0] == checksum(state_of(1, 1.0))


def test_a_tree_that_never_ends_has_no_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ValueError, match="nested too deeply"):
        checksum(endless)
    assert checksum([0] * 2**17)
    monkeypatch.setattr("training.checksum.MAX_LEAVES", 2**17)  # of millions, which take long
    with pytest.raises(ValueError, match="more than 131,072 parts"):
        checksum([0] * 2**17)  # the list is a part, too
    wide: Any = "leaf"
    for _ in range(24):
        wide = [wide, wide]
    with pytest.raises(ValueError, match="parts"):
        checksum(wide)


def test_a_state_of_other_content_is_passed_over_although_its_zip_is_whole(tmp_path: Path) -> None:
    for seen in (1, 2):
        save_state(tmp_path, state_of(seen, 1.0), None)
    newest = state_path(tmp_path, 2)
    with zipfile.ZipFile(newest) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    (name,) = [name for name in members if name.endswith("/data/0")]
    members[name] = members[name][::-1]  # of another file, say
    with zipfile.ZipFile(newest, "w", zipfile.ZIP_STORED) as archive:
        for key, content in members.items():
            archive.writestr(key, content)
    path, state, problems = newest_state(tmp_path)
    assert path == state_path(tmp_path, 1)
    assert state is not None
    assert problems == [f"{newest} is damaged: its checksum is wrong"]


def test_states_of_the_first_format_have_no_checksum_and_still_load(tmp_path: Path) -> None:
    final = train_tiny(tmp_path / "whole", "run.duration=4it")
    half = train_tiny(tmp_path / "run", "run.duration=2it")
    path = state_path(tmp_path / "run", half["trainer"]["seen"])
    torch.save({**half, "format": 1}, path)
    assert load_state(path)["format"] == 1
    ours = train_tiny(tmp_path / "run", "run.duration=4it", resume=True)
    assert_equal_states(ours["trainer"], final["trainer"])
    for version in (0, 3, True, "2", torch.ones(2), None):
        torch.save({**half, "format": version}, path)
        with pytest.raises(UserError, match="not a training state of Driftless in format 2"):
            load_state(path)
