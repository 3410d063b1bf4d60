"""Small archives of images for the tests of data/ and dataset_tool.py."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image


def random_image(seed: int, height: int = 4, width: int = 6, channels: int = 3) -> np.ndarray:
    """A uint8 image [H, W, 3], or [H, W] for one channel."""
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(image: np.ndarray | PIL.Image.Image, kind: str = "png", **options: Any) -> bytes:
    """The bytes of an image file."""
    picture = image if isinstance(image, PIL.Image.Image) else PIL.Image.fromarray(image)
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **options)
    return buffer.getvalue()


def index(labels: Any, **more: Any) -> bytes:
    """The bytes of a dataset.json; `labels` as a dict of names, or anything else as it is."""
    pairs = [list(pair) for pair in labels.items()] if isinstance(labels, dict) else labels
    return json.dumps({"labels": pairs, **more}).encode()


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files into a folder, with their subfolders."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    """Write files into a zip."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path
