"""Commands called from Python return and raise; called as programs they end the process."""

import errno
import importlib

import click
import pytest

from torch_utils import leaving
from torch_utils.command import Command, Group, UrlOrPath
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


@program.command(cls=Command)
@click.option("--ref", "-r", type=UrlOrPath())
@click.option("--also", type=UrlOrPath())
@click.option("--images")
@click.option("--quick", is_flag=True)
@click.argument("keys", nargs=-1)
def compare(**values: object) -> list[object]:
    """Return what was given."""
    return [value for value in values.values() if value]


@program.command(cls=Command)
@click.argument("places", nargs=-1, type=UrlOrPath())
@click.option("--num", type=int)
@click.option("--quick", is_flag=True)
def look(places: tuple[str, ...], num: int | None, quick: bool) -> tuple[str, ...]:
    """Return what was given."""
    return places


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


@pytest.mark.parametrize(
    ("words", "values"),
    [
        ("compare --ref=https://a.b/c", ["https://a.b/c"]),
        ("compare --ref https://a.b/c", ["https://a.b/c"]),
        ("compare -r https://a.b/c", ["https://a.b/c"]),
        ("compare --ref=a.npz --also=http://127.0.0.1/c", ["a.npz", "http://127.0.0.1/c"]),
        ("compare --ref=edm:cifar10-32x32 x=y", ["edm:cifar10-32x32", ("x=y",)]),
        ("look https://a.b/c d", ("https://a.b/c", "d")),
        ("look --num 3 https://a.b/c", ("https://a.b/c",)),
        ("look --quick https://a.b/c", ("https://a.b/c",)),
        ("look -- https://a.b/c", ("https://a.b/c",)),
    ],
)
def test_a_url_is_taken_where_one_is_asked_for(words: str, values: object) -> None:
    assert program.main(words.split(), standalone_mode=False) == values


ONLY = "URLs are for --also and --ref only: download it, and give the file"
PLACES = "URLs are for PLACES only: download it, and give the file"
LOCAL = "this program reads local files, not URLs: download it, and give the file"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("compare --images=https://a.b/c", f"--images=https://a.b/c: {ONLY}"),
        ("compare --images https://a.b/c", f"https://a.b/c: {ONLY}"),
        ("compare https://a.b/c", f"https://a.b/c: {ONLY}"),
        ("compare --quick https://a.b/c", f"https://a.b/c: {ONLY}"),
        ("compare ref=https://a.b/c", f"ref=https://a.b/c: {ONLY}"),
        ("compare --ref=x --images=https://me:pw@a.b/c?key", f"--images=https://a.b/c?...: {ONLY}"),
        ("work --num=https://a.b/c", f"--num=https://a.b/c: {LOCAL}"),
        ("look --num https://a.b/c", f"https://a.b/c: {PLACES}"),
        ("https://a.b/c work", f"https://a.b/c: {LOCAL}"),
        ("--no=https://a.b/c work", f"--no=https://a.b/c: {LOCAL}"),
        ("compare --ref=http://a.b/c", "http://a.b/c: what comes over http can be changed on its"),
        ("compare --ref=file:///c", "file:///c: give the path of a local file without file://"),
        ("compare --ref=https://a.b/c#sha256=1", "https://a.b/c: after the # of an address comes"),
    ],
)
def test_a_url_is_refused_everywhere_else_as_it_was_typed(words: str, line: str) -> None:
    with pytest.raises(UserError) as caught:
        program.main(words.split(), standalone_mode=False)
    assert str(caught.value).startswith(line)
