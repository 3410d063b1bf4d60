"""Golden cases of data: the data set tool and augmentation."""

import io
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from data import augment
from data.archive import ImageArchive
from tests.parity.harness import Case, relative_error

ROOT = Path(__file__).parents[3]


def dataset_tool(case: Case) -> float:
    """The data set that the tool makes of a folder: names, labels and pixels must be equal."""
    with tempfile.TemporaryDirectory() as folder:
        dest = Path(folder) / "dataset.zip"
        command = [sys.executable, str(ROOT / "dataset_tool.py"), *case.spec["args"]]
        source = case.folder / case.spec["source"]
        subprocess.run([*command, f"--source={source}", f"--dest={dest}"], check=True)
        archive = ImageArchive(dest)
        labels = archive.labels()
        pictures = [np.array(PIL.Image.open(io.BytesIO(archive.read(n)))) for n in archive.names]
    golden = case.spec["labels"]
    is_equal = (
        list(archive.names) == case.spec["names"]
        and (labels is None if golden is None else list(labels.items()) == list(map(tuple, golden)))
        and np.array_equal(np.stack(pictures), case.arrays[case.name])
    )
    return 0.0 if is_equal else 1.0


def augmentation(case: Case) -> float:
    """Augmented images and their labels, from given variates whose gates have all passed."""
    params: dict[str, Tensor] = {}
    for name in case.spec["augmentations"]:
        variate = torch.from_numpy(case.arrays[f"param/{name}"])
        in_units_of_pi = name in ("rotate_frac", "hue")
        variate = variate.T if variate.ndim == 2 else variate
        params[name] = math.pi * variate if in_units_of_pi else variate
        if name == "aniso":
            angle = case.arrays["param/aniso_angle"] * case.arrays["param/aniso_rotated"]
            params["aniso_angle"] = math.pi * torch.from_numpy(angle)
    images, labels = augment.apply(torch.from_numpy(case.arrays[case.spec["images"]]), params)
    return max(
        relative_error(images.numpy(), case.arrays[f"{case.name}/out"]),
        relative_error(labels.numpy(), case.arrays[f"{case.name}/labels"]),
    )
