"""`fid.py` with images and references in .npz, as guided-diffusion writes them, and the cache."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from metrics.reference import load_reference
from tests.command import assert_refused, call, torchrun

RANDOM = np.random.default_rng(0)
SAMPLES = RANDOM.integers(0, 256, (30, 6, 5, 3), dtype=np.uint8)
REAL = RANDOM.integers(0, 200, (40, 6, 5, 3), dtype=np.uint8)
HOW = ("--detector=pixels", "--num=20", "--seed=3")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DRIFTLESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "references"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The same samples and real images, as .npz of both kinds and as folders of PNG."""
    np.savez(tmp_path / "samples.npz", SAMPLES, np.zeros(30, np.int64))
    np.savez_compressed(tmp_path / "packed.npz", SAMPLES)
    np.savez(tmp_path / "real.npz", REAL)
    for name, images in {"samples": SAMPLES, "real": REAL}.items():
        (tmp_path / name).mkdir()
        for index, image in enumerate(images):
            PIL.Image.fromarray(image).save(tmp_path / name / f"{index:02d}.png")
    return tmp_path


def scores(files: Path, images: str, ref: str, *more: object) -> dict[str, Any]:
    out = files / "scores.json"
    words = [f"--images={files / images}", f"--ref={files / ref}", f"--json={out}"]
    done = call("fid.py", "calc", *words, *HOW, *more)
    assert done.returncode == 0, done.stderr
    record: dict[str, Any] = json.loads(out.read_text())
    return record


def numbers(record: dict[str, Any]) -> dict[str, float]:
    return {key: value for key, value in record.items() if isinstance(value, float)} | {
        "seconds": 0
    }


@pytest.mark.parametrize("images", ["samples.npz", "packed.npz"])
@pytest.mark.parametrize("ref", ["real.npz", "real"])
def test_an_npz_gives_the_numbers_of_a_folder(files: Path, images: str, ref: str) -> None:
    expected = numbers(scores(files, "samples", "real", "--metrics=fid,pr"))
    assert numbers(scores(files, images, ref, "--metrics=fid,pr")) == expected


def test_two_processes_read_their_shares_of_a_compressed_npz(files: Path) -> None:
    expected = scores(files, "samples", "real", "--metrics=fid")
    out = files / "two.json"
    words = [f"--images={files / 'packed.npz'}", f"--ref={files / 'real.npz'}", f"--json={out}"]
    done = torchrun(2, "fid.py", "calc", *words, *HOW, "--metrics=fid", real=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text())["fid"] == pytest.approx(expected["fid"], rel=1e-6)


def test_a_reference_is_computed_once(files: Path, cache: Path) -> None:
    first = scores(files, "samples.npz", "real.npz")
    (entry,) = cache.glob("real-*-pixels-none.npz")
    kept = load_reference(entry, "pixels")
    assert first["reference"]["content_key"] == kept.content_key
    written = entry.stat().st_mtime_ns
    (files / "real.npz").rename(files / "moved.npz")
    second = scores(files, "samples.npz", "moved.npz")
    assert numbers(second) == numbers(first)
    assert (list(cache.glob("*.npz")), entry.stat().st_mtime_ns) == ([entry], written)


def test_a_reference_with_features_serves_every_metric(files: Path) -> None:
    how = "--metrics=fid,pr"
    expected = numbers(scores(files, "samples", "real", how))
    made = ["--dest", files / "ref.npz", "--detector=pixels", "--features"]
    assert call("fid.py", "ref", f"--data={files / 'real.npz'}", *made).returncode == 0
    assert numbers(scores(files, "samples", "ref.npz", how)) == expected


def test_statistics_of_another_detector_are_refused_before_the_work(files: Path) -> None:
    tree = {"fid": {"mu": np.zeros(3), "sigma": np.eye(3)}}
    (files / "a.pkl").write_bytes(pickle.dumps(tree))
    words = [f"--images={files / 'samples'}", f"--ref={files / 'a.pkl'}"]
    done = call("fid.py", "calc", *words, *HOW)
    assert_refused(done, "a.pkl holds statistics of inception features, not of pixels")
