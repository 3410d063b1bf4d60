"""`fid.py compare --html` on a real run and real images."""

from pathlib import Path

import numpy as np
import pytest

import fid
import train
from data.dataset import ImageDataset
from tests.scoring.test_report import cells, parse, shown_pixels
from tests.test_repository import ROOT

DIGITS = str(ROOT / "assets" / "digits-8x8.zip")


def test_a_run_and_a_data_set_are_on_one_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--nosubdir", "run.duration=3it", "run.tick=1it", "preview=off"]
    train.main(["--config=configs/digits-tiny.yaml", "--outdir=run", *words], standalone_mode=False)
    with open("run/stats.jsonl", "a", encoding="utf-8") as file:
        file.write('{"Loss/loss": {"num": 20')  # a run that still writes
    capsys.readouterr()
    fid.main(
        [
            *("compare", "run", DIGITS, f"--ref={DIGITS}", "--detector=digits", "--num=20"),
            *("--metrics=fid", "--steps=2", "--html=out/page.html"),
        ],
        standalone_mode=False,
    )
    page = (tmp_path / "out" / "page.html").read_text(encoding="utf-8")
    _, run, digits = cells(page)
    assert (run[0], digits[0]) == ("A run", f"B {DIGITS}")
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "page: out/page.html"
    printed = dict(line.split()[:2] for line in lines[1:3])
    for row, name in ((run, "run"), (digits, DIGITS)):
        number = float(row[2].removeprefix("★").removesuffix(" (best)"))
        assert number == pytest.approx(float(printed[name]), abs=0.01)
    assert "★" in digits[2]  # an untrained network is worse than data
    tree = parse(page)
    grids = [box for box in tree.all("div") if "grid" in box.classes]
    assert [len(grid.all("img")) for grid in grids] == [20, 20]
    data = {image.tobytes() for image in ImageDataset(DIGITS).load()}
    assert {shown_pixels(image).tobytes() for image in grids[1].all("img")} < data
    assert np.stack([shown_pixels(image) for image in grids[0].all("img")]).std() > 0
    (loss,) = tree.all("svg")
    assert len(loss.all("circle")) == 3
    facts = [item.words() for item in tree.all("div") if item.all("dt")]
    assert any(fact.startswith("seeds0-19") for fact in facts)
