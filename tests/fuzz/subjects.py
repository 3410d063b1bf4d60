"""What is fuzzed: a small sound file of every kind that is read, and how it is read."""

import functools
import gzip
import io
import json
import pickle  # only to make the batches of CIFAR and the statistics of EDM2
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from data.check import problems_of
from data.convert import convert
from data.dataset import ImageDataset
from data.decoding import open_picture
from data.modes import to_plain
from data.sources import open_source
from tests.data.files import encoded, index, random_image
from torch_utils.text import printable

Files = dict[str, bytes]


@dataclass(frozen=True)
class Subject:
    """A kind of file.

    Attributes:
        parts: the contents that are damaged, by name; one of them at a time.
        pack: the files to write, from the parts; their first is what is read.
        read: reads a file, as the programs do; a UserError is a fine end.
    """

    parts: Callable[[], Files]
    read: Callable[[Path], object]
    pack: Callable[[Files], Files]


def _itself(parts: Files) -> Files:
    return parts


def _zip(files: Files, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return buffer.getvalue()


def _saved(save: Callable[[Any], object]) -> bytes:
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getvalue()


# dataset zips


def _images() -> Files:
    kinds = ["png", "png", "bmp", "jpeg"]
    names = [f"{number}/{number}.{kind}" for number, kind in enumerate(kinds)]
    images = [encoded(random_image(n), kind) for n, kind in enumerate(kinds)]
    labels = {name: number for number, name in enumerate(names)}
    files = dict(zip(names, images, strict=True))
    return files | {"dataset.json": index(labels, label_names=list("abcd"))}


def _read_dataset(path: Path) -> None:
    for problem in problems_of(str(path)):
        assert problem == printable(problem), problem
    ImageDataset(path, use_labels=True).load(progress=False)
    convert(str(path), str(path.with_name("o.zip")), overwrite=True)


def _zipped(method: int) -> Subject:
    return Subject(lambda: {"s.zip": _zip(_images(), method)}, _read_dataset, _itself)


# pictures

_PICTURES = ("png", "jpeg", "gif", "webp", "tiff", "bmp", "tga", "ppm", "ico", "jpeg2000", "psd")


def _picture(kind: str) -> Subject:
    image = PIL.Image.fromarray(random_image(3, 20, 30))

    def parts() -> Files:
        options: dict[str, Any] = {"progressive": True} if kind == "jpeg" else {}
        return {f"a.{kind}": encoded(image, kind, **options)}

    def read(path: Path) -> None:
        to_plain(open_picture(path.read_bytes(), path.name), path.name)

    return Subject(parts, read, _itself)


# sources


def _read_source(path: Path) -> None:
    source = open_source(path, max_images=4)
    for number in range(len(source)):
        source.read(number)


def _npz() -> Files:
    images = np.stack([random_image(n) for n in range(3)])
    return {
        "images.npy": _saved(lambda file: np.save(file, images)),
        "labels.npy": _saved(lambda file: np.save(file, np.arange(3))),
    }


def _idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def _mnist() -> Files:
    images = np.stack([random_image(n, 5, 5, 1) for n in range(3)])
    return {
        "train-images-idx3-ubyte.gz": _idx(images),
        "train-labels-idx1-ubyte.gz": _idx(np.arange(3, dtype=np.uint8)),
    }


def _cifar() -> Files:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3072), dtype=np.uint8)
    batch = pickle.dumps({"data": pixels, "labels": [3]}, 2)
    files = {f"data_batch_{number}": batch for number in range(1, 6)}
    return files | {"batches.meta": pickle.dumps({"label_names": list("abcdefghij")}, 2)}


def _tar(files: Files) -> Files:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"cifar/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return {"cifar-10-python.tar.gz": buffer.getvalue()}


def _packed(files: Files) -> Files:
    return {name: gzip.compress(content, 1) for name, content in files.items()}


def _lmdb() -> Files:
    import tempfile

    import lmdb

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.lmdb")
        environment = lmdb.open(str(path), map_size=2**20, subdir=False)
        with environment, environment.begin(write=True) as transaction:
            for number in range(40):
                transaction.put(f"{number:04d}".encode(), encoded(random_image(number)))
        return {"a.lmdb": path.read_bytes()}


def _celeba() -> Files:
    lines = "2\nBald Young Male\na.jpg  1 -1  1\nb.jpg -1 -1 -1\n"
    return {"list_attr_celeba.txt": lines.encode()}


def _read_celeba(path: Path) -> None:
    from data.sources.celeba import read_attributes

    read_attributes(path)


# models and recipes


@functools.cache
def _snapshot() -> Files:
    import tempfile

    from models.build import build
    from models.config import ModelConfig
    from models.snapshot import SnapshotInfo, save_snapshot

    network = {"name": "ddpmpp", "model_channels": 8, "channel_mult": [1], "num_blocks": 1}
    config = ModelConfig(
        network=network, img_resolution=(4, 4), img_channels=1, preconditioning={"name": "edm"}
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.safetensors")
        info = SnapshotInfo(config, {"name": "heun", "steps": 3}, images=7)
        save_snapshot(path, build(config).state_dict(), info)
        return {"a.safetensors": path.read_bytes()}


def _read_snapshot(path: Path) -> None:
    from models.snapshot import load_snapshot
    from samplers.settings import generation_settings

    _, info = load_snapshot(path)
    generation_settings(info.sampling)


def _description() -> Files:
    """What a snapshot says of itself, without the checksum that would show the damage."""
    (content,) = _snapshot().values()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    record = json.loads(header["__metadata__"]["driftless"])
    del record["sha256"]
    return {"record": json.dumps(record).encode()}


def _described(files: Files) -> Files:
    from safetensors.torch import load, save

    (content,), (record,) = _snapshot().values(), files.values()
    text = record.decode("utf-8", "replace")
    return {"a.safetensors": save(load(content), metadata={"driftless": text})}


def _state(is_zip: bool) -> Callable[[], Files]:
    def parts() -> Files:
        import torch

        net = torch.nn.Linear(3, 2)
        tree = {"format": 1, "trainer": {"seen": 3, "net": net.state_dict(), "list": [1, 2.5, "x"]}}
        return {
            "a.pt": _saved(
                lambda file: torch.save(tree, file, _use_new_zipfile_serialization=is_zip)
            )
        }

    return parts


def _read_state(path: Path) -> None:
    from training.state import load_state

    load_state(path)


def _checkpoint() -> Files:
    import torch

    from tests.importers.foreign import numbered, sa_dpm

    state = numbered(sa_dpm(32, [1], 1, [True]))
    side = (
        "image_size: 8\nschedule: {name: linear, num_steps: 10, beta_start: 1e-4, beta_end: 0.02}\n"
        "timesteps: 5\neta: 0.5\nskip_type: quad\n"
    )
    return {"a.pth": _saved(lambda file: torch.save(state, file)), "a.yaml": side.encode()}


def _container() -> Files:
    """A training checkpoint of v-diffusion, with all that its users expect of the run's config."""
    import torch

    from tests.importers.foreign import numbered, v_diffusion

    state = numbered(v_diffusion(32, [1], 1, [True], classes=2))
    ema = {"decay": 0.9999, "shadow": state, "num_updates": 3}
    tree = {"model": state, "ema": ema, "epoch": 1, "optimizer": {"state": {}}}
    side = (
        "resolution: 8\nnum_heads: 1\nmodel_out_type: v\nlogsnr_schedule: cosine\n"
        "logsnr_min: -20.0\nlogsnr_max: 20.0\nsample_timesteps: 5\nmodel_var_type: fixed_medium\n"
        "intp_frac: 0.3\nw_guide: 0.1\np_uncond: 0.1\nbatch_size: 8\n"
    )
    return {"a.pt": _saved(lambda file: torch.save(tree, file)), "a.yaml": side.encode()}


def _read_model(path: Path) -> None:
    from importers.opening import find_model, read_model
    from samplers.settings import generation_settings

    model = read_model(find_model(path))
    generation_settings(model.info.sampling)
    model.denoiser()


@functools.cache
def _edm() -> tuple[Files, list[bytes]]:
    """A snapshot of EDM and a training state, of a tiny network; and the bytes of its weights."""
    from models.config import ModelConfig
    from tests.importers.edm_files import denoiser_of, pickled, snapshot, training_state, whole

    options = {"model_channels": 8, "channel_mult": [1], "num_blocks": 1, "attn_resolutions": []}
    tree: dict[str, Any] = {
        "network": {"name": "ddpmpp", "dropout": 0.1, **options},
        "img_resolution": (4, 4),
        "img_channels": 1,
    }
    denoiser = denoiser_of(ModelConfig(**tree))
    ema = snapshot(denoiser, "EDMPrecond", "ddpmpp", augment_dim=0, dropout=0.1, **options)
    files = {"a.pkl": pickled(whole(ema)), "a.pt": training_state(ema, denoiser)}
    return files, [tensor.numpy().tobytes() for tensor in denoiser.state_dict().values()]


def _edm_file(name: str) -> Callable[[], Files]:
    return lambda: {name: _edm()[0][name]}


def _edm_structure() -> Files:
    """The pickle with a mark in the place of each weight: all that is damaged matters."""
    files, weights = _edm()
    content = files["a.pkl"]
    for number, raw in enumerate(weights):
        content = content.replace(raw, b"<%d>" % number, 1)
    return {"structure": content}


def _edm_completed(parts: Files) -> Files:
    content = parts["structure"]
    for number, raw in enumerate(_edm()[1]):
        content = content.replace(b"<%d>" % number, raw)
    return {"a.pkl": content}


def _read_edm(path: Path) -> None:
    from importers.edm import read_edm

    read_edm(path, weights="ema" if path.suffix == ".pkl" else "raw").denoiser()


def _recipe() -> Files:
    configs = Path(__file__).parents[2] / "configs"
    return {"digits.yaml": (configs / "digits.yaml").read_bytes()}


def _read_recipe(path: Path) -> None:
    from training.recipes import load_config

    load_config(path)


def _reference() -> Files:
    arrays = {
        "mu": np.zeros(3),
        "sigma": np.eye(3),
        "detector": np.array("pixels"),
        "num": np.array(9),
        "source": np.array("x"),
    }
    return {
        f"{name}.npy": _saved(lambda file, array=array: np.save(file, array))  # type: ignore[misc]
        for name, array in arrays.items()
    }


def _read_reference(path: Path) -> None:
    from metrics.reference import load_reference

    load_reference(path, "pixels")


def _dict_npy() -> Files:
    tree: Any = {"mu": np.zeros(3), "sigma": np.eye(3)}
    return {"a.npy": _saved(lambda file: np.save(file, tree, allow_pickle=True))}


def _dict_pkl(protocol: int) -> Callable[[], Files]:
    tree = {"mu": np.zeros(3), "sigma": np.eye(3)}
    return lambda: {"a.pkl": pickle.dumps({"fid": tree, "fd_dinov2": tree}, protocol)}


def _samples() -> Files:
    images = np.stack([random_image(n) for n in range(3)])
    return {"arr_0.npy": _saved(lambda file: np.save(file, images))}


def _read_foreign(path: Path) -> None:
    from metrics.foreign import open_reference
    from metrics.npz_images import NpzImages

    found = open_reference(path, "inception")
    if isinstance(found, NpzImages):
        list(found.batches(2))
        found.content_key()


def _into(name: str, method: int = zipfile.ZIP_DEFLATED) -> Callable[[Files], Files]:
    return lambda files: {name: _zip(files, method)}


SUBJECTS: Mapping[str, Subject] = {
    "dataset": Subject(_images, _read_dataset, _into("s.zip")),
    "zip": _zipped(zipfile.ZIP_DEFLATED),
    "bzip2": _zipped(zipfile.ZIP_BZIP2),
    "lzma": _zipped(zipfile.ZIP_LZMA),
    **{kind: _picture(kind) for kind in _PICTURES if kind != "psd"},
    "npy": Subject(lambda: {"a.npy": _npz()["images.npy"]}, _read_source, _itself),
    "npz": Subject(_npz, _read_source, _into("a.npz")),
    "npz-zip": Subject(lambda: _into("a.npz")(_npz()), _read_source, _itself),
    "idx": Subject(_mnist, _read_source, _packed),
    "idx-gz": Subject(lambda: _packed(_mnist()), _read_source, _itself),
    "cifar": Subject(_cifar, _read_source, lambda files: _packed(_tar(files))),
    "cifar-tar": Subject(lambda: _tar(_cifar()), _read_source, _packed),
    "lmdb": Subject(_lmdb, _read_source, _itself),
    "celeba": Subject(_celeba, _read_celeba, _itself),
    "snapshot": Subject(_snapshot, _read_snapshot, _itself),
    "description": Subject(_description, _read_snapshot, _described),
    "state": Subject(_state(True), _read_state, _itself),
    "state-stream": Subject(_state(False), _read_state, _itself),
    "checkpoint": Subject(_checkpoint, _read_model, _itself),
    "checkpoint-training": Subject(_container, _read_model, _itself),
    "edm": Subject(_edm_file("a.pkl"), _read_edm, _itself),
    "edm-structure": Subject(_edm_structure, _read_edm, _edm_completed),
    "edm-state": Subject(_edm_file("a.pt"), _read_edm, _itself),
    "recipe": Subject(_recipe, _read_recipe, _itself),
    "reference": Subject(_reference, _read_reference, _into("a.npz")),
    "reference-npy": Subject(_dict_npy, _read_foreign, _itself),
    "reference-pkl": Subject(_dict_pkl(4), _read_foreign, _itself),
    "reference-pkl-0": Subject(_dict_pkl(0), _read_foreign, _itself),
    "samples": Subject(_samples, _read_foreign, _into("a.npz")),
    "samples-stored": Subject(
        lambda: _into("a.npz", zipfile.ZIP_STORED)(_samples()), _read_foreign, _itself
    ),
    "reference-zip": Subject(lambda: _into("a.npz")(_reference()), _read_reference, _itself),
}
