"""Which processes belong together, as launchers and job systems tell it."""

import pytest

from torch_utils.distributed import world
from torch_utils.errors import UserError

NAMES = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def set_only(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("variables", [{}, {"WORLD_SIZE": "1"}, {"RANK": "0"}])
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
        ({"WORLD_SIZE": "all"}, "WORLD_SIZE is 'all', which is no number"),
        ({"LOCAL_RANK": ""}, "LOCAL_RANK is '', which is no number"),
    ],
)
def test_half_a_launch_is_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    set_only(monkeypatch, **variables)
    with pytest.raises(UserError) as caught, world("cpu"):
        pass
    assert message in str(caught.value)
