"""`fid.py gen` and `compare`: networks are scored as their PNGs would be, by one process or two."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from data.dataset import ImageDataset
from metrics.names import key_name
from models.snapshot import load_snapshot, save_snapshot
from tests.command import assert_refused, call, torchrun
from tests.test_generate_cli import write_snapshot

NUM = 24


def fid(*words: object) -> str:
    """What fid.py prints."""
    done = call("fid.py", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot of three classes, images 8x6."""
    return write_snapshot(tmp_path_factory.mktemp("models") / "cond.safetensors", 3)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 30 random images of that shape."""
    folder = tmp_path_factory.mktemp("data") / "noise"
    folder.mkdir()
    for index in range(30):
        pixels = np.random.default_rng(index).integers(0, 256, (8, 6), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"{index:02d}.png")
    return folder


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    """References are cached in a folder of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DRIFTLESS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


HOW = ("--detector=pixels", "--metrics=fid,pr")


def test_a_network_is_scored_as_its_pictures_are(network: Path, data: Path, tmp_path: Path) -> None:
    seeds, against = f"--seeds=0-{NUM - 1}", f"--ref={data}"
    images, kept = tmp_path / "images", tmp_path / "kept"
    done = call("generate.py", f"--network={network}", f"--outdir={images}", seeds)
    assert done.returncode == 0, done.stderr
    files = [tmp_path / f"{name}.json" for name in ("calc", "gen", "again")]
    fid("calc", f"--images={images}", f"--num={NUM}", against, *HOW, f"--json={files[0]}")
    common = ["gen", f"--network={network}", seeds, against, *HOW]
    fid(*common, f"--outdir={kept}", f"--json={files[1]}", "--batch=5")
    fid(*common, f"--json={files[2]}")
    calc, gen, again = (json.loads(file.read_text()) for file in files)
    for value in ("fid", "precision", "recall"):
        assert gen[value] == calc[value] == again[value]
    assert calc["fid"] > 0
    made = {path.name: path.read_bytes() for path in kept.glob("*.png")}
    assert made == {path.name: path.read_bytes() for path in images.glob("*.png")}
    assert len(made) == NUM
    for form in (".zip", ".npz"):
        packed, scored = (tmp_path / f"{name}{form}" for name in ("images", "kept"))
        call("generate.py", f"--network={network}", f"--outdir={packed}", seeds)
        fid("calc", f"--images={packed}", f"--num={NUM}", against, *HOW, f"--json={files[0]}")
        fid(*common, f"--outdir={scored}", f"--json={files[1]}")
        assert scored.read_bytes() == packed.read_bytes()
        for file in files[:2]:
            assert json.loads(file.read_text())["fid"] == gen["fid"]


def test_the_record_says_what_the_numbers_were_computed_from(
    network: Path, data: Path, tmp_path: Path
) -> None:
    file, log = tmp_path / "scores.json", tmp_path / "log.txt"
    how = [f"--ref={data}", *HOW, f"--json={file}", f"--log={log}", "--seeds=3-14", "--steps=4"]
    printed = fid("gen", f"--network={network}", *how)
    record = json.loads(file.read_text())
    assert record["count"] == 12
    assert record["seeds"] == "3-14"
    assert (record["sampler"], record["steps"], record["calls"]) == ("heun", 4, 7)
    assert record["network"] == str(network)
    assert record["detector"] == {"name": "pixels", "weights_sha256": ""}
    key = ImageDataset(data).content_key()
    expected = {"name": "noise", "source": "noise", "count": 30, "sha256": "", "content_key": key}
    assert record["reference"] == expected
    assert record["names"]["fid"] == key_name("fid", "pixels", 12) == "fd_pixels-12"
    assert record["settings"]["S_max"] == "inf"
    lines = printed.splitlines()
    assert (
        lines[0] == f"frechet distance (pixels): {record['fid']:g}   12 images vs noise (30 images)"
    )
    assert lines[-1].endswith("seeds 3-14, sampler heun, 4 steps, 7 calls")
    name = "/".join(network.parts[-2:])
    expected = f"Checkpoint {name} -> fd_pixels-12 {record['fid']:g}, precision_pixels-12 "
    assert log.read_text().startswith(expected)
    fid("gen", f"--network={network}", *how)
    assert len(log.read_text().splitlines()) == 2


def test_several_ranges_of_seeds_have_a_minimum_and_a_spread(
    network: Path, data: Path, tmp_path: Path
) -> None:
    file = tmp_path / "scores.json"
    ranges = ["--seeds=0-9", "--seeds=10-19", "--seeds=20-29"]
    how = [f"--ref={data}", "--detector=pixels", f"--json={file}"]
    printed = fid("gen", f"--network={network}", *how, *ranges)
    record = json.loads(file.read_text())
    found = [entry["fid"] for entry in record["ranges"]]
    assert len(set(found)) == 3
    summary = record["summary"]["fid"]
    assert summary["min"] == min(found)
    assert summary["mean"] == pytest.approx(np.mean(found), rel=1e-12)
    assert summary["std"] == pytest.approx(np.std(found, ddof=1), rel=1e-12)
    assert [entry["seeds"] for entry in record["ranges"]] == ["0-9", "10-19", "20-29"]
    line = f"over 3 ranges of 10 seeds: minimum {min(found):g}, mean {np.mean(found):g} +- "
    assert line in printed


def test_folders_data_sets_and_networks_stand_in_one_table(
    network: Path, data: Path, tmp_path: Path
) -> None:
    file = tmp_path / "scores.json"
    printed = fid("compare", network, data, f"--ref={data}", "--num=20", *HOW, f"--json={file}")
    lines = printed.splitlines()
    records = json.loads(file.read_text())
    assert [record["what"] for record in records] == [str(network), str(data)]
    heads = ["frechet distance (pixels)", "precision (pixels)", "recall (pixels)"]
    assert lines[0].strip() == "  ".join(heads)
    for line, record in zip(lines[1:], records, strict=False):
        assert line.split()[:2] == [record["what"], f"{record['fid']:.5g}"]
    assert records[1]["precision"] == 1
    assert lines[3] == "  20 images each vs noise (30 images)"
    assert f"{network}: seeds 0-19, sampler heun, 3 steps, 5 calls" in lines[5]


def test_two_processes_score_a_network_as_one_does(
    network: Path, data: Path, tmp_path: Path
) -> None:
    records = []
    for name, runner in (("one", call), ("two", lambda *words: torchrun(2, *words))):
        file = tmp_path / f"{name}.json"
        words = [f"--network={network}", f"--ref={data}", "--seeds=0-12", "--device=cpu", *HOW]
        done = runner("fid.py", "gen", *words, f"--json={file}", f"--outdir={tmp_path / name}")
        assert done.returncode == 0, done.stderr
        records.append(json.loads(file.read_text()))
        assert done.stdout.count("frechet distance") == 1
        assert len(list((tmp_path / name).glob("*.png"))) == 13
    for value in ("fid", "precision", "recall"):
        assert records[0][value] == pytest.approx(records[1][value], rel=1e-6)


def test_mistakes_are_found_before_anything_is_generated(
    network: Path, data: Path, tmp_path: Path
) -> None:
    def gen(*words: object) -> object:
        given = {word.split("=")[0] for word in map(str, words)}
        usual = (
            f"--ref={data}",
            "--detector=pixels",
            "--seeds=0-9",
            f"--outdir={tmp_path / 'out'}",
        )
        rest = [word for word in usual if word.split("=")[0] not in given]
        return call("fid.py", "gen", f"--network={network}", *rest, *words)

    assert_refused(gen("--metrics=kid"), "metric 'kid' needs 1,000 images")
    assert_refused(gen("--seeds=0-2", "--metrics=pr"), "metric 'pr' needs 4 images")
    assert_refused(gen("--detector=digits"), "detector 'digits' takes 1x8x8 images")
    assert_refused(gen("--seeds=0-9", "--seeds=5-14"), "--seeds names seeds 5, 6, 7")
    assert_refused(gen("--seeds=0-9", "--seeds=10-15"), "ranges of 6 and 10 images")
    assert_refused(gen("--sampler=huen"), "did you mean 'heun'")
    assert_refused(gen("--ref=absent.npz"), "no such reference file: absent.npz")
    reference = tmp_path / "wide.npz"
    np.savez(reference, mu=np.zeros(12), sigma=np.eye(12), detector="pixels")
    assert_refused(gen(f"--ref={reference}"), "has 12 features (pixels), 1x8x6 images have 48")
    turned = tmp_path / "turned"
    turned.mkdir()
    for index in range(6):
        PIL.Image.fromarray(np.zeros((6, 8), np.uint8)).save(turned / f"{index}.png")
    assert_refused(gen(f"--ref={turned}"), "turned was made of 1x6x8 images")
    assert_refused(gen(f"--json={tmp_path}"), "is a folder: give a file")
    assert not list((tmp_path / "out").glob("**/*.png"))


def test_images_that_are_not_finite_have_no_score(
    network: Path, data: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.safetensors"
    denoiser, info = load_snapshot(network)
    weights = denoiser.state_dict()
    name = next(name for name in weights if name.endswith("weight"))
    save_snapshot(broken, {**weights, name: torch.full_like(weights[name], torch.nan)}, info)
    file = tmp_path / "scores.json"
    how = [f"--ref={data}", "--detector=pixels", "--seeds=0-3", f"--json={file}"]
    done = call("fid.py", "gen", f"--network={broken}", *how)
    assert done.returncode == 1
    assert "4 of 4 images are not finite, of seeds 0, 1, 2, 3: there is no score" in done.stderr
    assert not file.exists()
