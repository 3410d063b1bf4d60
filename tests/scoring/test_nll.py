"""`fid.py nll`: bytes become bits per dimension, the same for any batch and number of processes."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from models.build import build
from models.config import ModelConfig
from models.snapshot import SnapshotInfo, load_snapshot, save_snapshot
from samplers.generate import to_uint8
from scoring.nll import Effort, Likelihood, bits_per_dim, dequantized, noise_of
from tests.command import assert_refused, call, torchrun
from tests.test_generate_cli import write_snapshot

NUM, HEIGHT, WIDTH = 7, 8, 6
NUM_VALUES = HEIGHT * WIDTH


def nll(*words: object) -> str:
    """What fid.py nll prints."""
    done = call("fid.py", "nll", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def record_of(tmp_path: Path, *words: object) -> dict[str, object]:
    """What fid.py nll writes as JSON."""
    file = tmp_path / "nll.json"
    nll(*words, f"--json={file}")
    found: dict[str, object] = json.loads(file.read_text())
    return found


def write_data(folder: Path, *, labels: list[object] | None = None, **index: object) -> Path:
    """A folder of random images 8x6, with labels if they are given."""
    folder.mkdir()
    for i in range(NUM):
        pixels = np.random.default_rng(i).integers(60, 200, (HEIGHT, WIDTH), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    if labels is not None:
        pairs = [[f"{i:02d}.png", label] for i, label in enumerate(labels)]
        (folder / "dataset.json").write_text(json.dumps({"labels": pairs, **index}))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nll")


@pytest.fixture(scope="module")
def network(folder: Path) -> Path:
    """A snapshot of three classes, images 8x6."""
    return write_snapshot(folder / "cond.safetensors", 3)


@pytest.fixture(scope="module")
def data(folder: Path) -> Path:
    """Seven images of three classes."""
    return write_data(folder / "data", labels=[0, 1, 2, 0, 1, 2, 0])


def write_zeros(path: Path, preconditioning: str) -> Path:
    """A model whose network returns 0."""
    config = ModelConfig(
        network={"name": "ddpmpp", "model_channels": 16, "channel_mult": [1, 1], "num_blocks": 1},
        preconditioning={"name": preconditioning},
        img_resolution=(HEIGHT, WIDTH),
        img_channels=1,
    )
    weights = build(config).state_dict()
    zeros = {k: v if k == "u" else torch.zeros_like(v) for k, v in weights.items()}
    save_snapshot(path, zeros, SnapshotInfo(config, {"name": "heun"}))
    return path


@pytest.fixture(scope="module")
def gaussian(folder: Path) -> Path:
    """A model whose D is exactly that of N(0, 0.5^2)."""
    return write_zeros(folder / "gaussian.safetensors", "edm")


FEW = ("--steps=3", "--device=cpu")


def test_dequantized_images_are_the_same_bytes() -> None:
    images = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    for offset in (1e-6, 0.3, 1 - 1e-6):
        values = torch.from_numpy(dequantized(images, np.full(images.shape, offset)))
        assert torch.equal(to_uint8(values), torch.from_numpy(images))
    middle = dequantized(images, np.full(images.shape, 0.5))
    np.testing.assert_allclose(middle, images / 127.5 - 1, atol=1e-12)


def test_bytes_that_tell_nothing_cost_8_bits() -> None:
    """256 intervals of 1/127.5, all alike."""
    log_p = torch.tensor([-NUM_VALUES * math.log(256 / 127.5)])
    assert bits_per_dim(log_p, NUM_VALUES).item() == pytest.approx(8)


def test_random_numbers_belong_to_an_image() -> None:
    shape = (2, 3, 4)
    offsets, probes = noise_of(Effort(seed=5, probes=2), range(0, 6), shape)
    assert (offsets >= 0).all()
    assert (offsets < 1).all()
    assert set(np.unique(probes)) == {-1, 1}
    later, more = noise_of(Effort(seed=5, probes=3), range(4, 6), shape)
    np.testing.assert_array_equal(later, offsets[4:])
    np.testing.assert_array_equal(more[:2], probes[:, 4:])
    other, _ = noise_of(Effort(seed=6), range(0, 6), shape)
    assert not np.isclose(other, offsets).any()
    assert len(np.unique(offsets)) == offsets.size


def test_errors_of_images_and_of_probes_are_told_apart() -> None:
    """Two probes that differ by 0.2 in every image, and images that differ by 0, 2, 4, ..., 10."""
    bits = np.array([[-0.1], [0.1]]) + 2.0 * np.arange(6)
    found = Likelihood("", bits, bits[:, :3] + [[1.0, -2.0, 3.0]], {})
    assert found.mean == pytest.approx(5)
    assert found.standard_error == pytest.approx(math.sqrt(14 / 6))
    assert found.probe_error == pytest.approx(0.1 * math.sqrt(2) / math.sqrt(2 * 6))
    assert found.halving_change == pytest.approx(2)
    single = Likelihood("", bits[:1, :1], bits[:1, :1], {})
    assert (single.standard_error, single.probe_error) == (None, None)


def closed_form(data: Path, seed: int, sigma_min: float, sigma_max: float) -> np.ndarray:
    """Bits per dimension of each image under the flow of N(0, 0.5^2), from its definition."""
    found = []
    stretch = math.sqrt((0.25 + sigma_max**2) / (0.25 + sigma_min**2))
    for i in range(NUM):
        image = np.asarray(PIL.Image.open(data / f"{i:02d}.png"))[None]
        x = dequantized(image, np.random.default_rng([seed, i]).random(image.shape))
        std = sigma_max / stretch
        log_p = -np.log(std * math.sqrt(2 * math.pi)) - (x / std) ** 2 / 2
        found.append(-log_p.mean() / math.log(2) + math.log2(127.5))
    return np.array(found)


@pytest.mark.parametrize("sigma_max", [80.0, 3.0])
def test_of_a_gaussian_model_it_is_the_closed_form(
    gaussian: Path, data: Path, tmp_path: Path, sigma_max: float
) -> None:
    words = (f"--network={gaussian}", f"--data={data}", "--seed=4", "--device=cpu")
    found = record_of(tmp_path, *words, f"--sigma_max={sigma_max}", "--batch=4")
    exact = closed_form(data, 4, 0.002, sigma_max)
    error = float(str(found["halving_change"]))
    np.testing.assert_allclose(found["bits"], exact, atol=min(error, 1e-3))
    assert 0 < error < 0.02
    assert found["nll"] == pytest.approx(exact.mean(), abs=error)
    assert found["standard_error"] == pytest.approx(exact.std(ddof=1) / math.sqrt(NUM), rel=1e-2)
    assert found["labels"] == "unconditional"


def test_a_model_of_ddpm_starts_with_variance_1(data: Path, tmp_path: Path) -> None:
    """With eps = 0, D is x: nothing moves, and the density is that of the start."""
    path = write_zeros(tmp_path / "ddpm.safetensors", "ddpm")
    found = record_of(tmp_path, f"--network={path}", f"--data={data}", *FEW)
    model = load_snapshot(path)[0]
    assert found["sigma_min"] == pytest.approx(model.sigma_min)
    assert found["sigma_max"] == pytest.approx(80)  # the sampler's, below the model's 157
    std = found["prior_scale"]
    assert std == pytest.approx(math.hypot(1, 80))
    images = [np.asarray(PIL.Image.open(data / f"{i:02d}.png")) / 127.5 - 1 for i in range(NUM)]
    squares = np.square(images).mean((1, 2))
    exact = math.log2(127.5 * std * math.sqrt(2 * math.pi)) + squares / (2 * std**2 * math.log(2))
    np.testing.assert_allclose(found["bits"], exact, atol=1e-5)


def test_the_record_says_what_the_number_depends_on(
    network: Path, data: Path, tmp_path: Path
) -> None:
    file, log = tmp_path / "nll.json", tmp_path / "log.txt"
    words = (f"--network={network}", f"--data={data}", "--probes=3", "--num=5", *FEW)
    printed = nll(*words, f"--json={file}", f"--log={log}").splitlines()
    found = json.loads(file.read_text())
    assert len(found["bits"]) == found["count"] == 5
    assert found["nll"] == pytest.approx(np.mean(found["bits"]))
    assert (found["labels"], found["probes"], found["calls"]) == ("conditional", 3, 18)
    assert (found["sigma_min"], found["sigma_max"], found["prior_scale"]) == (0.002, 80.0, 80.0)
    assert 0 < found["probe_error"] < 1
    assert 0 < found["standard_error"] < 1
    head = f"nll: {found['nll']:.4f} bits/dim (standard error {found['standard_error']:.2g}, "
    assert printed[0] == f"{head}5 images, conditional)"
    assert printed[1].startswith("  made with 3 probes an image (their error 0.")
    assert "18 network calls in 3 steps from sigma 0.002 to 80, network " in printed[1]
    assert printed[2] == f"  half as many steps change an image by {found['halving_change']:.2g}"
    name = "/".join(network.parts[-2:])
    assert log.read_text() == f"Checkpoint {name} -> nll {found['nll']:.6g}\n"


def test_the_number_does_not_depend_on_batches(network: Path, data: Path, tmp_path: Path) -> None:
    words = (f"--network={network}", f"--data={data}", *FEW)
    bits = [record_of(tmp_path, *words, f"--batch={batch}")["bits"] for batch in (64, 2)]
    np.testing.assert_allclose(bits[0], bits[1], rtol=1e-5)
    assert np.ptp(bits[0]) > 1e-3
    other = record_of(tmp_path, *words, "--seed=1")["bits"]
    assert not np.isclose(other, bits[0], rtol=1e-5).any()


def test_two_processes_find_what_one_does(network: Path, data: Path, tmp_path: Path) -> None:
    words = (f"--network={network}", f"--data={data}", *FEW)
    one, file = record_of(tmp_path, *words), tmp_path / "two.json"
    done = torchrun(2, "fid.py", "nll", *words, f"--json={file}")
    assert done.returncode == 0, done.stderr
    two = json.loads(file.read_text())
    np.testing.assert_allclose(two["bits"], one["bits"], rtol=1e-5)
    assert two["halving_change"] == pytest.approx(one["halving_change"], rel=1e-3)
    assert done.stdout.count("bits/dim") == 1


def test_labels_of_the_data_condition_the_model(network: Path, data: Path, tmp_path: Path) -> None:
    common = (f"--network={network}", *FEW)
    found = record_of(tmp_path, *common, f"--data={data}")
    others = write_data(tmp_path / "others", labels=[1, 0, 2, 0, 1, 2, 0])
    changed = record_of(tmp_path, *common, f"--data={others}")
    is_changed = ~np.isclose(found["bits"], changed["bits"], rtol=1e-6)
    assert is_changed.tolist() == [True, True, False, False, False, False, False]
    without = call("fid.py", "nll", *common, f"--data={data}", "--no-labels")
    assert "unconditional, by the null label" in without.stdout
    assert "does not say that it was trained with label dropout" in without.stderr
    plain = call("fid.py", "nll", *common, f"--data={write_data(tmp_path / 'plain')}")
    assert plain.stdout == without.stdout


def test_it_is_that_of_the_plain_model(data: Path, tmp_path: Path, network: Path) -> None:
    """A stored sampler that clips, rounds and visits steps of DDPM changes only where it starts."""
    how = {"clip": True, "name": "ddim", "steps": 10, "precision": "bf16"}
    other = write_snapshot(tmp_path / "clipping.safetensors", 3, **how)
    common = ("nll", f"--data={data}", *FEW, "--sigma_max=80")
    done, plain = (call("fid.py", *common, f"--network={path}") for path in (other, network))
    assert done.stderr.count("guidance and clipping of the model's sampler are left out") == 1
    assert done.stderr.count("precision bf16 of the model's sampler is left out") == 1
    assert plain.stderr == ""
    assert done.stdout.splitlines()[0] == plain.stdout.splitlines()[0]


def test_data_may_lack_the_last_classes(network: Path, tmp_path: Path) -> None:
    common = (f"--network={network}", *FEW)
    two = write_data(tmp_path / "two", labels=[0, 1, 0, 1, 0, 1, 0])
    assert record_of(tmp_path, *common, f"--data={two}")["labels"] == "conditional"


def test_held_out_images_are_those_that_training_leaves_out(
    gaussian: Path, data: Path, tmp_path: Path
) -> None:
    common = (f"--network={gaussian}", f"--data={data}", *FEW)
    everything = record_of(tmp_path, *common)
    chosen = record_of(tmp_path, *common, "--num=5")
    rest = record_of(tmp_path, *common, "--held-out=5")
    assert (everything["count"], chosen["count"], rest["count"]) == (7, 5, 2)
    assert rest["held_out"] == 5
    other = record_of(tmp_path, *common, "--held-out=5", "--subset-seed=1")
    assert other["bits"] != rest["bits"]


def test_images_of_an_npz_have_no_labels(gaussian: Path, data: Path, tmp_path: Path) -> None:
    images = [np.asarray(PIL.Image.open(data / f"{i:02d}.png"))[..., None] for i in range(NUM)]
    np.savez(tmp_path / "samples.npz", arr_0=np.stack(images))
    common = (f"--network={gaussian}", *FEW)
    found = record_of(tmp_path, *common, f"--data={tmp_path / 'samples.npz'}")
    assert found["bits"] == record_of(tmp_path, *common, f"--data={data}")["bits"]


def test_weights_that_are_not_finite_are_named(network: Path, data: Path, tmp_path: Path) -> None:
    denoiser, info = load_snapshot(network)
    weights = denoiser.state_dict()
    name = next(name for name in weights if weights[name].ndim == 4)
    weights[name] = torch.full_like(weights[name], math.nan)
    bad = tmp_path / "bad.safetensors"
    save_snapshot(bad, weights, info)
    done = call("fid.py", "nll", f"--network={bad}", f"--data={data}", *FEW)
    assert done.returncode == 1
    assert "the likelihood of 7 of 7 images is not finite, of 00.png, 01.png, " in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def _rounding(folder: Path) -> list[object]:
    return [f"--network={write_zeros(folder / 'rounding.safetensors', 'iddpm')}"]


def _wide(folder: Path) -> list[object]:
    path = folder / "wide"
    path.mkdir()
    PIL.Image.new("RGB", (WIDTH, HEIGHT)).save(path / "0.png")
    return [f"--data={path}"]


def _vectors(folder: Path) -> list[object]:
    labels: list[object] = [[0.1, 0.2]] * NUM
    return [f"--data={write_data(folder / 'vectors', labels=labels)}"]


def _names(folder: Path) -> list[object]:
    path = write_data(folder / "names", labels=[0, 1, 2] * 2 + [0], label_names=["a", "b", "c"])
    return [f"--data={path}"]


Given = Callable[[Path], list[object]]
MISTAKES: dict[str, tuple[Given, str]] = {
    "no such data": (lambda _: ["--data=absent.zip"], "absent.zip"),
    "no such network": (lambda _: ["--network=absent.safetensors"], "absent.safetensors"),
    "too few": (lambda _: ["--num=8"], "has 7 images, fewer than --num=8"),
    "nothing held out": (lambda _: ["--held-out=7"], "no image of"),
    "both": (lambda _: ["--num=2", "--held-out=3"], "leave one of them out"),
    "shape": (_wide, "are 3x8x6 (channels x height x width), but the model makes 1x8x6"),
    "rounding": (_rounding, "rounds noise levels"),
    "kind": (_vectors, "are 2 (vector), those of the model 3 (class)"),
    "names": (_names, "are a, b, c, those of the model ant, bee, cow"),
    "range": (lambda _: ["--sigma_min=90"], "sigma_min=90"),
    "one step": (lambda _: ["--steps=1"], "--steps"),
    "json": (lambda folder: [f"--json={folder}"], "is a folder: give a file"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line_each(network: Path, data: Path, tmp_path: Path, name: str) -> None:
    given, words = MISTAKES[name]
    usual = (f"--network={network}", f"--data={data}", *FEW)
    assert_refused(call("fid.py", "nll", *usual, *given(tmp_path)), words)
