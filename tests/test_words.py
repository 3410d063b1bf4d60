"""What the programs answer to wrong command lines: one line in one style that says what helps."""

import importlib
from pathlib import Path

import pytest

TINY = "--config=configs/digits-tiny.yaml"
URL = "https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/edm-cifar10-32x32-cond-vp.pkl"
NO_URL = "this program reads local files, not URLs: download it, and give the file"
OF_MODELS = "URLs are for --guidance-network and --network only: download it"


def answer(capsys: pytest.CaptureFixture[str], script: str, *arguments: object) -> str:
    """The line with which a program refuses, run in this process."""
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module(script).main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert stopped.value.code == 2, captured
    (line,) = captured.err.splitlines()
    assert line.startswith("error: "), line
    return line.removeprefix("error: ")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("train", "missing option --outdir=DIR: where run directories go"),
        (
            "generate --outdir=x",
            "missing option --network=FILE|DIR|URL|NAME: snapshot, run for its ",
        ),
        ("generate --network=x", "missing option --outdir=DIR|FILE: where the images go"),
        ("fid gen --ref=y", "missing option --network=FILE|DIR|URL|NAME: snapshot, run for its "),
        ("fid compare --ref=y", "missing argument PATH..."),
        ("fid calc --detector=pixels", "missing option --images=PATH: folder, zip or .npz of "),
        (
            "fid ref --data=x --detector=pixels",
            "missing option --dest=NPZ: reference file",
        ),
        ("dataset_tool", "missing option --source=PATH: "),
        ("dataset_tool --source=x", "missing option --dest=PATH: "),
        ("dataset_tool check", "missing option --data=PATH: zip or folder, as for train.py"),
        ("snapshot_tool info", "missing argument FILE|DIR"),
        # URLs as they were typed
        (f"generate --outdir={URL} --network=x", f"--outdir={URL}: {OF_MODELS}"),
        (f"generate --network=x --outdir {URL}", f"{URL}: {OF_MODELS}"),
        (f"fid compare a --json={URL}", f"--json={URL}: URLs are for --ref and PATH... only"),
        ("fid calc --images=https://a.b/c", "--images=https://a.b/c: URLs are for --ref only"),
        ("train --outdir=x --transfer=http://a", "http://a: what comes over http can be changed"),
        ("train --outdir=x data.path=s3://a/b", "data.path=s3://a/b: URLs are for --transfer only"),
        ("dataset_tool --source=https://a/b.zip", f"--source=https://a/b.zip: {NO_URL}"),
        # names
        ("train --outdir=x --data=y --arch=ddpm++ -n", "did you mean 'ddpmpp'?"),
        ("train --outdir=x --precond=EDM", "unknown preconditioning 'EDM': did you mean 'edm'?"),
        ("train --outdir=x --precond=best", "known are cdm, ddpm, edm, flow, "),
        ("train --outdir=x --config=configs/digit.yaml", "did you mean configs/digits.yaml?"),
        ("train --outdir=x -c a.yml", "unknown option -c: here c of DDPM implementation is --conf"),
        ("train --outdir=x -ni", "unknown option -i: here i of SA-DPM is --outdir; -ni has no"),
        ("generate --config=a.yml", "unknown option --config: config of SA-DPM, DDPM implement"),
        # what set a key
        (f"train --outdir=x {TINY} --lr=-3", "option --lr: optimizer.lr is -3.0: it must be great"),
        (f"train --outdir=x {TINY} --duration=abc", "option --duration: run.duration is 'abc': "),
        (f"train --outdir=x {TINY} loss.lamda=1", "unknown key in loss.lamda=1 on the command li"),
        (f"train --outdir=x {TINY} optimizer.lr=fast", "optimizer.lr=fast on the command line: "),
    ],
)
def test_a_wrong_command_line_is_answered(
    words: str, line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])
    script, *arguments = words.split(" ")
    if "--arch" in words:
        arguments = [part.replace("--data=y", "--data=assets/digits-8x8.zip") for part in arguments]
    assert line in answer(capsys, script, *arguments)


def test_what_a_terminal_would_obey_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    line = answer(capsys, "train", "--outdir=x", "run.desc=a\x1b[31m\nb")
    assert r"run.desc=a\x1b[31m\nb on the command line: it may have letters" in line
    assert answer(capsys, "generate", "--outdir=x", "--network=no\nwhere").startswith(
        r"there is no snapshot at no\nwhere: give "
    )
