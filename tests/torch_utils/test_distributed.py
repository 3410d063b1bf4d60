"""Processes wait for each other as long as it takes, and notice when one is gone."""

import socket
from pathlib import Path

import pytest
import torch

from tests.command import start
from torch_utils.distributed import World, world
from torch_utils.errors import UserError

BEGINNING = """
import sys, time
from datetime import timedelta
from torch_utils import distributed
distributed.COLLECTIVE_LIMIT = timedelta(seconds=2)
from torch_utils.command import Command
import click

@click.command(cls=Command)
def main():
    with distributed.world("cpu") as here:
"""
ENDING = "\nmain()\n"
NAMES = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def ended(folder: Path, body: str, num: int = 2) -> list[tuple[int, str]]:
    """Run some lines with `here` in processes of one group, started without a launcher.

    Returns:
        (exit code, output) of each.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lines = "".join(f"        {line}\n" for line in body.strip().splitlines())
    script = folder / "processes.py"
    script.write_text(BEGINNING + lines + ENDING)
    started = [
        start(
            str(script),
            **{"RANK": str(rank), "WORLD_SIZE": str(num), "LOCAL_RANK": str(rank)},
            **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
        )
        for rank in range(num)
    ]
    texts = [process.communicate(timeout=120)[0] for process in started]
    return [(process.wait(), text) for process, text in zip(started, texts, strict=True)]


def test_a_meeting_outlasts_the_limit_of_collectives_and_says_the_same_to_all(
    tmp_path: Path,
) -> None:
    body = """
if here.rank == 1:
    time.sleep(3)
    here.board.post("late")
here.meet()
assert here.board.has("late") and not here.board.has("early")
assert here.any(here.is_main, False, True) == [True, False, True]
print("met", flush=True)
"""
    for code, output in ended(tmp_path, body):
        assert (code, output) == (0, "met\n")


def test_who_waits_for_a_process_that_failed_fails_too(tmp_path: Path) -> None:
    body = """
if here.rank == 1:
    raise distributed.Failure("no disk")
here.meet()
"""
    (first, errors), (second, cause) = ended(tmp_path, body)
    assert (first, second) == (1, 1)
    assert errors == "error: another process of this run has failed\n"
    assert cause == "error: no disk\n"


def set_only(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    "variables", [{}, {"WORLD_SIZE": "1"}, {"RANK": "0"}, {"MASTER_PORT": "tcp://here:1"}]
)
def test_a_process_that_no_launcher_started_is_a_world_of_one(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    set_only(monkeypatch, **variables)
    with world("cpu") as here:
        assert (here.rank, here.size, here.is_group) == (0, 1, False)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "4"}, "WORLD_SIZE is 4, but there is no RANK, MASTER_ADDR, MASTER_PORT: "),
        ({"WORLD_SIZE": "2", "RANK": "1"}, "there is no MASTER_ADDR, MASTER_PORT: "),
        ({"WORLD_SIZE": "all"}, "WORLD_SIZE is 'all', which is not a number"),
        ({"LOCAL_RANK": ""}, "LOCAL_RANK is '', which is not a number"),
        (
            {"WORLD_SIZE": "1", "RANK": "0", "MASTER_ADDR": "here", "MASTER_PORT": "tcp://here:1"},
            "MASTER_PORT is 'tcp://here:1', which is not a number",
        ),
    ],
)
def test_half_a_launch_is_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    set_only(monkeypatch, **variables)
    with pytest.raises(UserError) as caught, world("cpu"):
        pass
    assert message in str(caught.value)


def test_a_world_of_one_meets_itself() -> None:
    alone = World(0, 1, torch.device("cpu"))
    alone.meet()
    assert alone.any(True, False) == [True, False]
    assert not alone.is_orphan
