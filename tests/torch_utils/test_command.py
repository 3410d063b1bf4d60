"""Commands called from Python return and raise; called as programs they end the process."""

import errno
import importlib

import click
import pytest

from torch_utils import leaving
from torch_utils.command import Command, Group
from torch_utils.errors import Failure, UserError


@click.group(cls=Group)
def program() -> None:
    """Several ways to end."""


@program.command(cls=Command, needs_less="ask for less")
@click.option("--num", type=int, required=True, metavar="INT", help="A number.")
def work(num: int) -> int:
    """Return the double of a number, or fail in the way that it stands for."""
    problems: dict[int, Exception] = {
        2: UserError("two is too many"),
        3: Failure("no disk"),
        4: OSError(errno.ENOSPC, "No space left on device", "a\x1bb"),
        5: KeyboardInterrupt(),  # type: ignore[dict-item]
        6: MemoryError(),
        7: KeyError("a defect"),
    }
    if num in problems:
        raise problems[num]
    return 2 * num


@pytest.fixture(params=[False, True], ids=["alone", "after a group"])
def ends_anyhow(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process has joined a process group or not: a call from Python never ends it."""
    monkeypatch.setattr(leaving, "has_joined_group", request.param)


@pytest.mark.usefixtures("ends_anyhow")
def test_a_call_from_python_returns_what_the_command_returns() -> None:
    assert program.main(["work", "--num=21"], standalone_mode=False) == 42
    assert program.main(["work", "--help"], standalone_mode=False) == 0


@pytest.mark.usefixtures("ends_anyhow")
@pytest.mark.parametrize(
    ("words", "kind", "message"),
    [
        ("work --num=2", UserError, "two is too many"),
        ("work --num=3", Failure, "no disk"),
        ("work --num=4", Failure, r"cannot write a\\x1bb: No space left on device; make room"),
        ("work --num=5", KeyboardInterrupt, ""),
        ("work --num=6", Failure, "ask for less"),
        ("work --num=7", KeyError, "a defect"),
        ("work --num=x", UserError, "'x' is not a valid integer"),
        ("work --nun=1", UserError, "unknown option --nun: did you mean --num?"),
        ("work", UserError, "missing option --num=INT: a number"),
        ("wrok", UserError, "unknown command 'wrok': did you mean 'work'?"),
    ],
)
def test_a_call_from_python_raises_what_went_wrong(
    words: str, kind: type[BaseException], message: str
) -> None:
    with pytest.raises(kind, match=message.replace("?", r"\?") or None):
        program.main(words.split(), standalone_mode=False)


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        ("work --num=21", 42, ""),
        ("work --help", 0, ""),
        ("work --num=2", 2, "error: two is too many\n"),
        ("work --num=3", 1, "error: no disk\n"),
        ("work --num=4", 1, "error: cannot write a\\x1bb: No space left on device; make room\n"),
        ("work --num=5", 130, "stopped\n"),
        ("work", 2, "error: missing option --num=INT: a number\n"),
    ],
)
def test_a_program_ends_with_a_code_and_one_line(
    words: str, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        program.main(words.split())
    assert ended.value.code == code
    assert capsys.readouterr().err.lstrip("\n") == line


def test_a_defect_keeps_its_traceback() -> None:
    with pytest.raises(KeyError):
        program.main(["work", "--num=7"])


@pytest.mark.parametrize("script", ["train", "generate", "fid", "dataset_tool", "snapshot_tool"])
def test_every_script_can_be_called_from_python(script: str) -> None:
    main = importlib.import_module(script).main
    with pytest.raises(UserError, match="unknown option --no-such-thing"):
        main(["--no-such-thing"], standalone_mode=False)
